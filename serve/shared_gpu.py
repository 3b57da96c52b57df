"""Pictures before clips, where both are swapped by one GPU.

The two lines are served by two processes, so they meet at a file lock: a picture holds it (shared, any number of
pictures) while it is worked on, and a clip looks at it between two chunks of frames and lets the pictures finish. The
kernel lets go of a lock when its holder dies, and nothing is ever written to the file. A clip waits a bounded time at
each chunk, so a stream of pictures slows it down and can't stop it.
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

#: Longest that a clip stands still at one chunk (a third of a second of video).
PATIENCE_SECONDS = 1.0
_LOOK_SECONDS = 0.005


class SharedGpu:
    """``path`` names the GPU to all processes that use it; None when nobody shares it. Thread safe."""

    def __init__(self, path: str | None) -> None:
        self._path = path
        if path is not None:
            # Now, because later this process can't make files any more.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    @contextmanager
    def picture(self) -> Iterator[None]:
        """A picture is being worked on while the block runs."""
        if self._path is None:
            yield
            return
        # A descriptor of its own: locks belong to the open file, and two pictures must not share one.
        file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(file, fcntl.LOCK_SH)
            yield
        finally:
            os.close(file)

    def let_pictures_by(self) -> float:
        """Wait until no picture is being worked on, PATIENCE_SECONDS at most; returns the seconds waited."""
        if self._path is None:
            return 0.0
        started = time.monotonic()
        file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        try:
            while (waited := time.monotonic() - started) < PATIENCE_SECONDS:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    time.sleep(_LOOK_SECONDS)
            return waited
        finally:
            os.close(file)
