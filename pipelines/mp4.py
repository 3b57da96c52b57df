"""Fragmented MP4, handed out while it is made.

Every half second of video is one fragment that a player can show at once. The header waits for the first
packets (`delay_moov`), so that an encoder's priming and a late start are written as edit lists and sound
stays where it was; and there are no B-frames, whose reordering would move the pictures against it. The
sink can only be written to: nothing is ever patched behind what was handed out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from nanoswap.pipelines.frame import Frame
from nanoswap.pipelines.reader import Shape
from nanoswap.pipelines.sound import Sound

_FRAGMENT: Final = "500000"  # microseconds
_OPTIONS: Final = {
    "movflags": "delay_moov+default_base_moof",
    "frag_duration": _FRAGMENT,
    "max_interleave_delta": "1000000",
    "flush_packets": "1",
    "fflags": "+bitexact",  # no name and version of the muxer in the result
}
# Frames that x264 looks ahead: less than half of what most presets do, which hardly shows in size or quality (without
# B-frames it only weighs blocks), saves 6 MB a frame at 1080p, and lets the first half second out after 20 frames,
# two chunks of work. Two presets never look ahead.
_LOOKAHEAD: Final = "4"
_NEVER_AHEAD: Final = ("ultrafast", "superfast")
_MOST_TICKS: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """How pictures are encoded. codec: libx264 or h264_nvenc; preset: the codec's own; crf: 0..51, constant quality."""

    codec: str = "libx264"
    preset: str = "veryfast"
    crf: int = 20
    threads: int = 1

    def options(self, fps: Fraction) -> dict[str, str]:
        gop = str(max(1, round(2 * fps)))
        if self.codec == "h264_nvenc":
            return {"preset": self.preset, "rc": "vbr", "cq": str(self.crf), "bf": "0", "g": gop}
        options = {"preset": self.preset, "crf": str(self.crf), "bf": "0", "g": gop, "threads": str(self.threads)}
        if self.preset not in _NEVER_AHEAD:
            options["rc-lookahead"] = _LOOKAHEAD
        return options


def choose_encoder(preferred: Encoder) -> Encoder:
    """NVENC where the machine has it, else `preferred`. Asked once, at start-up: it encodes one frame."""
    fast = Encoder(codec="h264_nvenc", preset="p4", crf=preferred.crf)
    try:
        context: Any = av.CodecContext.create("h264_nvenc", "w")
        context.width, context.height, context.pix_fmt = 256, 256, "yuv420p"
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.options = fast.options(Fraction(25))
        context.encode(VideoFrame(256, 256, "yuv420p"))
    except (av.FFmpegError, OSError, ValueError):
        return preferred
    return fast


class _Sink:
    """What the muxer writes to."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self.parts.append(bytes(data))
        return len(data)


class Mp4Writer:
    """Frames and sound in, bytes out. Use it in one thread; close it."""

    def __init__(self, shape: Shape, fps: Fraction, encoder: Encoder, sound: Sound | None) -> None:
        self._sink = _Sink()
        options = _OPTIONS | {"movie_timescale": str(_timescale(shape.base, sound))}
        self._out = av.open(self._sink, "w", format="mp4", container_options=options)
        self._video: Any = self._out.add_stream(encoder.codec, rate=fps, options=encoder.options(fps))
        context: Any = self._video.codec_context
        context.width, context.height, context.pix_fmt = shape.width, shape.height, "yuv420p"
        context.time_base = shape.base
        context.sample_aspect_ratio = shape.aspect
        context.color_primaries, context.color_trc = shape.colour.primaries, shape.colour.transfer
        context.colorspace, context.color_range = shape.colour.matrix, shape.colour.range
        self._base, self._sound = shape.base, sound
        if sound is not None:
            sound.attach(self._out)
        self._out.start_encoding()
        self.codecs = ",".join([_avc(bytes(context.extradata or b""))] + ([sound.codec] if sound else []))

    def write(self, frame: Frame) -> None:
        """Encode; the frame's pixels are not needed afterwards."""
        picture = VideoFrame.from_numpy_buffer(frame.data, format="yuv420p")
        picture.pts, picture.time_base = frame.pts, self._base
        context = self._video.codec_context
        picture.color_primaries, picture.color_trc = context.color_primaries, context.color_trc
        picture.colorspace, picture.color_range = context.colorspace, context.color_range
        self._mux(self._video.encode(picture))

    def finish(self) -> None:
        """The last fragments and the rest of the sound."""
        self._mux(self._video.encode(None))
        if self._sound is not None:
            self._out.mux(list(self._sound.until(None)))
        self._out.close()

    def take(self) -> bytes:
        """What was made since the last call; empty when it is not a whole part yet."""
        parts, self._sink.parts = self._sink.parts, []
        return b"".join(parts)

    def close(self) -> None:
        """Idempotent. Without `finish` the clip has no end."""
        self._out.close()
        self._sink.parts.clear()

    def _mux(self, packets: list[Packet[VideoStream]]) -> None:
        for packet in packets:
            if self._sound is not None and packet.dts is not None:
                self._out.mux(list(self._sound.until(packet.dts * packet.time_base)))
            self._out.mux(packet)


def _timescale(base: Fraction, sound: Sound | None) -> int:
    """Ticks per second of the whole clip, in which a late start of a track is written: such that it can be said
    exactly. (The muxer's own is a millisecond.)"""
    both = math.lcm(base.denominator, sound.base.denominator if sound else 1)
    return both if both <= _MOST_TICKS else base.denominator


def _avc(extradata: bytes) -> str:
    """The RFC 6381 name of an H.264 stream, from its parameter set (ISO/IEC 14496-15 or Annex B)."""
    if extradata[:1] == b"\x01":
        return "avc1." + extradata[1:4].hex()
    at = extradata.find(b"\x00\x00\x01\x67")
    return "avc1." + (extradata[at + 4 : at + 7].hex() if at >= 0 else "640028")
