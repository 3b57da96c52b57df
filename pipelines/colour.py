"""From the colours of a file to 8-bit sRGB.

A profile is judged by what it does, not by its name: a small lattice of colours is sent through it, and
when sRGB comes out the way it went in, the picture is left alone (which is most pictures, and saves a third
of a second at 12 MP). A profile that is broken, or not for this kind of pixels, is ignored, as viewers do.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from nanoswap.pipelines.engine import Rgb

_ROWS: Final = 256
_SAME: Final = 3  # levels; what rounding and the two common spellings of the sRGB curve differ by
_SPACES: Final = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}


def to_srgb(rgb: Rgb, profile: bytes | None) -> None:
    """Bring RGB pixels from `profile` to sRGB, in place."""
    transform = _transform(profile, "RGB")
    if transform is None:
        return
    for y in range(0, rgb.shape[0], _ROWS):
        with Image.fromarray(rgb[y : y + _ROWS]) as strip:
            ImageCms.applyTransform(strip, transform, inPlace=True)
            rgb[y : y + _ROWS] = np.asarray(strip)


def flatten(image: Image.Image, profile: bytes | None) -> Rgb:
    """A loaded Pillow picture of any mode as a new uint8 (H, W, 3) array in sRGB, laid on white."""
    width, height = image.size
    rgb: Rgb = np.empty((height, width, 3), np.uint8)
    sheer = image.has_transparency_data
    mode = image.mode if image.mode in ("L", "CMYK") and not sheer else "RGB"
    transform = _transform(profile, mode)
    for y in range(0, height, _ROWS):
        with image.crop((0, y, width, min(y + _ROWS, height))) as rows:
            strip = _eight(rows)
            alpha: npt.NDArray[np.uint16] | None = None
            if sheer:
                strip = strip.convert("RGBA")
                alpha = np.asarray(strip.getchannel("A"), np.uint16)[..., None]
            strip = strip.convert(mode)
            if transform is not None:
                strip = ImageCms.applyTransform(strip, transform) or strip
            part = np.asarray(strip.convert("RGB"))
            if alpha is not None:
                part = ((part * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
            rgb[y : y + _ROWS] = part
    return rgb


def _eight(strip: Image.Image) -> Image.Image:
    """Grey of 16 and more bits, which Pillow's own conversion clips instead of scaling."""
    if strip.mode.startswith("I"):
        return Image.fromarray((np.clip(np.asarray(strip), 0, 65535) // 257).astype(np.uint8))
    return strip


def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform | None:
    if not profile:
        return None
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if own.profile.xcolor_space != _SPACES[mode]:
            return None
        transform = ImageCms.buildTransform(own, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "RGB" and _idle(transform):
            return None
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return transform


def _idle(transform: ImageCms.ImageCmsTransform) -> bool:
    steps = np.arange(0, 256, 51, dtype=np.uint8)
    lattice = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(1, -1, 3)
    through = ImageCms.applyTransform(Image.fromarray(lattice), transform)
    return int(np.abs(np.asarray(through, np.int16) - lattice).max()) <= _SAME
