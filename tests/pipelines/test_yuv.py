"""Planes to RGB and back: what was not painted keeps its bits, what was painted arrives, in every colour space."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nanoswap.pipelines.frame import Frame
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.yuv import Colour, crop, even, paint, small

SPACES = {
    "709": Colour(1, 1, 1, 1),
    "601": Colour(6, 6, 6, 1),
    "2020": Colour(9, 14, 9, 1),
    "full": Colour(1, 1, 1, 2),
    "unsaid": Colour(),
}


def noise(width: int = 64, height: int = 48) -> Frame:
    return Frame(np.random.default_rng(5).integers(16, 236, (height * 3 // 2, width), dtype=np.uint8))


@pytest.mark.parametrize("name", list(SPACES))
def test_nothing_painted_changes_no_bit(name: str) -> None:
    frame = noise()
    before = frame.data.copy()
    roi = Roi(8, 6, 40, 30)
    rgb = crop(frame, roi, SPACES[name])
    paint(frame, roi, rgb, rgb.copy(), SPACES[name])
    assert np.array_equal(frame.data, before)


@pytest.mark.parametrize("name", list(SPACES))
def test_what_is_painted_is_seen_again(name: str) -> None:
    frame = Frame(np.full((72, 64), 128, np.uint8))
    roi = Roi(8, 6, 40, 30)
    rgb = crop(frame, roi, SPACES[name])
    new = rgb.copy()
    new[4:20, 4:28] = (180, 90, 70)
    paint(frame, roi, rgb, new, SPACES[name])
    again = crop(frame, roi, SPACES[name])
    assert np.abs(again[6:18, 6:26].astype(int) - (180, 90, 70)).max() <= 2
    assert np.abs(again[:2].astype(int) - rgb[:2]).max() == 0


@pytest.mark.parametrize(("height", "matrix"), [(480, 6), (720, 1)])
def test_unsaid_colours_are_guessed_by_height_as_players_do(height: int, matrix: int) -> None:
    assert np.array_equal(Colour().to_rgb(height), Colour(matrix=matrix).to_rgb(height))


@pytest.mark.parametrize(
    ("yuv", "rgb"), [((16, 128, 128), (0, 0, 0)), ((235, 128, 128), (255, 255, 255)), ((63, 102, 240), (255, 0, 0))]
)
def test_known_colours_of_bt709(yuv: tuple[int, ...], rgb: tuple[int, ...]) -> None:
    """Rec. ITU-R BT.709-6, item 3.4: black, white, and full red in 8 bits."""
    seen = Colour(1, 1, 1, 1).to_rgb(720) @ (*yuv, 1)
    assert np.abs(seen - rgb).max() < 2


@given(st.tuples(*[st.integers(-20, 90)] * 4))
def test_even_rectangles_lie_on_whole_chroma_samples(corners: tuple[int, int, int, int]) -> None:
    roi = even(Roi(*corners), 64, 48)
    assert all(side % 2 == 0 for side in (roi.x0, roi.y0, roi.x1, roi.y1))
    assert 0 <= roi.x0 <= roi.x1 <= 64
    assert 0 <= roi.y0 <= roi.y1 <= 48


def test_a_small_picture_of_a_frame_leaves_the_frame_alone() -> None:
    frame = noise()
    before = frame.data.copy()
    assert small(frame, 32, SPACES["709"]).shape == (24, 32, 3)
    assert small(frame, 999, SPACES["709"]).shape == (48, 64, 3)
    assert np.array_equal(frame.data, before)
