"""Encoded pictures in memory, to and from pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from nanoswap.pipelines.engine import Rgb

Buffer = bytes | bytearray | memoryview
InputFormat = Literal["jpeg", "png", "webp", "avif", "heic"]
OutputFormat = Literal["jpeg", "png", "webp", "avif"]

FORMATS: Final[tuple[InputFormat, ...]] = ("jpeg", "png", "webp", "avif", "heic")
MEDIA_TYPES: Final[dict[str, str]] = {name: f"image/{name}" for name in FORMATS}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageLimits:
    """What a picture may measure; all three are judged by the header, before a pixel is decoded."""

    max_bytes: int = 30 * 2**20
    max_pixels: int = 40_000_000
    max_side: int = 12_000


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the header says; width and height are those of the upright picture."""

    format: InputFormat
    width: int
    height: int


def probe(data: Buffer, limits: ImageLimits) -> ImageInfo:
    """What the header says. Raises `Unsupported`, `Undecodable`, `TooLarge`."""
    raise NotImplementedError


def decode(data: Buffer, limits: ImageLimits) -> Rgb:
    """Upright sRGB pixels, a new array (the caller's to wipe). Raises `Unsupported`, `Undecodable`, `TooLarge`."""
    raise NotImplementedError


def encode(rgb: Rgb, format: OutputFormat, quality: int) -> bytearray:
    """The picture without any metadata; quality 1..100, ignored by png."""
    raise NotImplementedError
