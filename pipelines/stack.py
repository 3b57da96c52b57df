"""Emptying a thread's stack below the frame that asks for it.

Decoders keep rows and blocks of a picture in local variables of C, and nothing overwrites those when the functions
have returned: some dozens of bytes of a picture stay until the thread happens to go as deep again. So at the end of a
piece of work the pages below the stack pointer are handed back to the kernel, which gives out zeroed ones, and the rest
of the page in use is overwritten. The stack pointer is what getcontext(3) says.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
from functools import cache
from typing import Any, Final

#: Offset of the stack pointer in ucontext_t (sys/ucontext.h of glibc), by machine.
_POINTER: Final = {"x86_64": 160, "aarch64": 432}
_CONTEXT_BYTES: Final = 8192  # more than any ucontext_t
#: What the calls below may themselves use of the stack, seen from where the pointer was read.
_OURS: Final = 1024
_MADV_DONTNEED: Final = 4


def wipe_stack() -> bool:
    """Empty the calling thread's stack below here; False where it is not known how (not glibc, another machine, a
    stack that isn't the thread's own)."""
    offset, library = _POINTER.get(platform.machine()), _glibc()
    if offset is None or library is None:
        return False
    low, high = _bounds(library)
    context = ctypes.create_string_buffer(_CONTEXT_BYTES)
    library.getcontext(context)
    pointer = ctypes.c_uint64.from_buffer(context, offset).value - _OURS
    page = pointer // mmap.PAGESIZE * mmap.PAGESIZE
    if not low <= page < high:
        return False
    # The main thread's stack reaches further down than it is mapped; what isn't mapped holds nothing.
    library.madvise(ctypes.c_void_p(low), ctypes.c_size_t(page - low), _MADV_DONTNEED)
    ctypes.memset(page, 0, pointer - page)
    return True


@cache
def _glibc() -> Any:
    """The process's own C library, or None where it isn't glibc. Opening it takes longer than all the rest."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "getcontext") or not hasattr(library, "pthread_getattr_np"):
        return None
    library.pthread_self.restype = ctypes.c_void_p
    return library


def _bounds(library: Any) -> tuple[int, int]:
    """Lowest address of the thread's stack, page aligned, and the one behind its highest. What glibc answers leaves the
    guard out."""
    attributes = ctypes.create_string_buffer(256)
    library.pthread_getattr_np(ctypes.c_void_p(library.pthread_self()), attributes)
    address, size = ctypes.c_void_p(), ctypes.c_size_t()
    library.pthread_attr_getstack(attributes, ctypes.byref(address), ctypes.byref(size))
    library.pthread_attr_destroy(attributes)
    low = address.value or 0
    return -(-low // mmap.PAGESIZE) * mmap.PAGESIZE, low + size.value
