"""What is painted of a crop, and in which tone."""

import numpy as np
import pytest

from nanoswap.pipelines import tone
from nanoswap.pipelines.masks import region, soft_box

TURN = np.linspace(0, 2 * np.pi, 60)
OVAL = np.c_[64 + 30 * np.cos(TURN), 64 + 40 * np.sin(TURN)].astype(np.float32)


def test_box_is_made_once_and_can_not_be_changed() -> None:
    assert soft_box(128) is soft_box(128)
    with pytest.raises(ValueError, match="read-only"):
        soft_box(128)[0, 0] = 1


def test_region_holds_every_landmark_and_not_the_crop() -> None:
    mask = region(OVAL, 128)
    inside = np.rint(OVAL).astype(int)
    assert mask[inside[:, 1], inside[:, 0]].min() > 127
    assert mask[64, 64] == 255
    assert mask[[0, 0, -1, -1], [0, -1, 0, -1]].max() == 0
    # Brows are not where a face ends: it goes on above them, not below the chin.
    assert mask[64 - 40 - 8, 64] > mask[64 + 40 + 8, 64]


def test_region_beyond_the_crop_is_cut_off() -> None:
    assert region(OVAL - 64, 128)[:20, :20].min() > 200
    assert region(OVAL + 1000, 128).max() == 0


def test_tone_is_brought_to_the_face_below() -> None:
    rng = np.random.default_rng(0)
    like = np.clip(rng.normal((180, 120, 90), 12, (64, 64, 3)), 0, 255).astype(np.uint8)
    crop = np.clip(rng.normal((90, 130, 160), 14, (64, 64, 3)), 0, 255).astype(np.uint8)
    mask = np.full((64, 64), 255, np.uint8)
    tone.match(crop, like, mask)
    assert np.abs(crop.mean((0, 1)) - like.mean((0, 1))).max() < 1
    assert np.abs(crop.std((0, 1)) - like.std((0, 1))).max() < 1


def test_spread_is_changed_by_a_third_at_most() -> None:
    rng = np.random.default_rng(1)
    like = np.clip(rng.normal(128, 2, (64, 64, 3)), 0, 255).astype(np.uint8)
    crop = np.clip(rng.normal(128, 30, (64, 64, 3)), 0, 255).astype(np.uint8)
    before = crop.std()
    tone.match(crop, like, np.full((64, 64), 255, np.uint8))
    assert crop.std() == pytest.approx(before * 0.75, rel=0.05)


def test_tone_of_almost_nothing_is_left_alone() -> None:
    crop, like = np.full((8, 8, 3), 50, np.uint8), np.full((8, 8, 3), 200, np.uint8)
    tone.match(crop, like, np.zeros((8, 8), np.uint8))
    assert (crop == 50).all()
