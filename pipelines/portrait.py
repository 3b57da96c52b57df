"""A face cut out with the head round it, upright: how diffusion networks like to see one, and how it is put back.

Where the five points lie in a crop of side 1 is the engine's choice; the eyes are level in all of them.
"""

from __future__ import annotations

import cv2
import numpy as np

from nanoswap.pipelines.align import Matrix, cut, place, similarity
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Face, Floats
from nanoswap.pipelines.roi import Roi


def to_portrait(face: Face, points: Floats, size: int) -> Matrix:
    """Picture to a crop of `size` px in which the face's points are near `points` (float32 (5, 2), of a side of 1)."""
    return similarity(face.points, points * np.float32(size))


def reach(matrix: Matrix, size: int) -> float:
    """Pixels of the picture along a side of its crop."""
    return size / float(np.sqrt(np.linalg.det(matrix[:, :2])))


def corners(face: Face, points: Floats) -> Floats:
    """Of the crop in the picture, float32 (4, 2) px; they may lie outside."""
    back = cv2.invertAffineTransform(to_portrait(face, points, 1))
    return place(back, np.array([(0, 0), (1, 0), (0, 1), (1, 1)], np.float64))


def cut_portrait(rgb: Rgb, matrix: Matrix, size: int) -> Rgb:
    """The crop, uint8 (size, size, 3), a new array. Where the picture is much finer than the crop, it is brought to
    means of its pixels first: else the crop would show some of them and leave others out."""
    k = int(reach(matrix, size) / size)
    if k < 2:
        return cut(rgb, matrix, size)
    # Only the rectangle that is needed, and never more pixels than it has: the crop costs the same for a large face.
    around = place(cv2.invertAffineTransform(matrix), np.array([(0, 0), (size, 0), (0, size), (size, size)]))
    low, high = np.floor(around.min(0)).astype(int) - 2 * k, np.ceil(around.max(0)).astype(int) + 2 * k
    roi = Roi(int(low[0]), int(low[1]), int(high[0]), int(high[1])).clip(rgb.shape[1], rgb.shape[0])
    if roi.empty:
        return cut(rgb, matrix, size)
    across, down = max(1, roi.width // k), max(1, roi.height // k)
    small = np.asarray(cv2.resize(rgb[roi.slices], (across, down), interpolation=cv2.INTER_AREA), np.uint8)
    # Small pixels to the picture's: centres lie half a pixel in.
    scale = np.array([roi.width / across, roi.height / down])
    shift = np.array([roi.x0, roi.y0]) + (scale - 1) / 2
    crop = cut(small, np.c_[matrix[:, :2] * scale, matrix[:, :2] @ shift + matrix[:, 2]], size)
    small.fill(0)
    return crop
