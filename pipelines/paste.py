"""Putting an aligned crop back into its frame, at the cost of the face and not of the frame.

The crop's colours and its feathered mask travel as one four-channel picture: one warp of just the rectangle that the
crop covers in the frame, and one blend in place. The mask is zero along the crop's edge, so that the warp has nothing
to blend with outside. (The usual way, ``INSwapper.get`` of insightface, warps three full frames, erodes and blurs a
full-frame mask, and blends the full frame in float32.)
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.roi import Roi

Mask = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


def feather(size: int, margin: float = 0.1) -> Mask:
    """A mask for square crops: uint8 (size, size), 255 inside, 0 at the edge, ``margin`` of the size between."""
    width = max(1, round(size * margin))
    mask = np.zeros((size, size), np.uint8)
    mask[width : size - width, width : size - width] = 255
    kernel = 2 * (width // 2) + 1
    soft = np.asarray(cv2.GaussianBlur(mask, (kernel, kernel), 0), np.uint8)
    soft[[0, -1], :] = 0
    soft[:, [0, -1]] = 0
    return soft


def covered(matrix: Matrix, size: tuple[int, int], frame: tuple[int, int]) -> Roi:
    """The rectangle of a ``frame`` (width, height) that a crop of ``size`` (width, height) covers.

    ``matrix``: float (2, 3), frame pixels to crop pixels.
    """
    back = cv2.invertAffineTransform(np.asarray(matrix, np.float64))
    w, h = size
    corners = cv2.transform(np.array([[[0, 0], [w, 0], [0, h], [w, h]]], np.float64), back)[0]
    return Roi.around(corners).clip(*frame)


def paste(frame: Rgb, crop: Rgb, mask: Mask, matrix: Matrix) -> Roi:
    """Blend ``crop`` into ``frame`` in place and return the rectangle that was touched (it may be empty).

    ``crop`` uint8 (h, w, 3); ``mask`` uint8 (h, w), 0 keeps the frame and 255 takes the crop; ``matrix`` float
    (2, 3) maps frame pixels to crop pixels, as it was used to cut the crop out. A singular matrix touches nothing.
    """
    if abs(float(np.linalg.det(np.asarray(matrix, np.float64)[:, :2]))) < 1e-12:
        return Roi(0, 0, 0, 0)
    height, width = frame.shape[:2]
    roi = covered(matrix, (crop.shape[1], crop.shape[0]), (width, height))
    if roi.empty:
        return roi
    # Frame coordinates of the rectangle start at its corner.
    local = np.asarray(matrix, np.float64).copy()
    local[:, 2] += local[:, :2] @ (roi.x0, roi.y0)
    both = cv2.warpAffine(
        cv2.merge([crop, mask]),
        local,
        (roi.width, roi.height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(0, 0, 0, 0),
    )
    view = frame[roi.slices]
    weight = both[..., 3].astype(np.float32) * np.float32(1 / 255)
    view[:] = cv2.blendLinear(np.ascontiguousarray(both[..., :3]), np.ascontiguousarray(view), weight, 1 - weight)
    return roi
