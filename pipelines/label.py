"""The visible label: "AI-generated", written into the pixels of a result, in its lower right corner.

A plate of near black with near white letters, opaque, so that it can be read on any ground (contrast above 14 to 1;
WCAG 2.2 asks for 4.5). Its letters are a share of the picture's shorter side and never smaller than can be read; where
the words don't fit the width, it says "AI". It is drawn once for a size: in a clip, each frame then costs the copying
of a few thousand samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.frame import Frame, Plane
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.yuv import Colour

WORDS: Final = ("AI-generated", "AI")
_DARK, _LIGHT = 24, 240
_SHARE: Final = 0.034  # of the shorter side: the size of the font
_LEAST: Final = 11  # pixels, below which letters aren't read
_FULL: Final = 2  # H.273: full range


@dataclass(frozen=True, slots=True, eq=False)
class Label:
    """grey: uint8 (h, w), 0..255, the plate; at: where it lies in the picture. Both even, as chroma samples are."""

    grey: Plane
    at: Roi

    @staticmethod
    def of(width: int, height: int) -> Label:
        """For a picture of `width` by `height`; empty where not even "AI" fits."""
        size = max(_LEAST, round(_SHARE * min(width, height)))
        gap = size // 2 & ~1
        for words in WORDS:
            plate = _plate(words, size)
            h, w = plate.shape
            if w + gap <= width and h + gap <= height:
                x1, y1 = (width - gap) & ~1, (height - gap) & ~1
                return Label(plate, Roi(x1 - w, y1 - h, x1, y1))
        return Label(np.empty((0, 0), np.uint8), Roi(0, 0, 0, 0))

    def draw(self, rgb: Rgb) -> None:
        """Onto a picture of this size, in place."""
        rgb[self.at.slices] = self.grey[..., None]

    def on_frames(self, colour: Colour) -> FrameLabel:
        """The same for the frames of a clip, in its range of luma. (Grey has no colour, so no matrix.)"""
        full = colour.range == _FULL
        luma = self.grey if full else np.rint(16 + self.grey * (219 / 255)).astype(np.uint8)
        return FrameLabel(luma, self.at)


@dataclass(frozen=True, slots=True, eq=False)
class FrameLabel:
    """luma: uint8 (h, w), as it is written; at: as in `Label`."""

    luma: Plane
    at: Roi

    def draw(self, frame: Frame) -> None:
        """Onto a frame, in place."""
        half = slice(self.at.y0 // 2, self.at.y1 // 2), slice(self.at.x0 // 2, self.at.x1 // 2)
        frame.y[self.at.slices] = self.luma
        frame.u[half] = frame.v[half] = 128


def _plate(words: str, size: int) -> Plane:
    font = ImageFont.load_default(size)
    x0, y0, x1, y1 = (int(side) for side in font.getbbox(words))
    pad = max(3, size // 3)
    width, height = x1 - x0 + 2 * pad + 1 & ~1, y1 - y0 + 2 * pad + 1 & ~1
    image = Image.new("L", (width, height), _DARK)
    ImageDraw.Draw(image).text((pad - x0, pad - y0), words, _LIGHT, font)
    return np.asarray(image).copy()
