"""What the video benchmarks work on: clips of known content, a job that swaps one, and an engine that does nothing.

The clips: NASA's astronaut portrait, 120 px between the pupils at 720p and 180 px at 1080p, swaying over a still,
textured ground, with sensor noise that makes H.264 of an ordinary rate of it; 30 frames a second, AAC. Two seconds
are drawn and encoded; longer clips repeat their packets.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import Any

import av
import numpy as np
from PIL import Image

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip import ClipLimits
from nanoswap.pipelines.engine import Engine, Pair, Request, Rgb, Source
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.image import ImageLimits
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.swap_clip import ClipOptions, ClipSwap, open_swap
from tests import clips
from tests.clips import Actor, Recipe, Scene, make, portrait

FPS = 30
SECONDS = 2
LIMITS = ClipLimits(max_bytes=2**30, max_frames=10**6, max_seconds=10**5)


@dataclass(frozen=True)
class Size:
    name: str
    width: int
    height: int
    unit: float

    def path(self) -> clips.Path:
        """A swaying head that is back at its start after SECONDS."""

        def at(t: float) -> tuple[float, float, float, float]:
            turn = 2 * np.pi * t / SECONDS
            x, y = self.width / 2 + self.unit / 6 * np.sin(turn), self.height * 0.42 + self.unit / 9 * np.cos(turn)
            return x, y, self.unit * (1 + 0.05 * np.sin(turn)), 4 * np.sin(turn)

        return at


HD = Size("720p", 1280, 720, 120)
FULL_HD = Size("1080p", 1920, 1080, 180)


@cache
def two_seconds(size: Size, hand: bool = False) -> bytes:
    tremble = size.height / 60 if hand else 0.0
    scene = Scene([Actor("astronaut", size.path())], size.width, size.height, noise=3, hand=tremble)
    options = {"preset": "veryfast", "crf": "20", "bf": "0"}
    return make(Recipe(scene, frames=FPS * SECONDS, rate=Fraction(FPS), options=options))


@cache
def clip(size: Size, seconds: int, hand: bool = False) -> bytes:
    """The packets of `two_seconds`, again and again."""
    sink = io.BytesIO()
    due: dict[int, int] = {}
    with av.open(sink, "w", format="mp4") as out:
        streams: dict[int, Any] = {}
        for turn in range(seconds // SECONDS):
            with av.open(io.BytesIO(two_seconds(size, hand))) as once:
                for stream in () if streams else once.streams:
                    streams[stream.index] = out.add_stream_from_template(stream, opaque=True)
                for packet in once.demux():
                    if packet.dts is None:
                        continue
                    at = packet.stream.index
                    later = int(turn * SECONDS / packet.time_base)
                    # Packets of sound don't fill two seconds exactly, and times must rise.
                    packet.dts = packet.pts = max(packet.dts + later, due.get(at, packet.dts))
                    due[at] = packet.dts + (packet.duration or 1)
                    packet.stream = streams[at]
                    out.mux(packet)
    return sink.getvalue()


def source() -> bytes:
    """Admiral Hopper's portrait (US Navy), JPEG."""
    out = io.BytesIO()
    Image.fromarray(portrait("hopper")).save(out, "JPEG", quality=92)
    return out.getvalue()


class Nothing:
    """Learned of nobody."""

    def wipe(self) -> None:
        pass


class Idle:
    """An `Engine` that says that there is one face, always in the same place, and paints nothing over it."""

    name = "idle"
    batch = 1

    def __init__(self, size: Size) -> None:
        # Pupils, nose and mouth corners, and the box around them, in units of the distance between the pupils.
        points = np.array([(-0.5, 0), (0.5, 0), (0, 0.72), (-0.4, 1.08), (0.4, 1.08), (-1.05, -0.75), (1.05, 1.73)])
        self._points, self._width = points * size.unit + (size.width / 2, size.height * 0.42), size.width

    def detect(self, rgb: Rgb) -> tuple[Face, ...]:
        height, width = rgb.shape[:2]
        points = (self._points * width / self._width).astype(np.float32)
        return (Face(box=points[5:].ravel(), points=points[:5], score=9.0, frame=(width, height)),)

    def prepare(self, rgb: Rgb, face: Face) -> Source:
        return Nothing()

    def recognise(self, rgb: Rgb, faces: Sequence[Face]) -> tuple[Face, ...]:
        return tuple(faces)

    def rinse(self) -> None:
        return None

    def footprint(self, face: Face) -> Roi:
        x0, y0, x1, y1 = (int(value) for value in face.box)
        return Roi(x0, y0, x1, y1)

    def swap(self, pairs: Sequence[Pair], source: Source, request: Request) -> list[Roi]:
        return [Roi(0, 0, 0, 0) for _ in pairs]


def opened(
    engine: Engine, data: bytes, encoder: Encoder, report: Callable[[str, int, int], None] = lambda *_: None
) -> ClipSwap:
    return open_swap(
        engine, source(), data, ClipOptions(faces="largest"), LIMITS, ImageLimits(), encoder,
        gate=None, cancel=CancelToken(), report=report,
    )  # fmt: skip


def swapped(engine: Engine, data: bytes, encoder: Encoder) -> int:
    """A whole job; the bytes of the result, which nobody keeps."""
    job = opened(engine, data, encoder)
    try:
        return sum(len(part) for part in job)
    finally:
        job.close()
