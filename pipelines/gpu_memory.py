"""What torch and the driver keep of those who were served, in a GPU's memory and on the way there, overwritten.

torch doesn't give memory back to the driver: what is freed goes to a cache, as it is, and lies there until somebody
needs a block of that size. After a picture that is everything that the networks made of it. Overwriting each tensor
where it is made would be forgotten somewhere (most are made inside of libraries), so here the cache itself is
overwritten when a job is over.

Nobody may write into free memory, because another thread may have been given it meanwhile. So each free block is
asked for, of its own size and on its own stream, until none is left: what was given is nobody else's, is zeroed in the
order of that stream, and goes back into the cache. A block that another thread took first is that thread's job's to
overwrite. torch is public about what is free (`torch.cuda.memory_snapshot`), and gives the smallest block that is large
enough, which is the one of just this size.

cuBLAS' working memory is in no cache: torch takes a block for each thread at its first matrix product (on Hopper of
32 MiB) and keeps it, with whatever the block held before. On an H200 half an activation of the autoencoder was found
in one, through every job that followed. So a thread asks for it by `GpuMemory.enter` before its first product: out of
a pool that holds nothing else, where we know its place; and overwrites its own when a job is over, which nobody else
may do, since a product may be at work in it. **This part has not been run on a GPU yet.**

Memory of recorded graphs is a pool of its own, out of which nothing can be asked for; who owns the graphs knows when
none of them runs. And what doesn't lie in pinned memory goes to the device through buffers of the driver's, which keep
what came last: on an H200 with CUDA 13.0 a megabyte of zeros there and back left half of it, four left nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from functools import cache
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

log = logging.getLogger(__name__)

_CACHE: Final = (0, 0)  # torch's name of the pool that all threads share
_INACTIVE: Final = frozenset({"inactive"})
_WAITING: Final = _INACTIVE | {"active_pending_free"}  # freed, and another stream may still be at work in it
_SMALL: Final = 2**20  # bytes; up to this size blocks are cut from segments of their own, which are twice as large
_LOOKS: Final = 8
_STAGED: Final = 8 * 2**20
Pool = tuple[int, int]


class Wiped(NamedTuple):
    """Bytes that were overwritten; and that were free at last all the same: freed by others meanwhile, or waiting for a
    stream, or not to be had."""

    covered: int
    left: int


@torch.inference_mode()
def wipe_cache(device: torch.device) -> Wiped:
    """Overwrite every free block of torch's cache on `device` (CUDA) with zeros. Thread safe. Nothing of it is given
    back to the driver. Waits for the streams that the blocks belong to."""
    cuda: Any = torch.cuda
    taken: list[Tensor] = []
    try:
        for _ in range(_LOOKS):  # until nothing is free; after the first there is only what others freed meanwhile
            free: dict[int, list[int]] = {}
            for stream, _, sizes in _free(device, _CACHE):
                free.setdefault(stream, []).extend(sizes)
            if not free:
                break
            for stream, parts in free.items():
                # An external stream of no address would be a new one.
                mine: Any = cuda.ExternalStream(stream, device=device) if stream else cuda.default_stream(device)
                with torch.cuda.stream(mine):
                    # The largest first: a small one would be cut off a larger one if that were the only one left.
                    for size in sorted(parts, reverse=True):
                        taken.append(torch.zeros(size, dtype=torch.uint8, device=device))
                mine.synchronize()
    except torch.OutOfMemoryError:
        pass  # another thread has taken a block meanwhile, and the device has no other
    # What was taken is still held, so a block that is free by now was not covered.
    left = sum(sum(sizes) for _, _, sizes in _free(device, _CACHE, _WAITING))
    return Wiped(sum(each.numel() for each in taken), left)


@torch.inference_mode()
def wipe_pool(device: torch.device, pool: Pool) -> int:
    """Overwrite the working memory of the graphs that were recorded in `pool`; returns how many bytes. The caller sees
    to it that none of them is running."""
    wiped = 0
    for _, address, sizes in _free(device, pool):
        torch.as_tensor(Block(address, sum(sizes)), device=device).zero_()
        wiped += sum(sizes)
    return wiped


class GpuMemory:
    """Of a CUDA device; see `gpu_memory`. Thread safe."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._zeros = torch.zeros(_STAGED, dtype=torch.uint8)
        self._there = torch.zeros_like(self._zeros, device=self._device)
        self._mine = threading.local()
        self._lock = threading.Lock()
        self._workspaces: dict[int, tuple[Any, Block]] = {}  # cuBLAS' handle -> pool, place

    def enter(self) -> None:
        """In a thread, on the stream that its matrix products are made on, before the first: see above."""
        if hasattr(self._mine, "workspace"):
            return
        cuda: Any = torch.cuda
        with torch.cuda.device(self._device), self._lock:
            pool = cuda.MemPool()
            with cuda.use_mem_pool(pool):
                handle = cuda.current_blas_handle()
            blocks = list(_used(self._device, tuple(pool.id)))
            # A thread that has ended leaves its handle to the next one, and that has its block already.
            if len(blocks) == 1:
                self._workspaces[handle] = pool, blocks[0]
            self._mine.workspace = self._workspaces.get(handle)

    @torch.inference_mode()
    def rinse(self) -> Wiped:
        """Overwrite this thread's cuBLAS memory, the driver's buffers and torch's cache. Some milliseconds, at the end
        of a job."""
        workspace = getattr(self._mine, "workspace", None)
        if workspace is not None:
            torch.as_tensor(workspace[1], device=self._device).zero_()
        # There and back, from memory that is not pinned.
        self._there.copy_(self._zeros)
        self._zeros.copy_(self._there)
        wiped = wipe_cache(self._device)
        if wiped.left:
            log.info(
                "%d bytes of the GPU's memory were freed by other jobs meanwhile, and are theirs to wipe", wiped.left
            )
        return wiped


@cache
def gpu_memory(device: str) -> GpuMemory:
    """torch's cache and cuBLAS' handles are the process', and so is this."""
    return GpuMemory(device)


def _free(device: torch.device, pool: Pool, states: frozenset[str] = _INACTIVE) -> Iterator[tuple[int, int, list[int]]]:
    """Stream, address and size of the free blocks of a pool. A size is in the parts that it has to be asked for in."""
    for segment in _segments(device, pool):
        for block in segment["blocks"]:
            if block["state"] in states:
                size = block["size"]
                most = _SMALL if segment["segment_type"] == "small" else size
                yield segment["stream"], block["address"], [min(most, size - at) for at in range(0, size, most)]


def _used(device: torch.device, pool: Pool) -> Iterator[Block]:
    for segment in _segments(device, pool):
        for block in segment["blocks"]:
            if block["state"] == "active_allocated":
                yield Block(block["address"], block["size"])


def _segments(device: torch.device, pool: Pool) -> Iterator[Any]:
    index = torch.cuda.current_device() if device.index is None else device.index
    cuda: Any = torch.cuda
    for segment in cuda.memory_snapshot():
        if segment["device"] == index and tuple(segment["segment_pool_id"]) == pool:
            yield segment


class Block:
    """Memory by its address, as torch and others take it from each other."""

    def __init__(self, address: int, size: int) -> None:
        self.__cuda_array_interface__ = {
            "shape": (size,),
            "typestr": "|u1",
            "data": (address, False),
            "strides": None,
            "version": 3,
        }
