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

Memory of recorded graphs is a pool of its own, out of which nothing can be asked for; who owns the graphs knows when
none of them runs. And what doesn't lie in pinned memory goes to the device through buffers of the driver's, which keep
what came last: on an H200 with CUDA 13.0 a megabyte of zeros there and back left half of it, four left nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import torch
from torch import Tensor

_CACHE: Final = (0, 0)  # torch's name of the pool that all threads share
_SMALL: Final = 2**20  # bytes; up to this size blocks are cut from segments of their own, which are twice as large
_LOOKS: Final = 3
_STAGED: Final = 8 * 2**20
Pool = tuple[int, int]


@torch.inference_mode()
def wipe_cache(device: torch.device) -> int:
    """Overwrite every free block of torch's cache on `device` (CUDA) with zeros; returns how many bytes. Thread safe.
    Nothing of it is given back to the driver. Waits for the streams that the blocks belong to."""
    cuda: Any = torch.cuda
    taken: list[Tensor] = []
    try:
        for _ in range(_LOOKS):  # after the first there is only what others have freed meanwhile
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
    return sum(each.numel() for each in taken)


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
    """Of a CUDA device. Thread safe."""

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._zeros = torch.zeros(_STAGED, dtype=torch.uint8)
        self._there = torch.zeros_like(self._zeros, device=self._device)

    @torch.inference_mode()
    def rinse(self) -> None:
        """Overwrite torch's cache, and the driver's buffers. Some milliseconds, when a job is over."""
        # There and back, from memory that is not pinned.
        self._there.copy_(self._zeros)
        self._zeros.copy_(self._there)
        wipe_cache(self._device)


def _free(device: torch.device, pool: Pool) -> Iterator[tuple[int, int, list[int]]]:
    """Stream, address and size of the free blocks of a pool. A size is in the parts that it has to be asked for in."""
    index = torch.cuda.current_device() if device.index is None else device.index
    cuda: Any = torch.cuda
    for segment in cuda.memory_snapshot():
        if segment["device"] != index or tuple(segment["segment_pool_id"]) != pool:
            continue
        for block in segment["blocks"]:
            if block["state"] == "inactive":
                size = block["size"]
                most = _SMALL if segment["segment_type"] == "small" else size
                yield segment["stream"], block["address"], [min(most, size - at) for at in range(0, size, most)]


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
