"""A clip judged by its container: true numbers, limits, nothing but our own bytes read."""

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip import ClipLimits, opened, probe_clip
from nanoswap.pipelines.clip_container import sniff_clip
from nanoswap.pipelines.errors import PipelineError, TimedOut, TooLarge, Undecodable
from nanoswap.pipelines.frame import FramePool
from nanoswap.pipelines.memory_file import MemoryFile
from nanoswap.pipelines.reader import Reader
from tests.clips import make, read
from tests.corpus import CORPUS, hostile

LIMITS = ClipLimits()
GOOD = make(replace(CORPUS["constant rate"], frames=24))


def test_what_the_container_says() -> None:
    info = probe_clip(GOOD, LIMITS)
    assert (info.width, info.height, info.frames, info.codec, info.audio) == (480, 272, 24, "h264", True)
    assert info.fps == Fraction(24)
    assert info.seconds == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize(
    "name", ["variable rate, b-frames", "vp9, opus, webm", "start offset", "rotated 90", "fragmented", "edit list"]
)
def test_frames_are_counted_and_not_believed(name: str) -> None:
    recipe = CORPUS[name]
    data = make(recipe)
    info, seen = probe_clip(data, LIMITS), read(data)
    assert info.frames == len(seen.frames) == recipe.frames - recipe.hidden
    assert info.seconds == pytest.approx(float(seen.pts[-1] - seen.pts[0] + 1 / info.fps), abs=1e-6)


def test_a_part_is_counted_by_its_own_frames() -> None:
    assert probe_clip(GOOD, LIMITS, start=0.25, end=0.75).frames == 12
    assert probe_clip(GOOD, LIMITS, start=0.5).frames == 12
    with pytest.raises(PipelineError, match="no frames there"):
        probe_clip(GOOD, LIMITS, start=5)


@pytest.mark.parametrize(
    "limits",
    [{"max_bytes": 1000}, {"max_pixels": 1000}, {"max_frames": 23}, {"max_seconds": 0.5}, {"max_fps": 10.0}],
    ids=lambda one: next(iter(one)),
)
def test_each_limit_holds(limits: dict[str, float]) -> None:
    with pytest.raises(TooLarge):
        probe_clip(GOOD, replace(LIMITS, **limits))  # type: ignore[arg-type]


def test_hostile_clips_that_the_container_gives_away() -> None:
    for name, (data, code) in hostile(GOOD).items():
        with pytest.raises(PipelineError) as caught:
            probe_clip(data, LIMITS)
        assert caught.value.code == code, name


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_clip_is_a_clip_or_our_own_error(data: st.DataObject) -> None:
    bent = bytearray(GOOD)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(bent) - 1) | st.integers(0, 4000))
        bent[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(bent)) | st.just(len(bent)))
    try:
        info = probe_clip(bytes(bent[:cut]), LIMITS)
    except PipelineError:
        return
    assert 1 <= info.frames <= LIMITS.max_frames


@given(st.binary(max_size=64))
def test_sniffing_never_fails(head: bytes) -> None:
    assert sniff_clip(head) in ("mov", "matroska", None)


def test_memory_file_reads_and_seeks_like_a_file() -> None:
    file = MemoryFile(b"0123456789", CancelToken())
    assert (file.read(3), file.tell()) == (b"012", 3)
    assert (file.seek(-2, 2), file.read()) == (8, b"89")
    assert (file.seek(99), file.read(1)) == (10, b"")
    with pytest.raises(ValueError, match="before the start"):
        file.seek(-1)


def test_a_demuxer_is_stopped_at_its_next_read() -> None:
    with pytest.raises(TimedOut):
        probe_clip(make(CORPUS["constant rate"]), ClipLimits(), cancel=CancelToken(0.0))


def test_what_a_frame_may_grow_to_is_bounded_in_the_decoder() -> None:
    """The container may say less than the stream; the decoder is told four times what the container said."""
    data = make(replace(CORPUS["constant rate"], frames=2, audio=None))
    with opened(data) as (_, video):
        assert video.codec_context.options["max_pixels"] == str(4 * 480 * 272)
    reader = Reader(data, CancelToken())
    assert next(reader.frames(FramePool(480, 272, 1))).width == 480
    with pytest.raises(Undecodable), opened(data) as (container, video):  # noqa: PT012
        video.codec_context.options = {"max_pixels": "1000"}
        next(container.decode(video))
