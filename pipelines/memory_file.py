"""A clip that lies in memory, as the read-only file that a demuxer asks for.

The cancel token is asked at every read, so that a demuxer that reads for ever over a few bytes can be stopped.
"""

from __future__ import annotations

import io

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.container import Buffer


class MemoryFile:
    """read, seek and tell over a buffer that stays the caller's. Not thread safe: each reader opens its own."""

    __slots__ = ("_at", "_cancel", "_view")

    def __init__(self, data: Buffer, cancel: CancelToken) -> None:
        self._cancel = cancel
        self._view = memoryview(data).cast("B")
        self._at = 0

    def read(self, size: int = -1) -> bytes:
        """Raises `Cancelled`, `TimedOut`."""
        self._cancel.check()
        end = len(self._view) if size < 0 else min(len(self._view), self._at + size)
        part = bytes(self._view[self._at : end])
        self._at += len(part)
        return part

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Raises `ValueError` for a place before the start, which a damaged index asks for."""
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._view)}[whence]
        if at < 0:
            raise ValueError("before the start")
        self._at = min(at, len(self._view))
        return self._at

    def tell(self) -> int:
        return self._at
