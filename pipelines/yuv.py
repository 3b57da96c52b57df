"""Colour of a clip's frames: a rectangle to RGB, and what was painted there back into the planes.

Going back, only the *difference* that painting made is converted and added. Where nothing was painted the
difference is zero and the planes keep their bits; and since the way there repeats each chroma sample for
its four pixels, the mean of the difference over these four is exact. Matrices: ITU-R BT.601, BT.709,
BT.2020 (non-constant luminance); ranges as in H.273.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.frame import Frame, Plane
from nanoswap.pipelines.roi import Roi

# H.273 matrix coefficients: code to (Kr, Kb).
_LUMA: Final = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
_UNSPECIFIED: Final = 2
_FULL: Final = 2
# Pixels that are painted at once: what stays in the processor's cache, and asks the kernel for no fresh pages.
_BAND: Final = 2**15


@dataclass(frozen=True, slots=True)
class Colour:
    """H.273 codes as a file carries them (2: not said); range: 0 not said, 1 video (16..235), 2 full."""

    primaries: int = _UNSPECIFIED
    transfer: int = _UNSPECIFIED
    matrix: int = _UNSPECIFIED
    range: int = 0

    def to_rgb(self, height: int) -> npt.NDArray[np.float64]:
        """float64 (3, 4): Y, U, V, 1 to R, G, B, all 0..255. What is not said is guessed as players do, by `height`."""
        kr, kb = _LUMA.get(self.matrix, _LUMA[1] if height >= 720 else _LUMA[6])
        kg = 1 - kr - kb
        full = self.range == _FULL
        sy, sc, base = (1.0, 1.0, 0.0) if full else (255 / 219, 255 / 224, 16.0)
        m = np.array(
            [
                [sy, 0, 2 * (1 - kr) * sc],
                [sy, -2 * (1 - kb) * kb / kg * sc, -2 * (1 - kr) * kr / kg * sc],
                [sy, 2 * (1 - kb) * sc, 0],
            ]
        )
        return np.hstack([m, -m @ np.array([[base], [128], [128]])])


def even(roi: Roi, width: int, height: int) -> Roi:
    """The rectangle grown to whole chroma samples, inside a frame of even `width` and `height`."""
    roi = Roi(roi.x0 & ~1, roi.y0 & ~1, roi.x1 + (roi.x1 & 1), roi.y1 + (roi.y1 & 1))
    return roi.clip(width, height)


def _half(roi: Roi) -> Roi:
    return Roi(roi.x0 // 2, roi.y0 // 2, roi.x1 // 2, roi.y1 // 2)


def crop(frame: Frame, roi: Roi, colour: Colour) -> Rgb:
    """The even rectangle `roi` of `frame` as a new uint8 (h, w, 3) RGB picture (the caller's to wipe)."""
    half = _half(roi).slices
    size = roi.width, roi.height
    u = cv2.resize(frame.u[half], size, interpolation=cv2.INTER_NEAREST)
    v = cv2.resize(frame.v[half], size, interpolation=cv2.INTER_NEAREST)
    yuv = cv2.merge([frame.y[roi.slices], u, v])
    return np.asarray(cv2.transform(yuv, colour.to_rgb(frame.height)), np.uint8)


def paint(frame: Frame, roi: Roi, before: Rgb, after: Rgb, colour: Colour) -> None:
    """Add to the even rectangle `roi` of `frame` what `after` differs from `before` (that `crop` gave)."""
    matrix = np.linalg.inv(colour.to_rgb(frame.height)[:, :3])
    rows = max(2, _BAND // roi.width & ~1)
    for y0 in range(roi.y0, roi.y1, rows):
        band = Roi(roi.x0, y0, roi.x1, min(y0 + rows, roi.y1))
        part = slice(band.y0 - roi.y0, band.y1 - roi.y0)
        change = cv2.subtract(after[part], before[part], dtype=cv2.CV_32F)
        dy, du, dv = cv2.split(cv2.transform(change, matrix))
        half = _half(band)
        size = half.width, half.height
        _add(frame.y[band.slices], dy)
        _add(frame.u[half.slices], cv2.resize(du, size, interpolation=cv2.INTER_AREA))
        _add(frame.v[half.slices], cv2.resize(dv, size, interpolation=cv2.INTER_AREA))


def _add(plane: Plane, change: npt.NDArray[Any]) -> None:
    plane[:] = cv2.add(plane, change, dtype=cv2.CV_8U)


def small(frame: Frame, side: int, colour: Colour) -> Rgb:
    """The whole frame as RGB, its longer side at most `side` pixels. Does not change `frame`."""
    scale = min(1.0, side / max(frame.width, frame.height))
    size = max(2, round(frame.width * scale)), max(2, round(frame.height * scale))
    y = frame.y
    # Halved as often as it goes, then by less than two, which needs no average: a tenth of one step by INTER_AREA.
    while y.shape[1] >= 2 * size[0] and y.shape[0] % 2 == y.shape[1] % 2 == 0:
        y = np.asarray(cv2.resize(y, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
    if y.shape != size[::-1]:
        fine = y.shape[1] < 2 * size[0]
        y = np.asarray(cv2.resize(y, size, interpolation=cv2.INTER_LINEAR if fine else cv2.INTER_AREA), np.uint8)
    u, v = (cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in (frame.u, frame.v))
    return np.asarray(cv2.transform(cv2.merge([y, u, v]), colour.to_rgb(frame.height)), np.uint8)
