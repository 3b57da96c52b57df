"""A frame of a clip as the codecs have it: three planes in one buffer, borrowed from a pool.

Converting whole frames to RGB and back costs ten times what converting the face does, and is not exact; so
a frame stays I420 from the decoder to the encoder. The pool bounds how many are in flight: whoever asks for
one more waits until one comes back.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.errors import Cancelled

Plane = npt.NDArray[np.uint8]


@dataclass(slots=True, eq=False)
class Frame:
    """data: uint8 (height * 3 / 2, width), I420: the Y plane, then U, then V, each half as wide and high;
    width and height even; pts: presentation time in ticks of the clip's time base."""

    data: Plane
    pts: int = 0

    @property
    def width(self) -> int:
        return int(self.data.shape[1])

    @property
    def height(self) -> int:
        return int(self.data.shape[0]) * 2 // 3

    @property
    def y(self) -> Plane:
        """uint8 (height, width), a view."""
        return self.data[: self.height]

    @property
    def u(self) -> Plane:
        """uint8 (height / 2, width / 2), a view."""
        return self._chroma(0)

    @property
    def v(self) -> Plane:
        return self._chroma(1)

    def _chroma(self, which: int) -> Plane:
        size = (self.height // 2) * (self.width // 2)
        flat = self.data.reshape(-1)[self.height * self.width + which * size :][:size]
        return flat.reshape(self.height // 2, self.width // 2)


class FramePool:
    """At most `count` frames of one size. Thread safe."""

    def __init__(self, width: int, height: int, count: int) -> None:
        self._shape, self._left = (height * 3 // 2, width), count
        self._free: list[Plane] = []
        self._all: list[Plane] = []
        self._change = threading.Condition()
        self._closed = False

    def take(self, cancel: CancelToken) -> Frame:
        """Waits for a free one. Raises `Cancelled`, also when the pool is closed."""
        with self._change:
            while not self._closed and not self._free and not self._left:
                cancel.check()
                self._change.wait(0.1)
            if self._closed:
                raise Cancelled
            if self._free:
                return Frame(self._free.pop())
            self._left -= 1
            self._all.append(np.empty(self._shape, np.uint8))
            return Frame(self._all[-1])

    def give(self, frame: Frame) -> None:
        """Back to the pool; the frame must not be used afterwards."""
        with self._change:
            self._free.append(frame.data)
            self._change.notify()

    def close(self) -> None:
        """Nobody gets another frame: whoever waits for one stops waiting. Idempotent."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def wipe(self) -> None:
        """Overwrite every frame there ever was, lent ones too. Call when all stages have ended."""
        with self._change:
            for data in self._all:
                data.fill(0)
            self._all.clear()
            self._free.clear()
