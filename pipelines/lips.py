"""Mouth and nose of a face whose pupils are known.

Lips are redder than the cheeks, the line between them is a dark valley, teeth are bright; nostrils are a
dark band a little above. The widths of an average face are the prior, and a reading that strays from it is
pulled back: a wrong mouth is worse than an average one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

K: Final = 64  # px between the pupils in the crop
ORIGIN: Final = (1.3 * K, 0.9 * K)
SIZE: Final = (int(2.6 * K), int(3.0 * K))

_LEFT, _TOP, _BOTTOM = -0.62, 0.78, 1.48  # where a mouth can be, canonical units


@dataclass(frozen=True, slots=True)
class Mouth:
    """Canonical units. x, y: middle of the line between the lips; half: half its width; top, bottom: the lips'
    outer edges; nose_x, nose_y: under the tip."""

    x: float
    y: float
    half: float
    top: float
    bottom: float
    nose_x: float
    nose_y: float


def read_mouth(crop: npt.NDArray[np.uint8]) -> Mouth:
    """crop: uint8 (SIZE[1], SIZE[0], 3) RGB in the canonical frame at K px a unit, origin at ORIGIN."""
    lab = cv2.cvtColor(cv2.GaussianBlur(crop, (5, 5), 1), cv2.COLOR_RGB2LAB).astype(np.float32)
    light, red = lab[..., 0], lab[..., 1]
    cheek = _part(-0.8, 0.8, 0.35, 0.75)
    middle, spread = float(np.median(red[cheek])), float(red[cheek].std()) + 2
    area = _part(_LEFT, -_LEFT, _TOP, _BOTTOM)
    redness = np.clip((red[area] - middle) / spread, 0, 3)
    l = light[area]  # noqa: E741
    dark = np.clip((cv2.GaussianBlur(l, (0, 0), K * 0.12) - l) / 20, 0, 2)
    valley = np.clip(cv2.Sobel(cv2.GaussianBlur(l, (0, 0), 2), cv2.CV_32F, 0, 2, ksize=5) / 40, 0, 3)
    h, w = redness.shape
    ys, xs = np.arange(h) / K + _TOP, np.arange(w) / K + _LEFT
    prior = np.exp(-((xs[None] / 0.42) ** 2) - ((ys[:, None] - 1.08) / 0.20) ** 2)

    rows = _smooth(((redness + 0.7 * dark + 0.5 * valley) * prior).sum(1), 7)
    strong = rows > rows.max() * 0.6
    y = float((rows * ys)[strong].sum() / rows[strong].sum()) if rows.max() > 0 else 1.08

    bright = np.clip((l - np.median(light[cheek])) / 25, 0, 1.5)
    band = np.abs(ys - y)[:, None] < 0.11
    left, right = _corners(_smooth(((redness + 0.6 * dark + 0.5 * bright) * band).sum(0), 5))
    x = float(np.clip((left + right) / 2, -0.12, 0.12))
    half = float(np.clip((right - left) / 2, 0.30, 0.56))

    across = slice(int((-_LEFT - 0.15) * K), int((-_LEFT + 0.15) * K))
    lips = _smooth((redness + 0.4 * dark + 0.3 * bright)[:, across].mean(1), 5)
    floor = float(lips[np.abs(ys - y) < 0.08].mean()) * 0.45
    at = int(np.clip((y - _TOP) * K, 0, h - 1))
    above, below = np.flatnonzero(lips[: at + 1] <= floor), np.flatnonzero(lips[at:] <= floor)
    top = ys[above[-1]] if len(above) else ys[0]
    bottom = ys[at + below[0]] if len(below) else ys[-1]

    nose_x, nose_y = _nostrils(light, y)
    return Mouth(
        x, y, half,
        float(np.clip(top, y - 0.22, y - 0.06)), float(np.clip(bottom, y + 0.08, y + 0.28)), nose_x, nose_y,
    )  # fmt: skip


def _corners(profile: npt.NDArray[Any]) -> tuple[float, float]:
    """Walk outwards from the middle until the evidence ends; canonical x of both corners."""
    centre = int(-_LEFT * K)
    inner = profile[centre - K // 4 : centre + K // 4]
    base = float(np.percentile(profile, 15))
    level = base + (float(np.percentile(inner, 60)) - base) * 0.40

    def walk(step: int) -> int:
        at, last, gap = centre, centre, 0
        while 0 <= at < len(profile) and gap < 6:
            last, gap = (at, 0) if profile[at] > level else (last, gap + 1)
            at += step
        return last

    left, right = walk(-1) / K + _LEFT, walk(1) / K + _LEFT
    if abs(right + left) > 0.14:  # one side failed: the longer one is right, within reason
        half = min(max(-left, right), 0.46)
        left, right = -half, half
    return left, right


def _nostrils(light: npt.NDArray[Any], mouth: float) -> tuple[float, float]:
    area = _part(-0.30, 0.30, 0.48, min(0.95, mouth - 0.18))
    l = light[area]  # noqa: E741
    dark = np.clip(cv2.GaussianBlur(l, (0, 0), K * 0.10) - l, 0, 40)
    ys, xs = np.arange(l.shape[0]) / K + 0.48, np.arange(l.shape[1]) / K - 0.30
    rows = (dark.sum(1) * np.exp(-(((ys - 0.62 * mouth) / 0.12) ** 2))) ** 2
    columns = dark.sum(0)
    y = float((rows * ys).sum() / rows.sum()) if rows.sum() > 1e-6 else 0.62 * mouth
    x = float((columns * xs).sum() / columns.sum()) if columns.sum() > 1e-6 else 0.0
    return float(np.clip(x, -0.1, 0.1)), y


def _part(x0: float, x1: float, y0: float, y1: float) -> tuple[slice, slice]:
    ox, oy = ORIGIN
    return slice(int(oy + y0 * K), int(oy + y1 * K)), slice(int(ox + x0 * K), int(ox + x1 * K))


def _smooth(values: npt.NDArray[Any], width: int) -> npt.NDArray[Any]:
    return np.convolve(values, np.ones(width) / width, "same")
