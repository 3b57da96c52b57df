"""Every face of a picture, once, and nothing that is not one.

The cascade is cheap and gullible, so its answers are proposals: they are measured, and what has no pupils
where pupils belong, or cheeks of no human colour, is dropped. A proposal with few votes is believed only
when there is no better one in the picture, and tilted heads are looked for only when no upright one was
found, since each look costs as much as the first and brings its own mistakes. Envelope: frontal to about
25° of turn, tilt to about 40°, faces from 1/26 of the picture's longer side (1/53 in large pictures). Not
profiles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.cascade import Cascade
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Face, Floats, overlap
from nanoswap.pipelines.landmarks import measure
from nanoswap.pipelines.shape import Shape

_LOOKS: Final = ((640, 1.1), (1280, 1.2))  # longer side in px, ratio between sizes
_ROLLS: Final = (-20.0, 20.0, -40.0, 40.0)
_ROLL_SIDE: Final = 400
_MANY: Final = 7  # votes; what real faces get and gravel does not
_FEW: Final = 3
_TRUST: Final = 0.5
_SAME: Final = 0.3  # overlap above which two squares are one face
_SMALLEST: Final = 10.0  # px between the pupils; below there is nothing to swap
# The part of the canonical frame that a face's box encloses: ear to ear, hairline to chin.
_EXTENT: Final = np.array([(-1.05, -0.75), (1.05, -0.75), (1.05, 1.73), (-1.05, 1.73)], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    box: Floats
    votes: float
    shape: Shape


def find(rgb: Rgb, cascade: Cascade) -> tuple[Face, ...]:
    """The faces of uint8 (H, W, 3) RGB, the largest first. `landmarks` of each holds the 14 anchors of `Shape`."""
    grey = _grey(rgb, max(side for side, _ in _LOOKS))
    proposals = [found for side, step in _LOOKS for found in _proposals(rgb, grey, cascade, side, step)]
    kept = _distinct(found for found in proposals if found.votes >= _MANY and found.shape.trust >= _TRUST)
    if not kept:
        kept = _distinct(found for found in proposals if found.shape.trust >= _TRUST)[:1]
    for roll in _ROLLS:
        if kept:
            break
        kept = _distinct(_tilted(rgb, grey, cascade, roll))
    faces = [_face(found, rgb) for found in kept]
    return tuple(sorted(faces, key=lambda face: (-face.area, face.id)))


def _grey(rgb: Rgb, side: int) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(_shrunk(rgb, side), cv2.COLOR_RGB2GRAY), np.uint8)


def _shrunk(pixels: npt.NDArray[np.uint8], side: int) -> npt.NDArray[np.uint8]:
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return pixels
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)


def _proposals(rgb: Rgb, grey: npt.NDArray[np.uint8], cascade: Cascade, side: int, step: float) -> Iterable[_Found]:
    if side > min(_LOOKS)[0] and max(rgb.shape[:2]) <= min(_LOOKS)[0] * 1.4:
        return  # nothing to gain from a finer look
    small = _shrunk(grey, side)
    scale = max(rgb.shape[:2]) / max(small.shape)
    for box, votes in zip(*cascade.boxes(small, step=step, votes=_FEW), strict=True):
        shape = measure(rgb, box * scale)
        if shape.unit >= _SMALLEST:
            yield _Found(box * scale, float(votes), shape)


def _tilted(rgb: Rgb, grey: npt.NDArray[np.uint8], cascade: Cascade, roll: float) -> Iterable[_Found]:
    small = _shrunk(grey, _ROLL_SIDE)
    scale = max(rgb.shape[:2]) / max(small.shape)
    height, width = small.shape
    # A positive angle turns the picture counter-clockwise, and so sets a head upright that leans clockwise.
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), roll, 1)
    back = cv2.invertAffineTransform(turn)
    upright = np.asarray(cv2.warpAffine(small, turn, (width, height), borderMode=cv2.BORDER_REPLICATE), np.uint8)
    for box, votes in zip(*cascade.boxes(upright, step=1.1, votes=_FEW), strict=True):
        middle = back @ ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2, 1)
        half = (box[2] - box[0]) / 2
        square = np.array([*(middle - half), *(middle + half)], np.float32) * scale
        shape = measure(rgb, square, roll)
        if votes >= _MANY and shape.trust >= _TRUST and shape.unit >= _SMALLEST:
            yield _Found(square, float(votes), shape)


def _distinct(found: Iterable[_Found]) -> list[_Found]:
    """The best of every heap of overlapping proposals."""
    kept: list[_Found] = []
    for one in sorted(found, key=lambda each: (-each.votes * each.shape.trust, *each.box.tolist())):
        near = any(
            overlap(one.box, other.box) > _SAME
            or np.hypot(*(one.shape.to_image[:, 2] - other.shape.to_image[:, 2]))
            < max(one.shape.unit, other.shape.unit)
            for other in kept
        )
        if not near:
            kept.append(one)
    return kept


def _face(found: _Found, rgb: Rgb) -> Face:
    height, width = rgb.shape[:2]
    corners = found.shape.image(_EXTENT)
    low, high = corners.min(0), corners.max(0)
    box = np.array([max(0, low[0]), max(0, low[1]), min(width, high[0]), min(height, high[1])], np.float32)
    return Face(
        box=box,
        points=found.shape.points,
        score=found.votes * found.shape.trust,
        frame=(width, height),
        landmarks=found.shape.image(found.shape.anchors),
    )
