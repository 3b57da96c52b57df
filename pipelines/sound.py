"""The sound of a clip, brought over packet by packet: copied where MP4 and browsers can have it, else AAC.

It is read by a demuxer of its own over the same bytes, pulled up to the time of the pictures, so that
neither waits for the other in memory. Only the best track comes along; captions, places and chapters do
not.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from fractions import Fraction
from typing import Any, Final

from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip import opened, ticks, zero
from nanoswap.pipelines.container import Buffer

_COPIED: Final = {"aac": "mp4a.40.2", "mp3": "mp4a.6b", "opus": "opus"}
_RATES: Final = (48000, 44100, 32000, 24000, 22050, 16000)


class Sound:
    """The track between start and end, its time 0 at `start`. `attach` it once, draw it in order, close it."""

    @staticmethod
    def of(data: Buffer, start: float, end: float | None, cancel: CancelToken) -> Sound | None:
        """None when the clip has no sound that can be read."""
        stack = ExitStack()
        container, _ = stack.enter_context(opened(data, cancel))
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream) or stream.codec_context is None or not stream.codec_context.rate:
            stack.close()
            return None
        return Sound(stack, container, stream, start, end)

    def __init__(self, stack: ExitStack, container: Any, stream: AudioStream, start: float, end: float | None) -> None:
        self._stack, self._container, self._in = stack, container, stream
        self.base = stream.time_base or Fraction(1, 48000)
        self._low = ticks(start, self.base) if start > 0 else None
        self._zero = zero(start, self.base)
        self._high = ticks(end, self.base) if end is not None else None
        self.copied = stream.codec_context.codec.canonical_name in _COPIED
        self.codec = _COPIED.get(stream.codec_context.codec.canonical_name, "mp4a.40.2")
        self._out: Any = None
        self._packets: Iterator[Packet[AudioStream]] | None = None
        self._next: Packet[AudioStream] | None = None

    def attach(self, out: Any) -> None:
        """Add the track to a muxer."""
        if self.copied:
            self._out = out.add_stream_from_template(self._in, opaque=True)
            self._packets = self._copy()
        else:
            context = self._in.codec_context
            rate = context.rate if context.rate in _RATES else 48000
            layout = "mono" if context.layout.nb_channels == 1 else "stereo"
            self._out = out.add_stream("aac", rate=rate, layout=layout)
            self._packets = self._encode(AudioResampler("fltp", layout, rate, 1024))
        self._out.metadata.clear()

    def until(self, time: Fraction | None) -> Iterator[Packet[AudioStream]]:
        """The packets due up to `time` (seconds); all that are left for None."""
        assert self._packets is not None
        while True:
            if self._next is None:
                self._next = next(self._packets, None)
            packet = self._next
            if packet is None or (time is not None and packet.dts is not None and packet.dts * packet.time_base > time):
                return
            self._next = None
            yield packet

    def close(self) -> None:
        """Idempotent."""
        self._packets = self._next = None
        self._stack.close()

    def _within(self) -> Iterator[Packet[AudioStream]]:
        """Demuxed packets that sound between start and end; the first may begin before."""
        if self._low is not None:
            self._container.seek(self._low, stream=self._in, backward=True)
        for packet in self._container.demux(self._in):
            if packet.size == 0 or packet.pts is None:
                continue
            if self._low is not None and packet.pts + (packet.duration or 0) <= self._low:
                continue
            if self._high is not None and packet.pts >= self._high:
                return
            yield packet

    def _copy(self) -> Iterator[Packet[AudioStream]]:
        last: int | None = None
        for packet in self._within():
            packet.pts = int(packet.pts or 0) - self._zero
            # A muxer refuses times that do not rise.
            packet.dts = packet.pts if last is None or packet.pts > last else last + 1
            last = packet.dts
            packet.stream = self._out
            yield packet

    def _encode(self, resampler: AudioResampler) -> Iterator[Packet[AudioStream]]:
        for packet in self._within():
            for frame in self._in.decode(packet):
                if frame.pts is not None:
                    frame.pts -= self._zero
                for part in resampler.resample(frame):
                    yield from self._out.encode(part)
        for part in resampler.resample(None):
            if part is not None:
                yield from self._out.encode(part)
        yield from self._out.encode(None)
