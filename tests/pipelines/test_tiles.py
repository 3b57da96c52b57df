"""Fine crops dealt out into tiles and put together again."""

import numpy as np
import pytest

from nanoswap.pipelines.tiles import factor, join, split


@pytest.mark.parametrize("k", [1, 2, 4])
def test_join_undoes_split(k: int) -> None:
    crop = np.random.default_rng(k).integers(0, 256, (32 * k, 32 * k, 3), dtype=np.uint8)
    tiles = split(crop, k)
    assert tiles.shape == (k * k, 32, 32, 3)
    whole = join(tiles)
    assert np.array_equal(whole, crop)
    # Either is wiped without a loss to the other.
    assert not np.shares_memory(tiles, crop)
    assert not np.shares_memory(whole, tiles)


def test_every_tile_is_the_whole_face() -> None:
    across = np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 64, axis=0).repeat(3, axis=2)
    tiles = split(across, 2)
    assert np.array_equal(tiles[0, 0, :, 0], np.arange(0, 64, 2))
    assert np.array_equal(tiles[1, 0, :, 0], np.arange(1, 64, 2))


def test_what_makes_no_square_is_refused() -> None:
    with pytest.raises(ValueError, match="no 3 x 3 tiles"):
        split(np.zeros((128, 128, 3), np.uint8), 3)
    with pytest.raises(ValueError, match="3 tiles make no square"):
        join(np.zeros((3, 128, 128, 3), np.uint8))


@pytest.mark.parametrize(
    ("reach", "most", "k"), [(90, 4, 1), (150, 4, 1), (200, 4, 2), (400, 4, 4), (3000, 4, 4), (3000, 1, 1)]
)
def test_tiles_follow_the_size_of_the_face(reach: float, most: int, k: int) -> None:
    assert factor(reach, 128, most) == k
