"""How a process that swaps clips uses its processor and its memory.

Clips are parallel by their stages, so OpenCV's own threads would only get in their way. And their small pictures
come and go a hundred times a second: an allocator that asks the kernel for fresh pages each time, and hands them
back each time, costs as much as the painting itself. So blocks of up to KEPT_BYTES stay while a job lasts, FREE_BYTES
in all, and everything that is free is handed back when it is done, which also empties it: the kernel gives out zeroed
pages only. Bigger blocks, pictures of some 11 megapixels among them, go straight back as ever.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
#: The most that glibc takes.
KEPT_BYTES: Final = 32 * 2**20
FREE_BYTES: Final = 256 * 2**20


def prepare_process() -> None:
    """Once, before the first clip. Where the C library is not glibc, its allocator is left alone."""
    import cv2  # the edge and the gateway read the numbers above and swap nothing

    cv2.setNumThreads(1)
    library = _glibc()
    if library is not None:
        library.mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)
        library.mallopt(_M_TRIM_THRESHOLD, FREE_BYTES)


def give_back_memory() -> None:
    """Hand every whole page that is free back to the kernel. Some milliseconds; any thread."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> Any:
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") else None
