"""Making a warped face belong where it was put.

All decisions are taken in a small picture, 36 px between the pupils, because they are smooth by nature:
what is skin and what is hair, the mean and spread of the skin's colour, and the membrane, that is the
smooth field which, added to the new face, makes it meet the old skin exactly along the edge (Poisson
blending solves for the same field, at full size and ten times the cost). Only the sum and the mask are
brought back to full size. Where the edge runs over hair, spectacles or a hat on either face, it says
nothing about skin, so the field is not tied to it there, and in the outer band such pixels are left to the
old picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Floats
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.shape import Shape

_UNIT: Final = 36.0
_FEATHER: Final = 0.09
_BAND: Final = 2**14  # pixels that are blended at once: what stays in the processor's cache
_LIGHT: Final = 30.0  # levels by which the light on a face varies along its outline
_SPREAD: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)

Grey = npt.NDArray[np.uint8]
Field = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """float32 (h, w, 4) in the small picture: what to add to R, G, B of the new face, and its opacity 0..1."""

    field: Field

    def apply(self, view: Rgb, face: Rgb) -> None:
        """Lay `face` over `view`, both uint8 (H, W, 3), in place; the field is brought to their size."""
        height, width = view.shape[:2]
        big = cv2.resize(self.field, (width, height), interpolation=cv2.INTER_LINEAR)
        rows = max(1, _BAND // width)
        for top in range(0, height, rows):
            band = slice(top, top + rows)
            old, field = view[band], big[band]
            value = face[band] + field[..., :3]
            np.clip(value, 0, 255, out=value)
            value -= old
            value *= field[..., 3:]
            value += old
            value += 0.5
            # Where nothing is laid on, the rounding above is exact, so the old pixels come out bit for bit.
            old[:] = value.astype(np.uint8)


def layer(new: Rgb, old: Rgb, taker: Shape, roi: Roi, hull: Floats) -> Layer:
    """new: the warped face, old: what it will cover, uint8 (h, w, 3) both; roi: where they lie in
    the taker's picture; hull: outline of what may be covered, float32 (N, 2) px of the picture."""
    shrink = max(1.0, taker.unit / _UNIT)
    size = max(16, round(roi.width / shrink)), max(16, round(roi.height / shrink))
    unit = taker.unit * size[0] / roi.width
    n = np.asarray(cv2.resize(new, size, interpolation=cv2.INTER_AREA), np.uint8)
    o = np.asarray(cv2.resize(old, size, interpolation=cv2.INTER_AREA), np.uint8)
    nl, ol = cv2.cvtColor(n, cv2.COLOR_RGB2LAB), cv2.cvtColor(o, cv2.COLOR_RGB2LAB)
    where = _canonical(taker, roi, size)

    odd_new, odd_old = _odd(nl, where, 30), _odd(ol, where, 38)
    solid = _solid(
        hull,
        roi,
        size,
        unit,
        (_over(where) & (odd_new | odd_old)) | (_beside(where) & odd_new) | (_ears(where) & odd_old),
    )
    toned = _tone(nl, ol, solid, odd_new, odd_old)
    difference = o.astype(np.float32) - toned
    field = toned - n + _membrane(difference, solid, ~(odd_new | odd_old))
    soft = cv2.GaussianBlur(cv2.erode(solid, np.ones((3, 3), np.uint8)), (0, 0), _FEATHER * unit * 0.5)
    alpha = soft.astype(np.float32) / 255
    # The edge of the rectangle itself must be clear, or its border would show as a line.
    alpha[[0, -1]] = 0
    alpha[:, [0, -1]] = 0
    return Layer(np.dstack([field, alpha]).astype(np.float32))


def _canonical(taker: Shape, roi: Roi, size: tuple[int, int]) -> Field:
    """float32 (h, w, 2): the canonical place of each pixel of the small picture."""
    w, h = size
    xs = (np.arange(w, dtype=np.float32) + 0.5) * roi.width / w - 0.5 + roi.x0
    ys = (np.arange(h, dtype=np.float32) + 0.5) * roi.height / h - 0.5 + roi.y0
    grid = np.stack(np.meshgrid(xs, ys), -1).astype(np.float32)
    return taker.canonical(grid.reshape(-1, 2)).reshape(h, w, 2)


def _over(where: Field) -> npt.NDArray[np.bool_]:
    """Over the brows, where a fringe or a hat may come in, on either face."""
    return np.asarray(where[..., 1] < -0.33, np.bool_)


def _beside(where: Field) -> npt.NDArray[np.bool_]:
    """Beside the eyes and cheeks, where the new face may bring hair; the rims that an old one has there go."""
    x, y = np.abs(where[..., 0]), where[..., 1]
    return np.asarray(((x > 0.74) & (y < 0.6)) | (x > 0.86), np.bool_)


def _ears(where: Field) -> npt.NDArray[np.bool_]:
    """Beside the cheeks and below the rims, where old hair hangs over the face and must stay in front."""
    x, y = np.abs(where[..., 0]), where[..., 1]
    return np.asarray((x > 0.74) & (y > 0.35) & (y < 0.8) | (x > 0.90), np.bool_)


def _odd(lab: npt.NDArray[Any], where: Field, dark: float) -> npt.NDArray[np.bool_]:
    """What does not look like the middle of this face's cheeks and nose."""
    x, y = np.abs(where[..., 0]), where[..., 1]
    core = ((x < 0.55) & (y > 0.25) & (y < 0.75)).astype(np.uint8)
    mean, spread = cv2.meanStdDev(lab, mask=core)
    away = np.abs(lab.astype(np.float32) - mean.ravel().astype(np.float32))
    odd = (away[..., 0] > max(dark, 2.2 * spread[0, 0])) | (away[..., 1] > 16) | (away[..., 2] > 20)
    opened = cv2.morphologyEx(odd.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    return np.asarray(opened > 0, np.bool_)


def _solid(hull: Floats, roi: Roi, size: tuple[int, int], unit: float, barred: npt.NDArray[np.bool_]) -> Grey:
    """0 or 255: what the new face covers. One piece, smooth outline."""
    w, h = size
    mask: npt.NDArray[Any] = np.zeros((h, w), np.uint8)
    points = (hull - (roi.x0, roi.y0) + 0.5) * (w / roi.width, h / roi.height) - 0.5
    cv2.fillConvexPoly(mask, np.rint(points * 16).astype(np.int32), 255, cv2.LINE_AA, 4)
    k = max(3, int(_FEATHER * unit) | 1)
    mask = cv2.erode(mask, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (k, k)))
    mask[cv2.dilate(barred.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0] = 0
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count > 2:
        mask = np.where(labels == 1 + stats[1:, cv2.CC_STAT_AREA].argmax(), 255, 0).astype(np.uint8)
    smooth = cv2.GaussianBlur(mask, (0, 0), max(1.0, 0.06 * unit))
    return np.where(smooth > 127, 255, 0).astype(np.uint8)


def _tone(
    new: npt.NDArray[Any],
    old: npt.NDArray[Any],
    solid: Grey,
    odd_new: npt.NDArray[np.bool_],
    odd_old: npt.NDArray[np.bool_],
) -> Field:
    """The new face in the old skin's colours, float32 RGB 0..255: mean and spread in Lab, of skin alone."""
    inside = solid > 0
    a, b = inside & ~odd_new, inside & ~odd_old
    if a.sum() < 20 or b.sum() < 20:
        a = b = inside
    mean_a, spread_a = cv2.meanStdDev(new, mask=a.astype(np.uint8))
    mean_b, spread_b = cv2.meanStdDev(old, mask=b.astype(np.uint8))
    gain = np.clip(spread_b / np.maximum(spread_a, 1e-3), 0.7, 1.35).ravel()
    lab = (new - mean_a.ravel()) * gain + mean_b.ravel()
    lab = (lab * (100 / 255, 1, 1) - (0, 128, 128)).astype(np.float32)
    rgb = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)
    return np.asarray(rgb, np.float32) * 255


def _membrane(difference: Field, solid: Grey, skin: npt.NDArray[np.bool_]) -> Field:
    """The difference along the outline, carried smoothly inwards: near edges count most, far ones a little."""
    grown = cv2.dilate(solid, np.ones((5, 5), np.uint8))
    edge = (grown > 0) & (cv2.erode(solid, np.ones((3, 3), np.uint8)) == 0)
    known = difference[edge & skin]
    if len(known) < 8:
        return np.zeros_like(difference)
    # A spot that differs from its like by much more than light does is an ear ring, a strand, a shadow of a rim.
    away = np.abs(difference - np.median(known, 0)).max(-1)
    ring = ((edge & skin) * np.exp(-((away / _LIGHT) ** 2))).astype(np.float32)
    above = np.zeros_like(difference)
    below = np.full(ring.shape, 1e-6, np.float32)
    for sigma in _SPREAD:
        weight = sigma**-2.2
        below += weight * cv2.GaussianBlur(ring, (0, 0), sigma)
        above += weight * cv2.GaussianBlur(difference * ring[..., None], (0, 0), sigma)
    return np.asarray(above / below[..., None], np.float32)
