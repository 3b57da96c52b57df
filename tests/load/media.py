"""Pictures and clips that say whose they are: a number in black and white squares that no swap touches.

A result that reached somebody else carries somebody else's number.
"""

from dataclasses import dataclass
from functools import cache
from io import BytesIO

import cv2
import numpy as np
from PIL import Image

from tests.clips import BITS, Actor, Recipe, Rgb, Scene, make, portrait, read, read_number, sway, write_number

#: How many numbers there are before the first comes again.
NUMBERS = 1 << BITS


@dataclass(frozen=True)
class _Owned(Scene):
    """A scene whose frames all carry one number."""

    owner: int = 0

    def frame(self, index: int, seconds: float) -> Rgb:
        frame = super().frame(index, seconds)
        write_number(frame, self.owner)
        return frame


@cache
def source() -> bytes:
    """The portrait of the astronaut, as JPEG."""
    return _jpeg(portrait("astronaut"))


@cache
def picture(number: int, scale: float = 1.0) -> bytes:
    """Grace Hopper's portrait with ``number`` at the top, ``scale`` times 512 x 600 pixels, as JPEG."""
    rgb = cv2.resize(portrait("hopper"), None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    write_number(rgb, number % NUMBERS)
    return _jpeg(rgb)


def clip(number: int, frames: int = 24, width: int = 480, height: int = 272) -> bytes:
    """A clip with one moving face and ``number`` on every frame, as MP4."""
    actor = Actor("hopper", sway(0.4 * width, 0.48 * height, 0.18 * height))
    return make(Recipe(_Owned([actor], width, height, numbered=False, owner=number % NUMBERS), frames=frames))


def owner(result: bytes, media_type: str) -> int:
    """The number on a result. Raises ValueError where a clip's frames disagree."""
    if media_type.startswith("image/"):
        return read_number(np.asarray(Image.open(BytesIO(result)).convert("RGB")))
    found = {read_number(frame) for frame in read(result).frames}
    if len(found) != 1:
        raise ValueError(f"frames of {sorted(found)}")
    return found.pop()


def _jpeg(rgb: Rgb) -> bytes:
    out = BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=90)
    return out.getvalue()
