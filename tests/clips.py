"""Clips made on the spot: known people on known paths, every frame carrying its own number.

The faces are cut from the two public-domain portraits and moved over a textured ground by known similarities, so the
true place of each is known in every frame. A row of black and white squares at the top spells the number of the frame:
whoever decodes a result can tell a repeated, missing or black frame without trusting anybody's time stamps.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from typing import Any

import av
import cv2
import numpy as np
from av.audio.frame import AudioFrame
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from matplotlib import cbook
from PIL import Image
from skimage import data

Rgb = np.ndarray
Path = Callable[[float], "tuple[float, float, float, float] | None"]
"""Seconds to (x, y, unit, degrees): the middle between the pupils, their distance in px, the tilt; None: not there."""

BITS = 12
_CELL = 16
#: Pupils of the two portraits, in their own pixels, measured by hand.
_PUPILS = {"astronaut": ((202.7, 100.0), (247.0, 101.8)), "hopper": ((220.0, 190.0), (305.0, 188.0))}


@cache
def portrait(name: str) -> Rgb:
    """uint8 (H, W, 3): `astronaut` (NASA) or `hopper` (US Navy), both in the public domain."""
    if name == "astronaut":
        return np.ascontiguousarray(data.astronaut())
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return np.ascontiguousarray(np.asarray(Image.open(file).convert("RGB")))


@cache
def _ground(width: int, height: int, seed: int) -> Rgb:
    """A soft texture without anything that looks like a face."""
    rng = np.random.default_rng(seed)
    cell = max(40, height // 6)  # spots as large as heads would do for a gullible detector
    coarse = rng.integers(60, 190, (height // cell + 2, width // cell + 2, 3)).astype(np.float32)
    fine = rng.normal(0, 6, (height, width, 1)).astype(np.float32)
    soft = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(soft * 0.5 + 60 + cv2.GaussianBlur(fine, (0, 0), 1.0)[..., None], 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Actor:
    """A head on a path. Later actors are in front of earlier ones."""

    who: str
    path: Path

    def matrix(self, seconds: float) -> np.ndarray | None:
        """float64 (2, 3), portrait to frame."""
        place = self.path(seconds)
        if place is None:
            return None
        x, y, unit, degrees = place
        left, right = np.array(_PUPILS[self.who])
        scale = unit / np.hypot(*(right - left))
        own = np.degrees(np.arctan2(*(right - left)[::-1]))
        matrix = cv2.getRotationMatrix2D(((left + right) / 2).tolist(), own - degrees, scale)
        matrix[:, 2] += (x, y) - (left + right) / 2
        return matrix

    def pupils(self, seconds: float) -> np.ndarray | None:
        """float64 (2, 2) px of the frame."""
        matrix = self.matrix(seconds)
        return None if matrix is None else cv2.transform(np.array([_PUPILS[self.who]]), matrix)[0]

    def draw(self, frame: Rgb, seconds: float) -> None:
        matrix = self.matrix(seconds)
        if matrix is None:
            return
        height, width = frame.shape[:2]
        picture = portrait(self.who)
        (lx, ly), (rx, ry) = _PUPILS[self.who]
        unit = np.hypot(rx - lx, ry - ly)
        mask = np.zeros(picture.shape[:2], np.uint8)
        middle = (round((lx + rx) / 2), round((ly + ry) / 2 + 0.5 * unit))
        cv2.ellipse(mask, (middle, (2.9 * unit, 3.9 * unit), 0), 255, -1)
        mask = cv2.GaussianBlur(mask, (0, 0), unit / 12)
        warped = cv2.warpAffine(picture, matrix, (width, height), flags=cv2.INTER_AREA)
        alpha = cv2.warpAffine(mask, matrix, (width, height))[..., None].astype(np.float32) / 255
        frame[:] = (frame + alpha * (warped.astype(np.float32) - frame) + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class Scene:
    """What is seen: actors from `cut` to `cut`; each cut also changes the ground."""

    actors: Sequence[Actor]
    width: int = 480
    height: int = 272
    cuts: Sequence[float] = ()
    noise: float = 2.0
    numbered: bool = True
    hand: float = 0.0  # px by which the camera trembles, there and back in two seconds

    def frame(self, index: int, seconds: float) -> Rgb:
        """uint8 (height, width, 3)."""
        take = sum(seconds >= cut for cut in self.cuts)
        frame = self._seen(_ground(self.width, self.height, 7 + take), seconds)
        for actor in self.actors:
            actor.draw(frame, seconds)
        if self.noise:
            noise = np.random.default_rng(index).normal(0, self.noise, frame.shape).astype(np.float32)
            frame = np.clip(frame + noise, 0, 255).astype(np.uint8)
        if self.numbered:
            write_number(frame, index)
        return frame

    def _seen(self, ground: Rgb, seconds: float) -> Rgb:
        if not self.hand:
            return ground.copy()
        turn = np.pi * seconds
        x, y = self.hand * np.sin(turn) + self.hand / 3 * np.sin(5 * turn), self.hand * np.cos(turn)
        shift = np.array([[1, 0, x], [0, 1, y]])
        return cv2.warpAffine(ground, shift, (self.width, self.height), borderMode=cv2.BORDER_REFLECT)


def write_number(frame: Rgb, index: int) -> None:
    for bit in range(BITS):
        frame[:_CELL, bit * _CELL : (bit + 1) * _CELL] = 235 if index >> bit & 1 else 20


def read_number(rgb: Rgb) -> int:
    """The number that a decoded, upright frame carries."""
    cells = [rgb[4 : _CELL - 4, bit * _CELL + 4 : (bit + 1) * _CELL - 4].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, level in enumerate(cells) if level > 127)


def still_path(x: float, y: float, unit: float) -> Path:
    return lambda _: (x, y, unit, 0.0)


def sway(x: float, y: float, unit: float, *, reach: float = 20.0, tilt: float = 4.0) -> Path:
    """A head that moves as heads do: slow, smooth, a little nearer and further."""
    return lambda t: (
        x + reach * np.sin(1.1 * t),
        y + reach * 0.6 * np.cos(0.7 * t),
        unit * (1 + 0.05 * np.sin(0.9 * t)),
        tilt * np.sin(1.3 * t),
    )


def line_path(start: tuple[float, float], end: tuple[float, float], seconds: float, unit: float) -> Path:
    """From one place to the other in so many seconds, at an even pace."""
    a, b = np.array(start), np.array(end)
    return lambda t: (*(a + (b - a) * min(1.0, t / seconds)), unit, 0.0)


@dataclass(frozen=True)
class Recipe:
    """How a scene becomes a file. `times` are presentation times in ticks of `base`; the default is constant rate."""

    scene: Scene
    frames: int = 48
    rate: Fraction = Fraction(24)
    base: Fraction | None = None
    times: Sequence[int] | None = None
    codec: str = "libx264"
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=lambda: {"preset": "ultrafast", "crf": "16", "bf": "0"})
    container: str = "mp4"
    audio: str | None = "aac"
    audio_seconds: float | None = None
    rotation: int = 0
    colour: tuple[int, int, int, int] | None = (1, 1, 1, 1)
    crop: tuple[int, int] | None = None
    movflags: str = ""

    @property
    def tick(self) -> Fraction:
        return self.base or 1 / self.rate

    def pts(self) -> list[int]:
        if self.times is not None:
            return list(self.times)
        step = 1 / self.rate / self.tick
        return [round(step * index) for index in range(self.frames)]

    @property
    def hidden(self) -> int:
        """Frames before time 0, which nobody is shown."""
        return sum(time < 0 for time in self.pts())

    def seconds(self, pts: int) -> float:
        return float(pts * self.tick)


def make(recipe: Recipe) -> bytes:
    """The encoded clip."""
    sink = io.BytesIO()
    options = {"movflags": recipe.movflags} if recipe.movflags else {}
    with av.open(sink, "w", format=recipe.container, options=options) as out:
        scene = recipe.scene
        width, height = recipe.crop or (scene.width, scene.height)
        if recipe.rotation % 180:
            width, height = height, width
        video: Any = out.add_stream(recipe.codec, rate=recipe.rate, options=dict(recipe.options))
        video.width, video.height, video.pix_fmt = width, height, recipe.pixels
        video.codec_context.time_base = recipe.tick
        if recipe.colour is not None:
            context = video.codec_context
            context.color_primaries, context.color_trc, context.colorspace, context.color_range = recipe.colour
        if recipe.rotation:
            video.set_display_rotation(recipe.rotation)
        sound: Any = out.add_stream(recipe.audio, rate=48000, layout="stereo") if recipe.audio else None
        pts, reformatter = recipe.pts(), VideoReformatter()
        length = recipe.audio_seconds or recipe.seconds(pts[-1]) + float(1 / recipe.rate) if pts else 0.3
        if sound is not None:
            for frame in tone(length, sound.format.name, sound.frame_size or 960):
                out.mux(sound.encode(frame))
            out.mux(sound.encode(None))
        for index, time in enumerate(pts):
            rgb = scene.frame(index, recipe.seconds(time))[: (recipe.crop or (0, scene.height))[1]]
            rgb = rgb[:, : (recipe.crop or (scene.width, 0))[0]]
            frame = yuv(np.ascontiguousarray(np.rot90(rgb, -(recipe.rotation // 90) % 4)), recipe, reformatter)
            frame.pts, frame.time_base = time, recipe.tick
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return sink.getvalue()


def yuv(rgb: Rgb, recipe: Recipe, reformatter: VideoReformatter) -> VideoFrame:
    frame = VideoFrame.from_ndarray(rgb, format="rgb24")
    primaries, transfer, matrix, full = recipe.colour or (2, 2, 6, 1)
    # Wide and HDR pictures are really converted, not just called so; the others differ by their matrix alone.
    wide = {"dst_color_trc": transfer, "dst_color_primaries": primaries}
    frame.color_trc, frame.color_primaries = 13, 1
    made = reformatter.reformat(
        frame, format=recipe.pixels, dst_colorspace=matrix, dst_color_range=full, **(wide if primaries == 9 else {})
    )
    if recipe.colour is not None:
        made.color_primaries, made.color_trc, made.colorspace, made.color_range = recipe.colour
    return made


def tone(seconds: float, layout: str, size: int) -> Iterator[AudioFrame]:
    """A stereo sweep, so that no two packets are alike."""
    total = int(seconds * 48000)
    time = np.arange(total) / 48000
    wave = 0.3 * np.sin(2 * np.pi * (300 * time + 40 * time**2))
    both = np.stack([wave, 0.8 * wave])
    for start in range(0, total, size):
        part = both[:, start : start + size]
        if layout[0] == "s":
            kind = np.int16 if layout.startswith("s16") else np.int32
            part = (part * np.iinfo(kind).max).astype(kind)
            part = part if layout.endswith("p") else part.T.reshape(1, -1)
        elif layout.endswith("p"):
            part = part.astype(np.float32)
        else:
            part = part.T.reshape(1, -1).astype(np.float32)
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(part), format=layout, layout="stereo")
        frame.rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        yield frame


@dataclass(frozen=True)
class Seen:
    """What a player would be given: read with PyAV's demuxer and decoders, none of our own code."""

    pts: list[Fraction]
    frames: list[Rgb]
    audio: list[tuple[Fraction, bytes]]
    audio_codec: str | None
    codec: str
    size: tuple[int, int]
    colour: tuple[int, int, int, int]


def read(clip: bytes, *, decode: bool = True) -> Seen:
    """Everything that is in a clip; frames as upright RGB, times in seconds."""
    with av.open(io.BytesIO(bytes(clip))) as container:
        video = container.streams.video[0]
        pts, frames = [], []
        colour = (0, 0, 0, 0)
        for frame in container.decode(video) if decode else ():
            pts.append(Fraction(frame.pts) * frame.time_base)
            rgb = frame.to_ndarray(format="rgb24")
            frames.append(np.ascontiguousarray(np.rot90(rgb, frame.rotation // 90 % 4)))
            tags = (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range)
            colour = tuple(map(int, tags))  # type: ignore[assignment]
        codec, size = video.codec_context.name, (video.width, video.height)
    with av.open(io.BytesIO(bytes(clip))) as container:
        sound = next(iter(container.streams.audio), None)
        audio = [(Fraction(p.pts) * p.time_base, bytes(p)) for p in container.demux(sound) if p.size] if sound else []
        name = sound.codec_context.name if sound else None
    return Seen(pts, frames, audio, name, codec, size, colour)
