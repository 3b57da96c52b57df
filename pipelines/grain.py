"""Giving an enlarged face the bite of the picture it lands in.

A source smaller than the target comes out soft and clean, and a soft clean face among sharp pores and film
grain is seen at once. It is sharpened by as much as it was enlarged, to a limit, and what grain the
target's skin still has more of is added as monochrome noise. The target's own detail is never copied: its
wrinkles would come along. The noise is the same for the same size, so that a result can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from nanoswap.pipelines.engine import Rgb

_MOST_SHARP: Final = 0.7
_MOST_GRAIN: Final = 5.0  # levels


@dataclass(frozen=True, slots=True)
class Texture:
    """Pixels between the pupils, in the target and in the source."""

    target: float
    source: float

    @property
    def enlarged(self) -> float:
        return self.target / self.source


def refine(face: Rgb, view: Rgb, texture: Texture) -> None:
    """Sharpen and grain `face` (warped, uint8 (h, w, 3)) to be like `view`, in place."""
    if texture.enlarged <= 1.15:
        return
    amount = min(_MOST_SHARP, 0.5 * (texture.enlarged - 1))
    soft = cv2.GaussianBlur(face, (0, 0), 0.6 * texture.enlarged)
    cv2.addWeighted(face, 1 + amount, soft, -amount, 0, face)
    missing = max(0.0, grain(view) ** 2 - grain(face) ** 2) ** 0.5
    if missing > 0.3:
        noise = np.random.default_rng(face.shape[0]).standard_normal(face.shape[:2], np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), 0.6) * (min(missing, _MOST_GRAIN) * 2.0)
        face[:] = np.clip(face + noise[..., None] + 0.5, 0, 255).astype(np.uint8)


def grain(pixels: Rgb) -> float:
    """Standard deviation of the noise in the smooth parts, levels (Immerkaer's mask, by the median so that edges
    do not count)."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    # Every third pixel each way tells as much about noise, at a ninth of the median's cost.
    answer = cv2.filter2D(grey, -1, mask)[1:-1:3, 1:-1:3]
    return float(np.median(np.abs(answer)) / 0.6745 / 6) if answer.size else 0.0
