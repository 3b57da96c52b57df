"""Other ways to get a clip from one end to the other, in a few lines each: what the video path is measured against.

`ceiling` is the least that any path must do: decode, encode, copy the sound, as plain PyAV does it with our encoder's
options, in one thread or with decoding in a second one. `through_files` is how FaceFusion worked before it got its
in-memory mode, and how roop and its many children work: every frame becomes a picture file; each file is read,
searched for faces, swapped and written again; the files are encoded; and a second pass puts the sound of the original
to it. It has our engine and our encoder's options.
"""

import io
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.frame import VideoFrame

from nanoswap.pipelines.ahead import Ahead
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.engine import Engine, Request
from nanoswap.pipelines.mp4 import _OPTIONS, Encoder
from tests.clips import portrait


class Sink:
    """Counts what the muxer writes to it."""

    count = 0

    def write(self, data: bytes) -> int:
        self.count += len(data)
        return len(data)


def ceiling(data: bytes, encoder: Encoder, *, ahead: bool = False) -> int:
    """ahead: decoding in a thread of its own, a few frames before the encoder."""
    sink = Sink()
    with av.open(io.BytesIO(data)) as clip, av.open(sink, "w", format="mp4", container_options=dict(_OPTIONS)) as out:
        video, sound = clip.streams.video[0], clip.streams.audio[0]
        video.thread_type = "NONE"
        stream = _stream(out, video, encoder)
        copy = out.add_stream_from_template(sound, opaque=True)
        read = _read(clip, video, sound)
        stage = Ahead(read, 8, "decode") if ahead else None
        for one in stage or read:
            if isinstance(one, VideoFrame):
                one.pict_type = 0  # type: ignore[assignment]  # the encoder's own choice
                out.mux(stream.encode(one))
            else:
                one.stream = copy
                out.mux(one)
        if stage is not None:
            stage.close()
        out.mux(stream.encode(None))
    return sink.count


def _read(clip: Any, video: Any, sound: Any) -> Generator[Any, None, None]:
    """Decoded frames, and packets of sound as they are."""
    for packet in clip.demux(video, sound):
        if packet.stream is video:
            yield from packet.decode()
        elif packet.dts is not None:
            yield packet


def through_files(data: bytes, engine: Engine, encoder: Encoder, folder: Path, kind: str) -> int:
    """kind: png or jpg."""
    with av.open(io.BytesIO(data)) as clip:
        video = clip.streams.video[0]
        video.thread_type = "NONE"
        for index, frame in enumerate(clip.decode(video)):
            cv2.imwrite(str(folder / f"{index:06}.{kind}"), frame.to_ndarray(format="bgr24"))
        giver = portrait("hopper")
        source = engine.prepare(giver, engine.detect(giver)[0])
        files = sorted(folder.glob(f"*.{kind}"))
        for file in files:
            rgb = np.asarray(cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB), np.uint8)
            for face in engine.detect(rgb)[:1]:
                engine.swap([(rgb, face)], source, Request(CancelToken()))
            cv2.imwrite(str(file), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        silent = folder / "silent.mp4"
        with av.open(str(silent), "w") as out:
            stream = _stream(out, video, encoder)
            for frame in _pictures(files):
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
    return _with_sound(silent, data, folder / "whole.mp4")


def _stream(out: Any, video: Any, encoder: Encoder) -> Any:
    stream = out.add_stream(encoder.codec, rate=video.average_rate, options=encoder.options(video.average_rate))
    stream.width, stream.height, stream.pix_fmt = video.width, video.height, "yuv420p"
    return stream


def _pictures(files: list[Path]) -> Iterator[VideoFrame]:
    for file in files:
        yield VideoFrame.from_ndarray(cv2.imread(str(file)), format="bgr24")


def _with_sound(silent: Path, data: bytes, whole: Path) -> int:
    with av.open(str(silent)) as pictures, av.open(io.BytesIO(data)) as clip, av.open(str(whole), "w") as out:
        tracks = [
            (opened, stream, out.add_stream_from_template(stream, opaque=True))
            for opened, stream in ((pictures, pictures.streams.video[0]), (clip, clip.streams.audio[0]))
        ]
        for opened, stream, copy in tracks:
            for packet in opened.demux(stream):
                if packet.dts is not None:
                    packet.stream = copy
                    out.mux(packet)
    return whole.stat().st_size
