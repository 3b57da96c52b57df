"""What comes out: fragments a player can begin with, no B-frames, tags and times kept, nothing of whoever made it."""

import io
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import pytest

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.frame import Frame
from nanoswap.pipelines.mp4 import Encoder, Mp4Writer, choose_encoder
from nanoswap.pipelines.reader import Shape
from nanoswap.pipelines.sound import Sound
from nanoswap.pipelines.yuv import Colour
from tests.clips import make, read
from tests.corpus import CORPUS

SHAPE = Shape(128, 96, Fraction(1, 24), Fraction(1), Colour(1, 1, 1, 1))


def parts(frames: int = 48, sound: Sound | None = None, shape: Shape = SHAPE) -> tuple[list[bytes], str]:
    rng = np.random.default_rng(1)
    writer = Mp4Writer(shape, 1 / shape.base, Encoder(preset="ultrafast"), sound)
    out = []
    for index in range(frames):
        writer.write(Frame(rng.integers(0, 255, (144, 128), dtype=np.uint8), index))
        if part := writer.take():
            out.append(part)
    writer.finish()
    out.append(writer.take())
    writer.close()
    return out, writer.codecs


def boxes(data: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(data):
        yield data[at + 4 : at + 8]
        at += int.from_bytes(data[at : at + 4])


def test_every_part_is_whole_boxes_and_half_a_second() -> None:
    made, codecs = parts()
    kinds = [list(boxes(part)) for part in made]
    assert kinds[0][:2] == [b"ftyp", b"moov"]
    assert sum(kind.count(b"moof") for kind in kinds) == 4
    assert all(kind.count(b"moof") == kind.count(b"mdat") for kind in kinds)
    assert codecs.startswith("avc1.")
    whole = b"".join(made)
    with av.open(io.BytesIO(whole)) as container:
        video = container.streams.video[0]
        assert not video.codec_context.has_b_frames
        order = [(packet.dts, packet.pts) for packet in container.demux(video) if packet.size]
    assert all(dts == pts for dts, pts in order)
    assert b"Lavf" not in whole


def test_first_part_can_be_shown_before_there_is_a_second() -> None:
    made, _ = parts()
    assert len(read(made[0]).frames) >= 10


def test_times_and_tags_are_what_was_given() -> None:
    shape = Shape(128, 96, Fraction(1, 90000), Fraction(1), Colour(6, 6, 6, 2))
    writer = Mp4Writer(shape, Fraction(30), Encoder(preset="ultrafast"), None)
    times = [4000, 7003, 7004, 90001, 200000]
    for time in times:
        writer.write(Frame(np.full((144, 128), 90, np.uint8), time))
    writer.finish()
    seen = read(writer.take())
    assert [pts * 90000 for pts in seen.pts] == times
    assert seen.colour == (6, 6, 6, 2)


def test_sound_is_copied_to_the_bit() -> None:
    clip = make(CORPUS["constant rate"])
    sound = Sound.of(clip, 0.0, None, CancelToken())
    assert sound is not None
    made, codecs = parts(30, sound)
    sound.close()
    assert read(b"".join(made), decode=False).audio == read(clip, decode=False).audio
    assert codecs.endswith("mp4a.40.2")


def test_sound_that_browsers_do_not_play_becomes_aac() -> None:
    sound = Sound.of(make(CORPUS["pcm"]), 0.0, None, CancelToken())
    assert sound is not None
    made, _ = parts(30, sound)
    sound.close()
    seen = read(b"".join(made), decode=False)
    assert seen.audio_codec == "aac"
    assert float(seen.audio[-1][0]) == pytest.approx(1.25, abs=0.05)


def test_no_sound_is_no_sound() -> None:
    assert Sound.of(make(CORPUS["no audio"]), 0.0, None, CancelToken()) is None


def test_encoder_is_one_that_this_machine_has() -> None:
    chosen = choose_encoder(Encoder(preset="superfast"))
    assert chosen.codec in ("libx264", "h264_nvenc")
    av.CodecContext.create(chosen.codec, "w")
