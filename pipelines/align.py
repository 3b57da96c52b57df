"""Five points to a square crop, as the identity and swap networks were trained to see a face.

The similarity (turn, size, shift, no shear) that brings the points nearest to a template in the
least-squares sense, in closed form after Umeyama (1991), with his guard against mirror images.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Floats

Matrix = npt.NDArray[np.float64]
"""float64 (2, 3): picture to crop, pixels to pixels."""

ARCFACE: Final[Floats] = np.array(
    [
        (38.2946, 51.6963),
        (73.5318, 51.5014),
        (56.0252, 71.7366),
        (41.5493, 92.3655),
        (70.7299, 92.2041),
    ],
    np.float32,
)
"""left eye, right eye, nose, mouth corners in the 112 px crop of the ArcFace family."""

FFHQ: Final[Floats] = np.array(
    [
        (192.98138, 239.94708),
        (318.90277, 240.19360),
        (256.63416, 314.01935),
        (201.26117, 371.41043),
        (313.08905, 371.15118),
    ],
    np.float32,
)
"""The same points in the 512 px crop that face restorers of the GFPGAN kind are trained on (facexlib)."""


def template(size: int) -> Floats:
    """The template for a crop of `size` px: 112 and its multiples as they are, 128 and its multiples with the
    faces of 128 px crops 8 px to the right. Raises `ValueError` for other sizes."""
    if size % 112 == 0:
        return np.asarray(ARCFACE * (size / 112), np.float32)
    if size % 128 == 0:
        return np.asarray((ARCFACE + np.array((8, 0))) * (size / 128), np.float32)
    raise ValueError("a crop is a multiple of 112 or of 128 px")


def similarity(points: Floats, target: Floats) -> Matrix:
    """The similarity that takes `points` nearest to `target`, both float32 (N, 2), N >= 2.

    Raises `ValueError` when the points coincide.
    """
    a, b = points.astype(np.float64), target.astype(np.float64)
    mean_a, mean_b = a.mean(0), b.mean(0)
    a, b = a - mean_a, b - mean_b
    spread = float((a**2).sum())
    if spread < 1e-12:
        raise ValueError("points that coincide have no direction")
    u, strength, v = np.linalg.svd(b.T @ a)
    sign = np.array([1.0, np.sign(np.linalg.det(u @ v)) or 1.0])
    turn = (u * sign) @ v * ((strength * sign).sum() / spread)
    return np.asarray(np.c_[turn, mean_b - turn @ mean_a], np.float64)


def place(matrix: npt.NDArray[Any], points: npt.NDArray[Any]) -> Floats:
    """Points (N, 2) through float (2, 3) `matrix`, float32 (N, 2)."""
    return np.asarray(points @ matrix[:, :2].T + matrix[:, 2], np.float32)


def to_crop(points: Floats, size: int) -> Matrix:
    """Picture to a `size` px crop for these five points; use its inverse to paste back."""
    return similarity(points, template(size))


def cut(rgb: Rgb, matrix: Matrix, size: int) -> Rgb:
    """The crop, uint8 (size, size, 3), as a new array. Beyond the picture its edge goes on: a network that meets
    a black border paints one."""
    crop = cv2.warpAffine(rgb, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8)


def finer(matrix: Matrix, k: int) -> Matrix:
    """Picture to a crop of `k` times the pixels, shifted so that the `k` by `k` fine pixels that stand for a coarse one
    lie around its centre: else each of them alone would see the face too far up and to the left."""
    fine = matrix * k
    fine[:, 2] += (k - 1) / 2
    return fine
