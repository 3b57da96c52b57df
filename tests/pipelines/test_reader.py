"""Frames out of a clip: upright, even, eight bits, their own times, from a pool of a few."""

from fractions import Fraction

import numpy as np
import pytest

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.errors import Cancelled, Undecodable
from nanoswap.pipelines.frame import FramePool
from nanoswap.pipelines.reader import Reader
from nanoswap.pipelines.yuv import small
from tests.clips import make, read_number
from tests.corpus import CORPUS, scrambled


def numbers(data: bytes, **part: float) -> tuple[list[int], list[int], Reader]:
    """The numbers that the frames carry, their times in ticks, and the reader."""
    reader = Reader(data, CancelToken(), **part)  # type: ignore[arg-type]
    pool = FramePool(reader.shape.width, reader.shape.height, 1)
    seen, times = [], []
    for frame in reader.frames(pool):
        seen.append(read_number(small(frame, 9999, reader.shape.colour)))
        times.append(frame.pts)
        pool.give(frame)
    return seen, times, reader


@pytest.mark.parametrize(
    "name", ["rotated 90", "rotated 180", "rotated 270", "odd", "10 bit", "full range", "hdr", "b-frames"]
)
def test_frames_are_upright_even_and_in_order(name: str) -> None:
    seen, times, reader = numbers(make(CORPUS[name]))
    assert seen == list(range(CORPUS[name].frames))
    assert times == sorted(set(times))
    assert (reader.shape.width, reader.shape.height) == (480, 272)


def test_hdr_becomes_bt709_and_says_so() -> None:
    _, _, reader = numbers(make(CORPUS["hdr"]))
    colour = reader.shape.colour
    assert (colour.primaries, colour.transfer, colour.matrix, colour.range) == (1, 1, 1, 1)


def test_a_part_begins_at_time_zero() -> None:
    data = make(CORPUS["b-frames"])
    seen, times, reader = numbers(data, start=0.5, end=1.0)
    assert seen == list(range(12, 24))
    assert times[0] == 0
    assert times[1] * reader.shape.base == Fraction(1, 24)


@pytest.mark.parametrize("name", ["constant rate", "b-frames", "hevc", "vp9, opus, webm"])
def test_damage_is_an_error_and_not_a_picture(name: str) -> None:
    data = scrambled(make(CORPUS[name]), 15)
    with pytest.raises(Undecodable):
        numbers(data)


def test_pool_bounds_and_wipes() -> None:
    cancel, pool = CancelToken(), FramePool(16, 8, 2)
    one, two = pool.take(cancel), pool.take(cancel)
    one.data.fill(7)
    two.data.fill(7)
    cancel.cancel()
    with pytest.raises(Cancelled):
        pool.take(cancel)
    pool.give(one)
    assert pool.take(CancelToken()).data is one.data
    pool.close()
    with pytest.raises(Cancelled):
        pool.take(CancelToken())
    pool.wipe()
    assert not one.data.any()
    assert not two.data.any()


def test_planes_of_a_frame_are_views() -> None:
    frame = FramePool(8, 4, 1).take(CancelToken())
    frame.data.fill(0)
    frame.y.fill(1)
    frame.u.fill(2)
    frame.v.fill(3)
    assert (frame.width, frame.height, frame.u.shape) == (8, 4, (2, 4))
    assert np.bincount(frame.data.ravel()).tolist() == [0, 32, 8, 8]


@pytest.mark.parametrize(("seconds", "number"), [(0.0, 0), (0.5, 12), (0.53, 12), (0.541, 12), (0.542, 13), (99.0, 29)])
def test_still_is_the_frame_that_a_player_shows(seconds: float, number: int) -> None:
    reader = Reader(make(CORPUS["b-frames"]), CancelToken(), start=seconds)
    frame = reader.still(FramePool(reader.shape.width, reader.shape.height, 1))
    assert read_number(small(frame, 9999, reader.shape.colour)) == number
