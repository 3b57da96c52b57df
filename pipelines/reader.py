"""Frames of a clip, in order of showing, one decode pass, as upright I420.

Whatever the codec hands over, what comes out is one kind of thing: eight bits, 4:2:0, progressive, even
sides, one size from first to last, and turned as the file asks. Times are the file's own and strictly
rising. HDR and wide gamut become BT.709; everything else keeps its colours and their tags.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any, Final, cast

import av
import cv2
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import SideData, Type
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc, VideoReformatter

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip import ROUNDING, opened, ticks, zero
from nanoswap.pipelines.container import Buffer
from nanoswap.pipelines.errors import TooLarge, Undecodable
from nanoswap.pipelines.frame import Frame, FramePool, Plane
from nanoswap.pipelines.yuv import Colour

_WIDE: Final = {9, 11, 12}  # BT.2020 and the P3 primaries
_HDR: Final = {16, 18}  # PQ and HLG
_BT709: Final = Colour(1, 1, 1, 1)
_EVEN_TURNS: Final = {0: None, 90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


@dataclass(frozen=True, slots=True)
class Turn:
    """How the stored picture becomes the upright one: first mirrored left to right, then turned clockwise."""

    degrees: int = 0
    mirror: bool = False


@dataclass(frozen=True, slots=True)
class Shape:
    """Of the frames that will come. width, height: pixels, even, upright; base: seconds per tick; aspect: of a
    pixel, upright; pts of the frames count from `start` ticks of the file."""

    width: int
    height: int
    base: Fraction
    aspect: Fraction
    colour: Colour


class Reader:
    """One pass over a clip. Learn `shape`, make a pool for it, then draw the frames once.

    start, end   seconds of the clip's own time; frames with start <= time < end, time 0 is `start`.
    reformat     to be shared by passes one after the other: the tables for HDR take it a second to make.
    """

    def __init__(
        self,
        data: Buffer,
        cancel: CancelToken,
        *,
        start: float = 0.0,
        end: float | None = None,
        reformat: VideoReformatter | None = None,
    ) -> None:
        self._data, self._cancel, self._start, self._end = data, cancel, start, end
        self._reformat = reformat or VideoReformatter()
        self._decoded = self._pictures()
        first = next(self._decoded, None)
        if first is None:
            raise Undecodable("The clip has no frames there.")
        self._drawn = chain([first], self._decoded)
        self._turn = turn_of(first)
        self._size = first.width, first.height
        self._wide = int(first.color_primaries) in _WIDE or int(first.color_trc) in _HDR
        said = Colour(int(first.color_primaries), int(first.color_trc), int(first.colorspace), int(first.color_range))
        if first.format.name.startswith("yuvj"):
            said = Colour(said.primaries, said.transfer, said.matrix, 2)
        if first.format.is_rgb:
            said = _BT709
        width, height = (side + (side & 1) for side in self._size)
        aspect = self._aspect
        if self._turn.degrees % 180:
            width, height, aspect = height, width, 1 / aspect
        self.shape = Shape(width, height, self._base, aspect, _BT709 if self._wide else said)

    def frames(self, pool: FramePool) -> Generator[Frame, None, None]:
        """Each is the taker's, to be given back to the pool. Raises `Undecodable`, `TooLarge`, `Cancelled`."""
        first, low = zero(self._start, self._base), ticks(self._start, self._base)
        last: int | None = None
        with closing(self._decoded):
            for picture in self._drawn:
                self._cancel.check()
                if self._start > 0 and picture.pts is not None and picture.pts < low:
                    continue  # decoded only to get there
                pts = int(picture.pts or 0) - first
                if self._start > 0:
                    pts = max(0, pts)
                last = pts if last is None or pts > last else last + 1
                frame = pool.take(self._cancel)
                self._fill(frame, self._plain(picture))
                frame.pts = last
                yield frame

    def still(self, pool: FramePool) -> Frame:
        """In place of `frames`: the one that a player shows at `start`, the last that has begun by then, else the
        first of all."""
        shown = next(self._drawn)
        with closing(self._decoded):
            for picture in self._drawn:
                self._cancel.check()
                if (picture.pts or 0) * self._base > self._start + ROUNDING:
                    break
                shown = picture
        frame = pool.take(self._cancel)
        self._fill(frame, self._plain(shown))
        return frame

    def _pictures(self) -> Generator[VideoFrame, None, None]:
        """Decoded frames up to end, progressive, from the last key frame before start on. `_base` and `_aspect` are
        known after the first."""
        with opened(self._data, self._cancel) as (container, video):
            self._base = video.time_base or Fraction(1, 1000)
            self._aspect = Fraction(video.sample_aspect_ratio or 1) or Fraction(1)
            video.codec_context.options = video.codec_context.options | {"err_detect": "explode"}
            low = ticks(self._start, self._base) if self._start > 0 else None
            high = ticks(self._end, self._base) if self._end is not None else None
            if low is not None:
                container.seek(low, stream=video, backward=True)
            for picture in _progressive(container.decode(video)):
                if picture.is_corrupt:
                    raise Undecodable("The clip is damaged.")
                time = picture.pts
                if time is not None and high is not None and time >= high:
                    return
                yield picture

    def _plain(self, picture: VideoFrame) -> VideoFrame:
        if self._wide:
            return self._reformat.reformat(
                picture,
                *self._size,
                "yuv420p",
                dst_colorspace=1,
                dst_color_range=1,
                dst_color_trc=ColorTrc.BT709,
                dst_color_primaries=ColorPrimaries.BT709,
                threads=1,
            )
        if (picture.width, picture.height) == self._size and picture.format.name in ("yuv420p", "yuvj420p"):
            return picture
        if picture.width * picture.height > 4 * self._size[0] * self._size[1]:
            raise TooLarge("The frames of the clip grow on the way.")
        colour = self.shape.colour
        options: dict[str, Any] = {"dst_color_range": colour.range} if colour.range else {}
        if picture.format.is_rgb:
            options["dst_colorspace"] = 1
        return self._reformat.reformat(picture, *self._size, "yuv420p", threads=1, **options)

    def _fill(self, frame: Frame, picture: VideoFrame) -> None:
        width, height = self._size
        sizes = ((width, height), ((width + 1) // 2, (height + 1) // 2), ((width + 1) // 2, (height + 1) // 2))
        for target, plane, (w, h) in zip((frame.y, frame.u, frame.v), picture.planes, sizes, strict=False):
            pixels = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[:h, :w]
            _lay(pixels, target, self._turn)


def _lay(pixels: Plane, target: Plane, turn: Turn) -> None:
    """Copy a plane, padded to the target's size by its own edge, mirrored and turned."""
    h, w = target.shape if turn.degrees % 180 == 0 else target.shape[::-1]
    if pixels.shape != (h, w):
        edge = (0, h - pixels.shape[0], 0, w - pixels.shape[1])
        pixels = np.asarray(cv2.copyMakeBorder(pixels, *edge, cv2.BORDER_REPLICATE), np.uint8)
    if turn.mirror:
        pixels = np.asarray(cv2.flip(pixels, 1), np.uint8)
    way = _EVEN_TURNS[turn.degrees]
    if way is None:
        np.copyto(target, pixels)
    else:
        target[:] = cv2.rotate(pixels, way)


def turn_of(picture: VideoFrame) -> Turn:
    """What the display matrix (ISO/IEC 14496-12 §8.2.2) asks for, to the nearest quarter turn."""
    sides = cast("Iterator[SideData]", iter(picture.side_data))
    raw = next((bytes(side) for side in sides if side.type == Type.DISPLAYMATRIX), None)
    if raw is None:
        return Turn()
    a, b, _, c, d = np.frombuffer(raw[:20], np.int32).astype(float)
    mirror = a * d - b * c < 0
    if mirror:
        a, b = -a, -b
    return Turn(round(float(np.degrees(np.arctan2(b, a))) / 90) * 90 % 360, mirror)


def _progressive(pictures: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """From the first interlaced frame on, through a deinterlacer that makes one frame of one frame."""
    graph: Graph | None = None
    scale = 1
    for picture in pictures:
        if graph is None and not picture.interlaced_frame:
            yield picture
            continue
        if graph is None:
            graph = _deinterlacer(picture)
        base = picture.time_base
        graph.vpush(picture)
        for made in _pulled(graph):
            scale = int(base / made.time_base) if base and made.time_base else 1
            yield _retimed(made, scale)
    if graph is not None:
        graph.vpush(None)
        for made in _pulled(graph):
            yield _retimed(made, scale)


def _retimed(made: VideoFrame, scale: int) -> VideoFrame:
    if made.pts is not None:
        made.pts //= scale
    return made


def _pulled(graph: Graph) -> Iterator[VideoFrame]:
    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return


def _deinterlacer(picture: VideoFrame) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
    )
    weave = graph.add("bwdif", "mode=send_frame:deint=interlaced")
    sink = graph.add("buffersink")
    source.link_to(weave)
    weave.link_to(sink)
    graph.configure()
    return graph
