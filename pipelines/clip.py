"""What a clip is, told by its container alone: size, frames, length, codec. No frame is decoded.

The header of a clip can say anything, so the packets are counted: this is what an admission is decided by,
and what the declared cost of a turn is held against. The demuxer is the one that the magic bytes name, it is
given our bytes and nothing that could open another file or a connection, and few streams.
"""

from __future__ import annotations

import math
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip_container import ClipFormat, check_whole, sniff_clip
from nanoswap.pipelines.container import Buffer
from nanoswap.pipelines.errors import TooLarge, Undecodable, Unsupported
from nanoswap.pipelines.memory_file import MemoryFile

VIDEO_CODECS: Final = ("h264", "hevc", "vp8", "vp9", "av1")
_MAX_STREAMS: Final = 32
_MAX_PACKETS: Final = 400_000
_LEAST_PIXELS: Final = 640 * 480
_SECONDS_SLACK: Final = 0.05
ROUNDING: Final = Fraction(1, 2000)
"""Seconds by which files and players round."""
_OPTIONS: Final = {
    "protocol_whitelist": "none",
    "enable_drefs": "0",
    "use_absolute_path": "0",
    "max_streams": str(_MAX_STREAMS),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipLimits:
    """What a clip may measure. Frames and seconds are those between start and end; the rest is the file's."""

    max_bytes: int = 90 * 2**20
    max_pixels: int = 1920 * 1088
    max_frames: int = 3600
    max_seconds: float = 60.0
    max_fps: float = 120.0


@dataclass(frozen=True, slots=True)
class ClipInfo:
    """width, height: coded, before rotation; frames: packets that show a picture, between start and end;
    seconds: from the first of these to the end of the last; fps: their mean rate; codec: of VIDEO_CODECS."""

    width: int
    height: int
    frames: int
    seconds: float
    fps: Fraction
    codec: str
    audio: bool


def probe_clip(
    data: Buffer,
    limits: ClipLimits,
    *,
    start: float = 0.0,
    end: float | None = None,
    cancel: CancelToken | None = None,
) -> ClipInfo:
    """Count what lies between `start` and `end` (seconds of the clip's own time).

    Raises `Unsupported`, `Undecodable`, `TooLarge`, `Cancelled`, `TimedOut`.
    """
    if len(data) > limits.max_bytes:
        raise TooLarge("The clip has too many bytes.")
    check_whole(data, _format(data))
    with opened(data, cancel) as (container, video):
        width, height = video.codec_context.width, video.codec_context.height
        if width * height > limits.max_pixels:
            raise TooLarge("The frames of the clip have too many pixels.")
        times = _times(container, video, start, end)
        base = video.time_base or Fraction(1, 1000)
        if not times:
            raise Undecodable("The clip has no frames" + (" there." if start or end is not None else "."))
        if len(times) > limits.max_frames:
            raise TooLarge("The clip has too many frames.")
        length = float((times[-1] - times[0]) * base)
        fps = _rate(video, times, base)
        seconds = length + 1 / float(fps)
        if length > limits.max_seconds + _SECONDS_SLACK:
            raise TooLarge("The clip is too long.")
        if _crowd(times, base) > limits.max_fps * 1.1 + 1:
            raise TooLarge("The clip has too many frames in a second.")
        audio = bool(container.streams.audio)
        return ClipInfo(width, height, len(times), seconds, fps, video.codec_context.codec.canonical_name, audio)


@contextmanager
def opened(data: Buffer, cancel: CancelToken | None = None) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The demuxer over our bytes, and the one video stream worth showing. For a stranger's bytes that `probe_clip` has
    let through: what a demuxer would believe is searched for there, once, and a swap opens a clip dozens of times.

    Raises `Unsupported`, `Undecodable`; and `Undecodable` for whatever the demuxer raises inside the block.
    """
    form = _format(data)
    try:
        file = MemoryFile(data, cancel or CancelToken())
        with av.open(file, "r", format=form, container_options=dict(_OPTIONS)) as container:
            streams = [s for s in container.streams.video if not s.disposition & s.disposition.attached_pic]
            if not streams:
                raise Unsupported("The clip has no video.")
            video = container.streams.best("video") if len(streams) > 1 else streams[0]
            if not isinstance(video, VideoStream) or video.codec_context is None:
                raise Unsupported("The clip has no video in a codec that we read.")
            video.thread_type = "NONE"
            if video.codec_context.codec.canonical_name not in VIDEO_CODECS:
                raise Unsupported("The clip's video codec is not one of H.264, H.265, VP8, VP9, AV1.")
            if video.codec_context.width < 16 or video.codec_context.height < 16:
                raise Undecodable("The clip has no picture.")
            # The stream may say otherwise than its container did: what a frame may grow to is bounded in the decoder.
            most = 4 * video.codec_context.width * video.codec_context.height
            video.codec_context.options = {"max_pixels": str(max(most, _LEAST_PIXELS))}
            yield container, video
    except (av.FFmpegError, ValueError, OverflowError, MemoryError) as error:
        raise Undecodable("The clip is damaged.") from error


def _format(data: Buffer) -> ClipFormat:
    form = sniff_clip(data)
    if form is None:
        raise Unsupported("This is not an MP4, MOV, WebM or Matroska clip.")
    return form


def ticks(seconds: float, base: Fraction) -> int:
    """The first tick of `base` at or after `seconds`; half a millisecond early counts as there, since files and
    players round."""
    return math.ceil((Fraction(seconds) - ROUNDING) / base)


def zero(start: float, base: Fraction) -> int:
    """The tick of `base` that becomes time 0 of a part that begins at `start` seconds."""
    return round(Fraction(start) / base)


def _times(container: InputContainer, video: VideoStream, start: float, end: float | None) -> array[int]:
    """Sorted presentation times between start and end, in ticks; hidden and edited-out frames do not count."""
    base = video.time_base or Fraction(1, 1000)
    low = ticks(start, base) if start > 0 else None
    high = ticks(end, base) if end is not None else None
    times, packets = array("q"), 0
    for packet in container.demux(video):
        packets += 1
        if packets > _MAX_PACKETS:
            raise TooLarge("The clip has too many frames.")
        time = packet.pts if packet.pts is not None else packet.dts
        if packet.size == 0 or time is None:
            continue
        if packet.is_corrupt:
            raise Undecodable("The clip is damaged.")
        if packet.is_discard or (low is not None and time < low) or (high is not None and time >= high):
            continue
        times.append(time)
    return array("q", sorted(times))


def _rate(video: VideoStream, times: array[int], base: Fraction) -> Fraction:
    mean = (len(times) - 1) / ((times[-1] - times[0]) * base) if times[-1] > times[0] else None
    rate = mean or video.average_rate or Fraction(25)
    return min(max(Fraction(rate).limit_denominator(1001), Fraction(1, 10)), Fraction(1000))


def _crowd(times: array[int], base: Fraction) -> int:
    """The most frames in any second."""
    second = int(1 / base)
    return max(bisect_right(times, time + second - 1) - i for i, time in enumerate(times))
