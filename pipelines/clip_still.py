"""Single frames of a clip: to look at, to choose faces on, and to find faces in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
from av.video.reformatter import VideoReformatter

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.container import Buffer
from nanoswap.pipelines.engine import Engine
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.frame import Frame, FramePool
from nanoswap.pipelines.image import encode
from nanoswap.pipelines.reader import Reader
from nanoswap.pipelines.yuv import Colour, small

_COARSE: Final = 896  # px, the longer side of what a passing look for faces is given
_CLOSE: Final = 1280  # px, the same of a close look


@contextmanager
def frame_at(
    data: Buffer, at: float, cancel: CancelToken, reformat: VideoReformatter
) -> Iterator[tuple[Frame, Colour]]:
    """The frame that a player shows at `at` seconds, and its colours; overwritten behind the block.

    Raises `Unsupported`, `Undecodable`, `Cancelled`.
    """
    reader = Reader(data, cancel, start=at, reformat=reformat)
    pool = FramePool(reader.shape.width, reader.shape.height, 1)
    try:
        yield reader.still(pool), reader.shape.colour
    finally:
        pool.wipe()


def still(data: Buffer, at: float, cancel: CancelToken, quality: int = 90) -> bytearray:
    """The upright frame that is shown at `at` seconds, as a JPEG. Raises `Unsupported`, `Undecodable`."""
    with frame_at(data, at, cancel, VideoReformatter()) as (frame, colour):
        rgb = small(frame, max(frame.width, frame.height), colour)
        try:
            return encode(rgb, "jpeg", quality)
        finally:
            rgb.fill(0)


class Detector:
    """Faces of a frame, in its pixels; a passing look is given a smaller picture, and costs half.

    identify: also what tells people apart. It costs a network per face, and where everybody is swapped nobody asks.
    """

    def __init__(self, engine: Engine, colour: Colour, *, identify: bool) -> None:
        self._engine, self._colour, self._identify = engine, colour, identify

    def __call__(self, frame: Frame, close: bool) -> tuple[Face, ...]:
        rgb = small(frame, _CLOSE if close else _COARSE, self._colour)
        try:
            faces = self._engine.detect(rgb)
            if self._identify:
                faces = self._engine.recognise(rgb, faces)
            return tuple(_scaled(face, frame) for face in faces)
        finally:
            rgb.fill(0)


def _scaled(face: Face, frame: Frame) -> Face:
    """A face of a smaller picture, in the frame's pixels. The centre of the first pixel is (0, 0) in both."""
    if face.frame == (frame.width, frame.height):
        return face
    by = np.array([frame.width / face.frame[0], frame.height / face.frame[1]], np.float32)
    return face.moved(by, (by - 1) / np.float32(2), (frame.width, frame.height))
