"""insightface's own paste-back, to the pixel, at the cost of the face instead of the frame.

Its mask is made in the frame: a white square is warped, thresholded, eroded by a tenth and blurred by a twentieth of
the face's size. All of that is nothing outside the square, so it is computed on the square's rectangle and agrees with
``INSwapper.get(paste_back=True)`` of insightface 2.1 to one level; what that computes and never uses (a mask of
differences) is left out. Use it to compare with it; `paste` has the better edge.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.paste import Matrix, covered
from nanoswap.pipelines.roi import Roi

_MARGIN: Final = 8  # px: more than the blur of the smallest face reaches beyond its erosion
_WHITE: Final = 20


def margin(side: int) -> int:
    """Pixels around a face of `side` px that have to be there for its edge to be what it is in a whole frame."""
    return _MARGIN + side // 20


def paste_exact(frame: Rgb, crop: Rgb, matrix: Matrix) -> Roi:
    """Blend uint8 (S, S, 3) `crop` into `frame` in place; arguments and result as of `paste`."""
    height, width = frame.shape[:2]
    close = covered(matrix, (crop.shape[1], crop.shape[0]), (width, height))
    if close.empty:
        return close
    more = margin(max(close.width, close.height))
    roi = Roi(close.x0 - more, close.y0 - more, close.x1 + more, close.y1 + more).clip(width, height)
    back = cv2.invertAffineTransform(np.asarray(matrix, np.float64))
    back[:, 2] -= roi.x0, roi.y0
    size = roi.width, roi.height
    white = np.full(crop.shape[:2], 255, np.float32)
    mask = np.where(cv2.warpAffine(white, back, size, borderValue=0.0) > _WHITE, 255, 0).astype(np.float32)
    rows, columns = np.where(mask == 255)
    if not len(rows):
        return Roi(0, 0, 0, 0)
    side = int(np.sqrt(float(np.ptp(rows)) * float(np.ptp(columns))))
    mask = np.asarray(cv2.erode(mask, np.ones((max(side // 10, 10),) * 2, np.uint8)), np.float32)
    blur = 2 * max(side // 20, 5) + 1
    mask = np.asarray(cv2.GaussianBlur(mask, (blur, blur), 0), np.float32)[..., None] / np.float32(255)
    face = np.asarray(cv2.warpAffine(crop, back, size, borderValue=0.0), np.float32)
    view = frame[roi.slices]
    # Cut off, not rounded, as they do.
    view[:] = (mask * face + (1 - mask) * view.astype(np.float32)).astype(np.uint8)
    face.fill(0)
    return roi
