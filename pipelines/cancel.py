"""A flag that one thread raises and the pixel work looks at between its steps.

OpenCV and the codecs cannot be interrupted, so cancellation is polite: the work asks `check()` before each
step and leaves by an exception, which runs every `finally` that wipes a buffer.
"""

from __future__ import annotations

import threading

from nanoswap.pipelines.errors import Cancelled


class CancelToken:
    """Thread safe. `cancel()` may be called any number of times, from any thread."""

    __slots__ = ("_event",)

    def __init__(self) -> None:
        self._event = threading.Event()

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        self._event.set()

    def check(self) -> None:
        """Raises `Cancelled` once the flag is up."""
        if self._event.is_set():
            raise Cancelled
