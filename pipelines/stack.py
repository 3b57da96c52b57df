"""Emptying a thread's stack below the frame that asks for it.

Decoders keep rows and blocks of a picture in local variables of C, and nothing overwrites those when the functions
have returned: some dozens of bytes of a picture stay until the thread happens to go as deep again. So at the end of a
piece of work the pages below the stack pointer are handed back to the kernel, which gives out zeroed ones, and the rest
of the page in use is overwritten. The stack pointer is what getcontext(3) says.
"""

from __future__ import annotations

import ctypes
import platform
from typing import Any, Final

#: Offset of the stack pointer in ucontext_t (sys/ucontext.h of glibc), by machine.
_POINTER: Final = {"x86_64": 160, "aarch64": 432}
_CONTEXT_BYTES: Final = 8192  # more than any ucontext_t
_PAGE: Final = 4096
#: What the calls below may themselves use of the stack, seen from where the pointer was read.
_OURS: Final = 1024
_MADV_DONTNEED: Final = 4


def wipe_stack() -> bool:
    """Empty the calling thread's stack below here; False where it is not known how (not glibc, another machine)."""
    offset, library = _POINTER.get(platform.machine()), ctypes.CDLL(None)
    if offset is None or not hasattr(library, "getcontext") or not hasattr(library, "pthread_getattr_np"):
        return False
    low = _lowest(library)
    context = ctypes.create_string_buffer(_CONTEXT_BYTES)
    library.getcontext(context)
    pointer = ctypes.c_uint64.from_buffer(context, offset).value - _OURS
    page = pointer // _PAGE * _PAGE
    # The main thread's stack reaches further down than it is mapped; what isn't mapped holds nothing.
    library.madvise(ctypes.c_void_p(low), ctypes.c_size_t(page - low), _MADV_DONTNEED)
    ctypes.memset(page, 0, pointer - page)
    return True


def _lowest(library: Any) -> int:
    """Address of the thread's stack, page aligned, above its guard."""
    library.pthread_self.restype = ctypes.c_void_p
    attributes = ctypes.create_string_buffer(256)
    library.pthread_getattr_np(ctypes.c_void_p(library.pthread_self()), attributes)
    address, size, guard = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t()
    library.pthread_attr_getstack(attributes, ctypes.byref(address), ctypes.byref(size))
    library.pthread_attr_getguardsize(attributes, ctypes.byref(guard))
    library.pthread_attr_destroy(attributes)
    return -(-((address.value or 0) + guard.value) // _PAGE) * _PAGE
