"""The clips that a service like this is sent: telephones', editors', screen recorders', and some by nobody's friend.

``CORPUS`` holds recipes of good clips, each with one property that video code often gets wrong; ``hostile`` makes bad
ones.
"""

from __future__ import annotations

import io
import random
import struct
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame

from tests.clips import Actor, Recipe, Scene, line_path, make, sway

FRAMES = 30
HOPPER = Actor("hopper", sway(190, 130, 50))
SCENE = Scene([HOPPER])
_FAST = {"preset": "ultrafast", "crf": "16", "bf": "0"}
_MILLI = Fraction(1, 1000)


def _uneven(count: int, seed: int = 4) -> list[int]:
    """Milliseconds of a telephone that can't decide on a rate."""
    rng, times = random.Random(seed), [0]
    while len(times) < count:
        times.append(times[-1] + rng.choice([15, 33, 34, 50, 100]))
    return times


def _away(t: float) -> tuple[float, float, float, float] | None:
    """Walks out to the right, and comes back after a while."""
    if 0.9 < t < 1.4:
        return None
    x = 240 + 330 * t / 0.9 if t <= 0.9 else 560 - 330 * (t - 1.4) / 0.9
    return (x, 130.0, 48.0, 0.0)


_BASE = Recipe(SCENE, frames=FRAMES)
_B_FRAMES = {"preset": "veryfast", "crf": "16", "bf": "3", "b-adapt": "0"}
_WEB_TIMES = [round(index * 1000 / 24) for index in range(FRAMES)]
CORPUS: dict[str, Recipe] = {
    "constant rate": _BASE,
    "23.976": replace(_BASE, rate=Fraction(24000, 1001)),
    "59.94": replace(_BASE, rate=Fraction(60000, 1001), frames=60),
    "variable rate": replace(_BASE, times=_uneven(FRAMES), base=_MILLI),
    "variable rate, b-frames": replace(_BASE, times=_uneven(FRAMES), base=_MILLI, options=_B_FRAMES),
    "b-frames": replace(_BASE, options=_B_FRAMES),
    "rotated 90": replace(_BASE, rotation=90),
    "rotated 180": replace(_BASE, rotation=180),
    "rotated 270": replace(_BASE, rotation=270),
    "odd": replace(_BASE, crop=(479, 271), pixels="yuv444p"),
    "no audio": replace(_BASE, audio=None),
    "10 bit": replace(_BASE, pixels="yuv420p10le"),
    "4:2:2": replace(_BASE, pixels="yuv422p"),
    "full range": replace(_BASE, colour=(1, 1, 1, 2), pixels="yuvj420p"),
    "bt.601": replace(_BASE, colour=(6, 6, 6, 1)),
    "untagged": replace(_BASE, colour=None),
    "hdr": replace(_BASE, pixels="yuv420p10le", colour=(9, 16, 9, 1)),
    "interlaced": replace(
        _BASE, options={"preset": "veryfast", "crf": "16", "bf": "0", "flags": "+ilme+ildct", "x264-params": "tff=1"}
    ),
    "audio longer": replace(_BASE, audio_seconds=2.5),
    "start offset": replace(_BASE, times=[12345 + index * 512 for index in range(FRAMES)], base=Fraction(1, 12288)),
    # Coded frames before time 0, which an edit list tells players to leave out.
    "edit list": replace(_BASE, times=[(index - 8) * 512 for index in range(FRAMES)], base=Fraction(1, 12288)),
    "fragmented": replace(_BASE, movflags="frag_keyframe+empty_moov"),
    "mp3": replace(_BASE, audio="libmp3lame"),
    "pcm": replace(_BASE, container="mov", audio="pcm_s16le"),
    "vp9, opus, webm": replace(
        _BASE, codec="libvpx-vp9", container="webm", audio="libopus", base=_MILLI, times=_WEB_TIMES,
        options={"deadline": "realtime", "cpu-used": "8", "crf": "20", "b:v": "0"},
    ),
    "vp8, matroska": replace(
        _BASE, codec="libvpx", container="matroska", audio="libopus", base=_MILLI, times=_WEB_TIMES,
        options={"deadline": "realtime", "cpu-used": "8", "b:v": "3M"},
    ),
    "hevc": replace(_BASE, codec="libx265", options={"preset": "ultrafast", "crf": "16", "x265-params": "log-level=0"}),
    "cut": replace(_BASE, frames=48, scene=Scene([HOPPER], cuts=(1.0,))),
    "face leaving": replace(_BASE, frames=56, scene=Scene([Actor("hopper", _away)])),
}  # fmt: skip

#: Two people change sides; the astronaut passes in front.
CROSSING = Recipe(
    Scene(
        [
            Actor("hopper", line_path((130, 135), (350, 135), 2.0, 44)),
            Actor("astronaut", line_path((360, 135), (120, 135), 2.0, 40)),
        ]
    ),
    frames=60,
)


def hostile(good: bytes) -> dict[str, tuple[bytes, str]]:
    """Name to (clip, expected problem). `good` is an MP4 of the corpus."""
    playlist = b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
    cuts = {f"cut at {share} %": (good[: len(good) * share // 100], "undecodable") for share in range(10, 100, 10)}
    at = good.index(b"mdat") + 4
    noise = random.Random(1).randbytes(len(good) - at)
    middle = at + (len(good) - at) // 2
    streamed = make(replace(_BASE, frames=12, movflags="frag_keyframe+empty_moov"))
    web = make(replace(CORPUS["vp8, matroska"], container="webm", frames=12, times=_WEB_TIMES[:12]))
    return cuts | {
        "fragmented, cut": (streamed[: len(streamed) * 3 // 4], "undecodable"),
        "web clip, cut": (web[: len(web) * 3 // 4], "undecodable"),
        "nothing but a head": (good[:16], "undecodable"),
        "a playlist": (playlist, "unsupported"),
        "a playlist that says it is an mp4": (good[:24] + playlist, "undecodable"),
        "a concat script": (b"ffconcat version 1.0\nfile '/etc/passwd'\n", "unsupported"),
        "noise": (good[:at] + noise, "undecodable"),
        "noise from the middle on": (good[:middle] + noise[: len(good) - middle], "undecodable"),
        "sound only": (make(replace(_BASE, frames=0)), "unsupported"),
        "wrong codec": (make(replace(_BASE, codec="mpeg4", frames=6, options={})), "unsupported"),
        "no frames": (_emptied(good), "undecodable"),
        "8k": (_flat(7680, 4320), "too_large"),
        "1000 fps": (make(replace(_BASE, rate=Fraction(1000), frames=200, audio=None)), "too_large"),
        "10 000 streams": (_many_tracks(good, 10_000), "undecodable"),
    }


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body) + 8) + kind + body


def parts(data: bytes) -> list[tuple[bytes, bytes]]:
    found, at = [], 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        found.append((data[at + 4 : at + 8], data[at + 8 : at + size]))
        at += size
    return found


def _flat(width: int, height: int) -> bytes:
    """A second of grey."""
    sink = io.BytesIO()
    with av.open(sink, "w", format="mp4") as out:
        stream = out.add_stream("libx264", rate=2, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(2):
            out.mux(stream.encode(VideoFrame.from_ndarray(np.full((height * 3 // 2, width), 99, np.uint8), "yuv420p")))
        out.mux(stream.encode(None))
    return sink.getvalue()


def _emptied(good: bytes) -> bytes:
    """The tables of the video's samples say that there are none."""
    data, video = bytearray(good), good.index(b"vide")
    for kind, offset in ((b"stts", 8), (b"stsz", 12), (b"stsc", 8), (b"stco", 8)):
        at = good.index(kind, video) + offset
        data[at : at + 4] = bytes(4)
    return bytes(data)


def _many_tracks(good: bytes, count: int) -> bytes:
    """The header repeats its first track so many times."""
    out = []
    for kind, body in parts(good):
        if kind == b"moov":
            tracks = [part for part in parts(body) if part[0] == b"trak"]
            others = [box(name, inner) for name, inner in parts(body)]
            body = b"".join(others) + box(*tracks[0]) * count
        out.append(box(kind, body))
    return b"".join(out)


def scrambled(good: bytes, frame: int) -> bytes:
    """The container is whole, and the coded pixels of one frame are noise."""
    data = bytearray(good)
    with av.open(io.BytesIO(good)) as container:
        packets = [packet for packet in container.demux(container.streams.video[0]) if packet.size]
    at, size = packets[frame].pos, packets[frame].size
    assert at is not None
    # Behind the length and the header of the slice, so that it is found by decoding and not before.
    data[at + 24 : at + size] = random.Random(3).randbytes(size - 24)
    return bytes(data)
