"""A flag that one thread raises and the pixel work looks at between its steps.

OpenCV and the codecs cannot be interrupted, so cancellation is polite: the work asks `check()` before each
step and leaves by an exception, which runs every `finally` that wipes a buffer. A budget of seconds ends the
work in the same way: what a file costs is not told by its size alone.
"""

from __future__ import annotations

import threading
import time

from nanoswap.pipelines.errors import Cancelled, TimedOut


class CancelToken:
    """Thread safe. `cancel()` may be called any number of times, from any thread."""

    __slots__ = ("_ends", "_event")

    def __init__(self, seconds: float | None = None) -> None:
        self._event = threading.Event()
        self._ends: float | None = None
        self.allow(seconds)

    def allow(self, seconds: float | None) -> None:
        """From now on, so many seconds more; None: as many as it takes."""
        self._ends = None if seconds is None else time.monotonic() + seconds

    @property
    def cancelled(self) -> bool:
        return self._event.is_set()

    def cancel(self) -> None:
        self._event.set()

    def check(self) -> None:
        """Raises `Cancelled` once the flag is up, `TimedOut` once the seconds are over."""
        if self._event.is_set():
            raise Cancelled
        if self._ends is not None and time.monotonic() >= self._ends:
            raise TimedOut
