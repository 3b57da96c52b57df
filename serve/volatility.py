"""What a process that holds media must be before the first byte comes, set and checked in that process.

An allocator keeps what is freed until somebody else needs the place. glibc can be told to overwrite it (``perturb``),
but only for blocks that don't go through a thread's cache, only before the process starts, and only by its environment;
Python's own allocator for small objects must be out of the way as well. So the environment is set by whoever starts
the process (``FREED_MEMORY``: `serve/local.py`, the deployment's manifests), and the replica checks by trying: it frees
a block that it has marked and looks at what became of it. A replica that would keep what it frees doesn't start.

Measured without and with, in docs/memory.md.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import mmap
import os
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from nanoswap.pipelines.process import FREE_BYTES, KEPT_BYTES
from nanoswap.serve.file_denial import CanNotDeny, deny_new_files

log = logging.getLogger(__name__)

#: The environment in which freed memory is overwritten or goes back to the kernel.
FREED_MEMORY: Final = {
    "GLIBC_TUNABLES": ":".join(
        (
            "glibc.malloc.perturb=165",  # freed blocks are filled
            "glibc.malloc.tcache_count=0",  # a thread's cache of freed blocks isn't
            "glibc.pthread.stack_cache_size=0",  # the stack of a decoder's thread goes back to the kernel with it
        )
    ),
    "PYTHONMALLOC": "malloc",
    # The biggest blocks go back to the kernel at once, others are filled, used again, and handed back when the job is
    # over. At 4 MiB a picture takes a tenth longer, at 64 KiB a third: for fresh pages (tests/bench/bench_volatile.py).
    "MALLOC_MMAP_THRESHOLD_": str(KEPT_BYTES),
    "MALLOC_TRIM_THRESHOLD_": str(FREE_BYTES),
    # uvloop receives into a buffer of 250 kB that lives as long as the process.
    "RAY_USE_UVLOOP": "0",
}
_SIZES: Final = (40, 200, 1000, 1032, 1100, 40_000, 3_000_000)
_HEAD: Final = 32  # bytes of a freed block that the allocator itself writes
_SPARED: Final = 8  # its last bytes are the allocator's of the next block, and not filled
_MARK: Final = 0x55
_PR_SET_DUMPABLE: Final = 4


class NotVolatile(RuntimeError):
    """This process would keep what people upload."""


def require_volatile() -> None:
    """In a process that will hold media, at its start: no dumps, and freed memory is overwritten.

    Raises `NotVolatile`. Where the C library is not glibc it can't be had, and a warning says so.
    """
    refuse_dumps()
    if not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"):
        log.warning("freed memory is not overwritten here: the C library is not glibc")
        return
    if kept := [size for size in _SIZES if freed_bytes_kept(size) > _SPARED]:
        names = ", ".join(FREED_MEMORY)
        raise NotVolatile(f"freed blocks of {kept} bytes keep what was in them: set {names}; see docs/memory.md")
    if os.environ.get("PYTHONMALLOC") != "malloc":
        raise NotVolatile("Python's own allocator keeps what was in small objects: set PYTHONMALLOC=malloc")
    if swap_devices():
        log.warning("swap is on: what a person uploads may be written to %s", ", ".join(swap_devices()))


def require_plain_loop() -> None:
    """In the running event loop. Raises `NotVolatile` for one that keeps what it receives."""
    if type(asyncio.get_running_loop()).__module__.startswith("uvloop"):
        raise NotVolatile("uvloop keeps the last 250 kB that it received: set RAY_USE_UVLOOP=0")


def close_disks() -> None:
    """In a process that is ready: no file can be made any more, in any of its threads.

    Raises `NotVolatile` on a Linux that can't do it; elsewhere it can't be had, and a warning says so.
    """
    try:
        deny_new_files()
    except CanNotDeny as error:
        if sys.platform.startswith("linux"):
            raise NotVolatile(f"this process could still make files: {error}") from None
        else:
            log.warning("this process could still make files: %s", str(error))


def refuse_dumps() -> None:
    """No core file, and no other process of the same user may look into this one."""
    refuse_cores()
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def refuse_cores() -> None:
    """No core file of this process and of what it starts or becomes.

    Linux: a limit of one byte. It is less than any core, so no file is written, and it alone also stops a core that is
    piped to a program, as systemd-coredump and apport have them: 0 doesn't (core(5), fs/coredump.c). Where a hard limit
    of 0 was set before, it stays.
    """
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (1, 1) if sys.platform.startswith("linux") else (0, 0))
    except ValueError:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def swap_devices() -> list[str]:
    """Where the kernel may put memory; empty is good."""
    with suppress(OSError):
        return [line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()[1:]]
    return []


def freed_bytes_kept(size: int) -> int:
    """How many bytes of a block of ``size`` bytes are still readable when it has been freed."""
    library = ctypes.CDLL(None)
    library.malloc.restype = ctypes.c_void_p
    block = library.malloc(ctypes.c_size_t(size))
    # It keeps the block from being the last of the heap, which might go back to the kernel and not be there to look at.
    behind = library.malloc(ctypes.c_size_t(64))
    # Made before: looking takes memory as well, maybe that very block.
    first = block - block % mmap.PAGESIZE
    length = block + size - first
    pages = ctypes.c_void_p(first), ctypes.c_size_t(length), ctypes.create_string_buffer(length // mmap.PAGESIZE + 1)
    mincore, word = library.mincore, bytes([_MARK]) * 8
    ctypes.memset(block, _MARK, size)
    library.free(ctypes.c_void_p(block))
    # A big block may have gone back to the kernel at once, and reading it would end this process (mincore(2)).
    left = ctypes.string_at(block, size)[_HEAD:] if mincore(*pages) == 0 else b""
    library.free(ctypes.c_void_p(behind))
    # Whole words, because an address may have the byte of a mark.
    return left.count(word) * len(word)
