"""Encoded pictures in memory, to and from pixels.

`decode` answers with exactly one thing, upright sRGB pixels, whatever came in: orientation applied, colours
brought from the picture's own profile, 16 bits cut to 8, ink turned to light, transparency laid on white
(the result of a swap is a photograph; white is what a viewer shows behind one). Everything else in the file
is dropped, so a result made from pixels alone cannot carry a place or a serial number. The container is
judged first (container.py); then the one decoder that its magic bytes name is used directly: Pillow's
classes without the registry, because `Image.open` consults process-wide settings and process-wide warnings,
and this code runs in threads. JPEG goes through libjpeg-turbo, with Pillow for the rare kinds. Conversions
go in strips of rows: no second full-size picture exists for them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageFile
from PIL.AvifImagePlugin import AvifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile
from pillow_heif.as_plugin import HeifImageFile

from nanoswap.pipelines import colour
from nanoswap.pipelines.container import MAX_TAIL, Buffer, Container, InputFormat, sniff, survey
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.errors import PipelineError, TooLarge, Undecodable, Unsupported

OutputFormat = Literal["jpeg", "png", "webp", "avif"]

FORMATS: Final[tuple[InputFormat, ...]] = ("jpeg", "png", "webp", "avif", "heic")
MEDIA_TYPES: Final[dict[str, str]] = {name: f"image/{name}" for name in FORMATS}

_READERS: Final[dict[InputFormat, type[ImageFile.ImageFile]]] = {
    "jpeg": JpegImageFile,
    "png": PngImageFile,
    "webp": WebPImageFile,
    "avif": AvifImageFile,
    "heic": HeifImageFile,
}
_ORIENTATION: Final = 0x0112


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
    """What the header says; no pixel is decoded. Raises `Unsupported`, `Undecodable`, `TooLarge`."""
    with _opened(data, limits) as (box, image):
        width, height = image.size
        if _orientation(image, box) >= 5:
            width, height = height, width
        return ImageInfo(box.format, width, height)


def decode(data: Buffer, limits: ImageLimits) -> Rgb:
    """Upright sRGB pixels, uint8 (H, W, 3), a new writable array (the caller's to wipe).

    Raises `Unsupported`, `Undecodable`, `TooLarge`.
    """
    with _opened(data, limits) as (box, image):
        turn = _orientation(image, box)
        profile = image.info.get("icc_profile")
        plain = box.format == "jpeg" and image.mode in ("RGB", "L")
        # A grey profile needs the grey values, which only Pillow hands over.
        rgb = _turbo(data, image.size) if plain and not (profile and image.mode == "L") else None
        if rgb is not None:
            colour.to_srgb(rgb, profile)
        else:
            size = image.size
            image.load()
            if image.size != size:
                raise Undecodable
            rgb = colour.flatten(image, profile)
        return _upright(rgb, turn)


def encode(rgb: Rgb, format: OutputFormat, quality: int) -> bytearray:
    """The picture, untagged (which means sRGB) and without any metadata; quality 1..100, ignored by png.

    Speed is chosen over the last percents of size: the person waits for this, and downloads it once.
    """
    if format == "jpeg":
        pixels = np.ascontiguousarray(rgb)
        return bytearray(simplejpeg.encode_jpeg(pixels, quality, "RGB", "420"))
    if format == "png":
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        try:
            _, encoded = cv2.imencode(".png", bgr)
            try:
                return bytearray(encoded.data)
            finally:
                encoded.fill(0)
        finally:
            bgr.fill(0)
    options = {"method": 2} if format == "webp" else {"speed": 8}
    with io.BytesIO() as stream, Image.fromarray(rgb) as image:
        image.save(stream, format.upper(), quality=quality, **options)
        return _taken(stream)


@contextmanager
def _opened(data: Buffer, limits: ImageLimits) -> Iterator[tuple[Container, Image.Image]]:
    """The header, judged. Whatever a decoder throws leaves as one of ours, without the original behind it: a
    foreign exception may hold the bytes it choked on."""
    if len(data) > limits.max_bytes:
        raise TooLarge
    format = sniff(data)
    if format is None:
        raise Unsupported
    box = survey(data, format)
    if box.animated or box.tail > MAX_TAIL:
        raise Undecodable
    if box.size is not None:
        _judge(box.size, limits)
    stream = io.BytesIO(data)
    try:
        with _READERS[format](stream) as image:
            _judge(image.size, limits)
            if box.size not in (None, image.size) or getattr(image, "n_frames", 1) != 1:
                raise Undecodable
            yield box, image
    except (PipelineError, MemoryError):
        raise
    except Exception:
        raise Undecodable from None
    finally:
        _taken(stream, keep=False)


def _judge(size: tuple[int, int], limits: ImageLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise Undecodable
    if max(size) > limits.max_side or width * height > limits.max_pixels:
        raise TooLarge


def _taken(stream: io.BytesIO, keep: bool = True) -> bytearray:
    """What the stream holds, if asked for, and zeros in its place."""
    if stream.closed:
        return bytearray()
    with stream.getbuffer() as view:
        result = bytearray(view) if keep else bytearray()
        np.frombuffer(view, np.uint8)[:] = 0
    return result


def _turbo(data: Buffer, size: tuple[int, int]) -> Rgb | None:
    """libjpeg-turbo, strict; None when it has any complaint, and Pillow is to judge whether that matters."""
    try:
        rgb: Rgb = simplejpeg.decode_jpeg(data, colorspace="RGB", strict=True)
    except ValueError:
        return None
    return rgb if rgb.shape[1::-1] == size else None


def _orientation(image: Image.Image, box: Container) -> int:
    """1..8, from EXIF alone (viewers ignore what XMP says, and faces must be where the person saw them)."""
    raw = box.exif if box.format == "png" else image.info.get("exif")
    if not raw:
        return 1
    exif = Image.Exif()
    try:
        exif.load(raw)
        turn = exif.get(_ORIENTATION, 1)
    except Exception:
        return 1  # a broken EXIF block is no reason to refuse a good picture
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def _upright(rgb: Rgb, turn: int) -> Rgb:
    """Undo EXIF orientation `turn`; the lying copy is wiped."""
    if turn == 1:
        return rgb
    if turn == 2:
        result = cv2.flip(rgb, 1)
    elif turn == 3:
        result = cv2.rotate(rgb, cv2.ROTATE_180)
    elif turn == 4:
        result = cv2.flip(rgb, 0)
    elif turn == 5:
        result = cv2.transpose(rgb)
    elif turn == 6:
        result = cv2.rotate(rgb, cv2.ROTATE_90_CLOCKWISE)
    elif turn == 7:
        # Over the other diagonal: transpose, then half a turn, in place.
        result = cv2.transpose(rgb)
        cv2.rotate(result, cv2.ROTATE_180, result)
    else:
        result = cv2.rotate(rgb, cv2.ROTATE_90_COUNTERCLOCKWISE)
    rgb.fill(0)
    return np.asarray(result, np.uint8)
