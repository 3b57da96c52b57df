"""The engine that is always there: a face swap by geometry and light alone.

No network and nothing to fetch: pupils, mouth and nose are measured, the source face is bent to the
target's shape, its skin is brought to the target's tone, and a smooth field makes it meet the skin around
it. It gives the source's features, spectacles and expression, in the target's pose, size and light. It is
what tests, the demo on a CPU and a machine without weights run; it calls itself classical, and is no rival
for the networks where heads turn. Cost: the face's rectangle only, some 15 ms for a face of 190 px between
the pupils.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np

from nanoswap.pipelines import blend, detect
from nanoswap.pipelines.cascade import Cascade
from nanoswap.pipelines.engine import Pair, Request, Rgb, Source
from nanoswap.pipelines.face import Face, Floats
from nanoswap.pipelines.grain import Texture, refine
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.shape import AVERAGE, EYE_L, EYE_R, HULL, Shape, frame_of
from nanoswap.pipelines.warp import Spline, lookup

# How much of a picture around the face is kept of a source, canonical units.
_AROUND: Final = np.array([(-1.5, -1.1), (1.5, -1.1), (1.5, 2.1), (-1.5, 2.1)], np.float32)
_MARGIN: Final = 0.15  # of the unit, around the hull: room for the feather


class MeshSource:
    """The pixels around the source face, and its shape in them."""

    __slots__ = ("pixels", "shape")

    def __init__(self, pixels: Rgb, shape: Shape) -> None:
        self.pixels, self.shape = pixels, shape

    def wipe(self) -> None:
        self.pixels.fill(0)
        self.shape.anchors.fill(0)
        self.shape.to_image.fill(0)


class MeshEngine:
    """Implements `Engine`. Thread safe; holds the cascade and nothing else."""

    name: str = "mesh"
    batch: int = 1

    def __init__(self) -> None:
        self._cascade = Cascade()

    def rinse(self) -> None:
        """Nothing: what it calls keeps nothing between calls."""

    def detect(self, rgb: Rgb) -> tuple[Face, ...]:
        return detect.find(rgb, self._cascade)

    def prepare(self, rgb: Rgb, face: Face) -> MeshSource:
        shape = _shape(face)
        roi = _around(shape.image(_AROUND), 0).clip(rgb.shape[1], rgb.shape[0])
        to_image = shape.to_image.copy()
        to_image[:, 2] -= roi.x0, roi.y0
        return MeshSource(rgb[roi.slices].copy(), Shape(to_image, shape.anchors))

    def footprint(self, face: Face) -> Roi:
        taker = _shape(face)
        return _painted(taker, _hull(taker))

    def recognise(self, rgb: Rgb, faces: Sequence[Face]) -> tuple[Face, ...]:
        return tuple(faces)

    def swap(self, pairs: Sequence[Pair], source: Source, request: Request) -> list[Roi]:
        """Raises `TypeError` for another engine's source."""
        if not isinstance(source, MeshSource):
            raise TypeError("a source that another engine prepared")
        return [self._paint(rgb, face, source) for rgb, face in pairs]

    @staticmethod
    def _paint(rgb: Rgb, face: Face, source: MeshSource) -> Roi:
        taker = _shape(face)
        hull = _hull(taker)
        roi = _painted(taker, hull).clip(rgb.shape[1], rgb.shape[0])
        if roi.empty:
            return roi
        view = rgb[roi.slices]
        warped = _warped(source, taker, roi)
        try:
            refine(warped, view, Texture(taker.unit, source.shape.unit))
            blend.layer(warped, view, taker, roi, hull).apply(view, warped)
        finally:
            warped.fill(0)
        return roi


def _shape(face: Face) -> Shape:
    """The shape that `detect` measured, out of the anchors that travel with the face."""
    if face.landmarks is None or len(face.landmarks) != len(AVERAGE):
        raise ValueError("a face that another engine detected")
    frame = frame_of(face.landmarks[EYE_L], face.landmarks[EYE_R])
    bare = Shape(frame, AVERAGE)
    return Shape(frame, bare.canonical(face.landmarks))


def _hull(taker: Shape) -> Floats:
    return taker.image(Spline(AVERAGE, taker.anchors)(HULL))


def _painted(taker: Shape, hull: Floats) -> Roi:
    return _around(hull, _MARGIN * taker.unit + 4)


def _around(points: Floats, margin: float) -> Roi:
    low, high = np.floor(points.min(0) - margin), np.ceil(points.max(0) + margin)
    return Roi(int(low[0]), int(low[1]), int(high[0]) + 1, int(high[1]) + 1)


def _warped(source: MeshSource, taker: Shape, roi: Roi) -> Rgb:
    """The source face in the target's shape, uint8 (h, w, 3) over `roi`."""
    pixels, giver = source.pixels, source.shape
    shrink = taker.unit / giver.unit
    if shrink < 0.67:  # a finer source is averaged down first, or skin would turn to noise
        size = max(1, round(pixels.shape[1] * shrink)), max(1, round(pixels.shape[0] * shrink))
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        sx, sy = size[0] / source.pixels.shape[1], size[1] / source.pixels.shape[0]
        scaled = np.array([[sx], [sy]]) * giver.to_image
        scaled[:, 2] += (np.array([sx, sy]) - 1) / 2
        giver = Shape(scaled, giver.anchors)
    order = cv2.INTER_CUBIC if shrink > 1 else cv2.INTER_LINEAR
    try:
        where: Any = lookup(giver, taker, roi)
        # One map of two channels; the type stub knows only two maps of one.
        return np.asarray(cv2.remap(pixels, where, None, order, borderMode=cv2.BORDER_REFLECT), np.uint8)  # type: ignore[call-overload]
    finally:
        if pixels is not source.pixels:
            pixels.fill(0)
