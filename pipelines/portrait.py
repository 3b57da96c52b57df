"""A face cut out with the head round it, upright: how diffusion networks like to see one, and how it is put back.

Where the five points lie in a crop of side 1 is the engine's choice; the eyes are level in all of them.
"""

from __future__ import annotations

import cv2
import numpy as np

from nanoswap.pipelines.align import Matrix, cut, finer, place, similarity
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Face, Floats


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
    """The crop, uint8 (size, size, 3), a new array. Where the picture is much finer than the crop, means of its pixels:
    else it would show some of them and leave others out."""
    k = max(1, int(reach(matrix, size) / size))
    fine = cut(rgb, finer(matrix, k), size * k)
    if k == 1:
        return fine
    crop = np.asarray(cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    fine.fill(0)
    return crop
