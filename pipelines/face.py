"""A face that was found in a picture, and the name by which a person may choose it.

Detection is run again for every request, because nothing is kept between them; so the name of a face has to
be made of the only thing that both runs share: where it is. The id is the box in 1/65535 of the picture's
sides, and a choice is honoured by overlap of boxes, never by the order of a list, which another thread
count or a codec's rounding could change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.errors import UnknownFace

Floats = npt.NDArray[np.float32]

_SCALE = 65535
_MATCH = 0.5


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Face:
    """One face in one picture.

    box         float32 (4,): x0, y0, x1, y1 in pixels of the upright picture.
    points      float32 (5, 2): left eye, right eye, nose tip, mouth left, mouth right,
                as the viewer sees left and right.
    score       how sure the detector is, higher is surer; compare only within one engine.
    frame       (width, height) of the picture, pixels.
    embedding   float32 (512,), unit length, or None when the engine has no identity network.
    landmarks   float32 (N, 2) in pixels, the engine's own dense points, or None.
    person      in a clip, the number by which its cast knows whose face it is; None in a picture.
    """

    box: Floats
    points: Floats
    score: float
    frame: tuple[int, int]
    embedding: Floats | None = None
    landmarks: Floats | None = None
    person: int | None = None

    @property
    def id(self) -> str:
        """`f` and 16 hexadecimal digits; it says where the face is and nothing about whose it is."""
        width, height = self.frame
        fractions = self.box / np.array([width, height, width, height], np.float32)
        parts = np.clip(np.rint(fractions * _SCALE), 0, _SCALE).astype(int)
        return "f" + "".join(f"{part:04x}" for part in parts)

    def moved(self, by: Floats, shift: Floats, frame: tuple[int, int]) -> Face:
        """The same face in another picture, of (width, height) `frame`: pixels times `by` plus `shift`, both float32
        (2,) x, y."""
        return Face(
            box=(self.box * np.tile(by, 2) + np.tile(shift, 2)).astype(np.float32),
            points=(self.points * by + shift).astype(np.float32),
            score=self.score,
            frame=frame,
            embedding=self.embedding,
            landmarks=None if self.landmarks is None else (self.landmarks * by + shift).astype(np.float32),
            person=self.person,
        )

    @property
    def area(self) -> float:
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


def overlap(a: Floats, b: Floats) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1; 0 when either is empty."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - w * h
    return float(w * h / union)


def match(faces: Sequence[Face], ids: Sequence[str]) -> tuple[Face, ...]:
    """The faces that the ids name, in the order of the ids and each at most once.

    An id made from an earlier detection of the same picture names the face whose box overlaps its own
    most, by at least one half. Raises `UnknownFace` for an id that is malformed or names nobody.
    """
    chosen: list[Face] = []
    for name in ids:
        best = max(faces, key=lambda face: overlap(_box(name, face.frame), face.box), default=None)
        if best is None or overlap(_box(name, best.frame), best.box) < _MATCH:
            raise UnknownFace
        if not any(best is face for face in chosen):
            chosen.append(best)
    return tuple(chosen)


def _box(name: str, frame: tuple[int, int]) -> Floats:
    digits = name[1:]
    if len(digits) != 16 or name[0] != "f" or not set(digits) <= set("0123456789abcdef"):
        raise UnknownFace
    parts = [int(digits[i : i + 4], 16) / _SCALE for i in range(0, 16, 4)]
    width, height = frame
    return np.array([parts[0] * width, parts[1] * height, parts[2] * width, parts[3] * height], np.float32)
