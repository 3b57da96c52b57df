"""A smooth map from one face's shape to another's.

A thin-plate spline through fourteen anchors bends least between them. It is evaluated on a grid of every
sixteenth pixel, which is far finer than it bends, and interpolated in between.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.face import Floats
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.shape import LIP_B, LIP_T, MOUTH, MOUTH_L, MOUTH_R, Shape

_STEP: Final = 16
_GIVE: Final = 0.02  # how far the spline may miss an anchor for the sake of smoothness


class Spline:
    """Thin-plate spline that takes `source` points to `target` points, both float32 (N, 2)."""

    __slots__ = ("_source", "_weights")

    def __init__(self, source: Floats, target: Floats) -> None:
        n = len(source)
        system = np.zeros((n + 3, n + 3))
        system[:n, :n] = _kernel(source, source) + _GIVE * np.eye(n)
        system[:n, n] = 1
        system[:n, n + 1 :] = source
        system[n:, :n] = system[:n, n:].T
        wanted = np.zeros((n + 3, 2))
        wanted[:n] = target
        self._source, self._weights = source, np.linalg.solve(system, wanted)

    def __call__(self, points: Floats) -> Floats:
        n = len(self._source)
        bent = _kernel(points, self._source) @ self._weights[:n]
        return np.asarray(bent + self._weights[n] + points @ self._weights[n + 1 :], np.float32)


def _kernel(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    square = ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(2)
    return np.asarray(0.5 * square * np.log(square + 1e-12), np.float64)


def lookup(giver: Shape, taker: Shape, roi: Roi) -> npt.NDArray[np.float32]:
    """float32 (h, w, 2): for each pixel of `roi` in the taker's picture, where to look in the giver's.

    The mouth opens as the giver's does, a little less: teeth cannot be invented, and lips that were pressed together
    must not be torn apart to fit a smile.
    """
    to, frm = _even(taker.anchors), _even(giver.anchors)
    for lip in (LIP_T, LIP_B):
        to[lip, 1] = to[MOUTH, 1] + 0.6 * (frm[lip, 1] - frm[MOUTH, 1]) + 0.4 * (to[lip, 1] - to[MOUTH, 1])
    xs, ys = np.arange(0, roi.width + _STEP, _STEP), np.arange(0, roi.height + _STEP, _STEP)
    grid = np.stack(np.meshgrid(xs + roi.x0, ys + roi.y0), -1).reshape(-1, 2).astype(np.float32)
    seen = giver.image(Spline(to, frm)(taker.canonical(grid))).reshape(len(ys), len(xs), 2)
    matrix = np.array([[_STEP, 0, 0], [0, _STEP, 0]], np.float64)
    fine = cv2.warpAffine(
        seen, matrix, (roi.width, roi.height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(fine, np.float32)


def _even(anchors: Floats) -> Floats:
    """Both mouth corners equally far from its middle: a half smile of the measurement is not one of the face."""
    result = anchors.copy()
    middle = (anchors[MOUTH_L] + anchors[MOUTH_R]) / 2
    half = float(np.clip((anchors[MOUTH_R, 0] - anchors[MOUTH_L, 0]) / 2, 0.36, 0.52))
    result[MOUTH_L, 0], result[MOUTH_R, 0] = middle[0] - half, middle[0] + half
    return result
