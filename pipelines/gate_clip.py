"""What the safety gate is shown of a clip.

Before anything is answered, a dozen frames all over it; while it is made, some of each chunk, so that no more than ten
go out between two looks. Ages are looked at before a chunk is painted, on few frames that show together everybody who
is painted in it, mostly one; whether it is intimate afterwards, on its first frame, when what goes out is there to see.
A chunk begins where a scene does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from av.video.reformatter import VideoReformatter

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip_still import frame_at
from nanoswap.pipelines.container import Buffer
from nanoswap.pipelines.engine import Engine, Rgb
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.frame import Frame
from nanoswap.pipelines.gate import Gate
from nanoswap.pipelines.yuv import Colour, small

_LOOKS: Final = 12
_SIDE: Final = 1280  # px, the longer side of what is looked at


def look_over(
    gate: Gate,
    engine: Engine,
    data: Buffer,
    start: float,
    end: float,
    choose: Callable[[tuple[Face, ...]], Sequence[Face]],
    cancel: CancelToken,
    reformat: VideoReformatter,
) -> None:
    """Look at a dozen frames between `start` and `end`, seconds of the clip's own time. choose: of a frame's faces
    those that would be swapped. Raises `ContentRefused`, `Unsupported`, `Undecodable`, `Cancelled`."""
    for at in np.linspace(start, end, _LOOKS, endpoint=False):
        cancel.check()
        with frame_at(data, float(at), cancel, reformat) as (frame, colour):
            rgb = small(frame, _SIDE, colour)
            try:
                faces = choose(engine.detect(rgb))
                gate.check_content(rgb, faces)
                gate.check_ages(rgb, faces)
            finally:
                rgb.fill(0)


def showing_all(faces: Sequence[Sequence[Face]]) -> list[int]:
    """Of the faces of a chunk's frames: few frames in which everybody is seen who is seen in any, whom the cast can
    tell apart. Greedy (Johnson, "Approximation algorithms for combinatorial problems", 1974): first where most are,
    then where most are of those still missing."""
    people = [{face.person for face in here} for here in faces]
    missing: set[int | None] = set().union(*people)
    frames: list[int] = []
    while missing:
        best = max(range(len(people)), key=lambda one: len(people[one] & missing))
        frames.append(best)
        missing -= people[best]
    return frames


def look(check: Callable[[Rgb, Sequence[Face]], None], frame: Frame, faces: Sequence[Face], colour: Colour) -> None:
    """One of the gate's checks on a frame and faces in its pixels. Raises `ContentRefused`."""
    rgb = small(frame, _SIDE, colour)
    try:
        size = rgb.shape[1], rgb.shape[0]
        by = np.array([size[0] / frame.width, size[1] / frame.height], np.float32)
        # The centre of the first pixel is (0, 0) in both.
        check(rgb, [face.moved(by, (by - 1) / np.float32(2), size) for face in faces])
    finally:
        rgb.fill(0)
