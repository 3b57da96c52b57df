"""Pictures and clips that were good, changed at random, through the real decoders: a good result or one of our errors.

Hypothesis chooses the file and the changes: bits, runs, cuts, doubled and moved parts, and lengths and counts that are
larger than anything. What fails is made smaller by nobody; the seed is printed and gives the same inputs again.
"""

import io
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pillow_heif
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip import ClipLimits, probe_clip
from nanoswap.pipelines.errors import PipelineError
from nanoswap.pipelines.frame import FramePool
from nanoswap.pipelines.image import ImageLimits, decode
from nanoswap.pipelines.reader import Reader
from nanoswap.pipelines.sound import Sound
from tests.clips import make
from tests.corpus import CORPUS, SCENE
from tests.fuzz.tally import Tally

LIMITS = ImageLimits(max_pixels=4_000_000)
CLIP_LIMITS = ClipLimits(max_frames=60)
WORDS = [bytes(4), b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\0\x01", b"\0\0\0\x08", b"\x80\0\0\0", b"\0\x10\0\0"]


@cache
def corpus() -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    """Name to (a good file, what works on it)."""
    pillow_heif.register_heif_opener()
    picture = Image.fromarray(np.ascontiguousarray(SCENE.frame(0, 0.0)[:96, 100:260]))
    found: dict[str, tuple[bytes, Callable[[bytes], object]]] = {}
    for name, form, options in (
        ("jpeg", "JPEG", {}), ("progressive", "JPEG", {"progressive": True}), ("png", "PNG", {}),
        ("webp", "WEBP", {}), ("lossless", "WEBP", {"lossless": True}), ("avif", "AVIF", {}), ("heic", "HEIF", {}),
    ):  # fmt: skip
        sink = io.BytesIO()
        picture.save(sink, form, **options)
        found[name] = (sink.getvalue(), _picture)
    for name in ("constant rate", "fragmented", "pcm", "hevc", "edit list"):
        found[name] = (make(replace(CORPUS[name], frames=6, times=(CORPUS[name].times or [])[:6] or None)), _clip)
    for name in ("vp8, matroska", "vp9, opus, webm"):
        found[name] = (make(replace(CORPUS[name], frames=6, times=(CORPUS[name].times or [])[:6])), _clip)
    return found


def _picture(data: bytes) -> None:
    rgb = decode(bytearray(data), LIMITS)
    assert rgb.dtype == np.uint8
    assert rgb.shape[0] * rgb.shape[1] <= LIMITS.max_pixels


def _clip(data: bytes) -> None:
    cancel = CancelToken(30.0)
    probe_clip(data, CLIP_LIMITS, cancel=cancel)
    reader = Reader(data, cancel)
    pool = FramePool(reader.shape.width, reader.shape.height, 2)
    for count, frame in enumerate(reader.frames(pool)):
        pool.give(frame)
        if count > 100:
            break
    sound = Sound.of(data, 0.0, None, cancel)
    if sound is not None:
        sound.close()


def changed(good: bytes, number: int, changes: int) -> bytes:
    """The file after so many changes drawn with ``number``."""
    draw, data = random.Random(number), bytearray(good)
    for _ in range(changes):
        # Headers are where the harm is.
        at = draw.randrange(min(len(data), 600) if draw.random() < 0.6 else len(data))
        match draw.randrange(7):
            case 0:
                data[at] ^= 1 << draw.randrange(8)
            case 1:
                data[at : at + 4] = draw.choice(WORDS)
            case 2:
                del data[at : at + draw.randrange(1, 64)]
            case 3:
                data[at:at] = data[at : at + draw.randrange(1, 256)]
            case 4:
                data[at : at + 16] = draw.randbytes(16)
            case 5:
                other = draw.randrange(len(data))
                data[at : at + 32], data[other : other + 32] = data[other : other + 32], data[at : at + 32]
            case _:
                data = data[: max(32, draw.randrange(len(data)))] if draw.random() < 0.2 else data
        if len(data) < 32:
            data = bytearray(good)
    return bytes(data)


def media(budget: Tally, number: int) -> None:
    """Draw until the budget is spent. ``number`` seeds the draw."""
    files = corpus()
    while not budget.spent:
        number += 1

        @seed(number)
        @settings(
            max_examples=50, deadline=None, database=None, phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(
            name=st.sampled_from(sorted(files)), number=st.integers(0, 2**32), changes=st.sampled_from([1, 1, 2, 4, 16])
        )
        def one(name: str, number: int, changes: int) -> None:
            if budget.spent:
                return
            good, work = files[name]
            with budget.execution(f"{name}, number {number}, {changes} changes"):
                try:
                    work(changed(good, number, changes))
                except PipelineError:
                    return

        one()
