"""Pictures and clips that can be told from anything else in a memory, and the forms in which they may lie there.

A canary shows a face, so that it takes the whole way through the service, and is otherwise noise: PCG64's, from a seed.
Where the seed is 128 bits of the system's generator (`secrets.randbits(128)`), nobody else is to be expected to hold
its bytes, so each run of them that is found anywhere is a remnant. A form is a
layout in which decoders, networks and encoders keep pixels. Forms are made from what our own decoder answers, for that
is what the service works on.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final, Literal

import av
import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image
from pillow_heif import from_pillow
from skimage import data as photographs

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.image import ImageLimits, decode, encode

Forms = dict[str, npt.NDArray[Any]]
Format = Literal["jpeg", "png", "webp", "avif", "heic"]

SIDE: Final = 384  # pixels of a picture
FRAMES: Final = 24
# Levels of noise over the face: little enough to be a face; at 8, six numbers in a row now and then were those of the
# same photograph elsewhere, in a network's weights.
_GRAIN: Final = 24
_FACE: Final = (slice(0, 300), slice(60, 384))  # of the photograph
_SEEN: Final = 640  # pixels of a side, of what detectors look at
_LIMITS: Final = ImageLimits()


@dataclass(frozen=True, slots=True)
class Canary:
    """data: the encoded file. forms: name of a layout -> an array to look for, uint8 or float32."""

    data: bytes
    forms: Forms


def portrait(seed: int, *, face: bool = True, side: int = SIDE) -> Rgb:
    """A square of noise, uint8 (side, side, 3), and unless told otherwise the face of Eileen Collins in it (NASA,
    public domain, from scikit-image). Another ``seed``, other noise; 0 or more, of any width."""
    chance = np.random.default_rng(seed)
    noise = chance.integers(0, 256, (side, side, 3), np.uint8)
    if face:
        person = photographs.astronaut()[_FACE].astype(np.int16)  # type: ignore[no-untyped-call]
        # A detector looks at a large picture made small, and must still see a face.
        scale = max(1, side // _SEEN)
        person = person.repeat(scale, 0).repeat(scale, 1)
        grain = chance.integers(-_GRAIN, _GRAIN + 1, person.shape, np.int16)
        # Black and white keep their grain too.
        noise[: len(person), -person.shape[1] :] = (person.clip(_GRAIN, 255 - _GRAIN) + grain).astype(np.uint8)
    return noise


def picture(pixels: Rgb, format: Format) -> Canary:
    """The pixels, encoded, and every form of what a decoder makes of them."""
    if format == "heic":
        stream = io.BytesIO()
        from_pillow(Image.fromarray(pixels)).save(stream, quality=90)
        data = stream.getvalue()
    else:
        data = bytes(encode(pixels, format, 95))
    return Canary(data, {"file": as_array(data)} | picture_forms(data))


def as_array(data: bytes) -> npt.NDArray[np.uint8]:
    """A file's bytes, to look for."""
    return np.frombuffer(data, np.uint8)


def picture_forms(data: bytes) -> Forms:
    """The forms of an encoded picture's pixels, the picture being one that `decode` takes."""
    forms = pixel_forms(decode(data, _LIMITS))
    if data[:2] == b"\xff\xd8":
        forms["luma"] = simplejpeg.decode_jpeg(data, colorspace="GRAY")
    return forms


def pixel_forms(rgb: Rgb) -> Forms:
    """Layouts of pixels that the libraries of this service use, by name."""
    unit = rgb.astype(np.float32) / np.float32(255)
    signed = (rgb.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)
    return {
        "rgb": rgb,
        "bgr": rgb[..., ::-1],
        "rgbx": cv2.cvtColor(rgb, cv2.COLOR_RGB2RGBA),
        "grey": cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY),
        "planes": rgb.transpose(2, 0, 1),
        "float32 0..1": unit,
        "float32 0..1 planes": unit.transpose(2, 0, 1),
        "float32 -1..1": signed,
        "float32 -1..1 planes": signed.transpose(2, 0, 1),
    }


def clip(seed: int, *, face: bool = True) -> Canary:
    """A second of that portrait as H.264 in MP4, another grain in each frame."""
    still = portrait(seed, face=face)
    chance = np.random.default_rng(seed + 1)
    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("libx264", FRAMES, options={"qp": "14", "preset": "ultrafast"})
        video.width = video.height = SIDE
        video.pix_fmt = "yuv420p"
        for number in range(FRAMES):
            grain = chance.integers(-_GRAIN, _GRAIN + 1, still.shape, np.int16)
            pixels = np.clip(still + grain, 0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FRAMES)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    data = stream.getvalue()
    return Canary(data, {"file": as_array(data)} | clip_forms(data))


def clip_forms(data: bytes) -> Forms:
    """The planes of the first, the middle and the last frame of a clip, and those frames as pixels."""
    forms: Forms = {}
    with av.open(io.BytesIO(data), "r", format="mov") as container:
        frames = list(container.decode(video=0))
        for name, frame in (("first", frames[0]), ("middle", frames[len(frames) // 2]), ("last", frames[-1])):
            planes = frame.to_ndarray(format="yuv420p")
            forms[f"{name} luma"] = planes[: frame.height]
            forms[f"{name} chroma"] = planes[frame.height :]
            forms[f"{name} rgb"] = frame.to_ndarray(format="rgb24")
            forms[f"{name} bgr"] = frame.to_ndarray(format="bgr24")
    return forms
