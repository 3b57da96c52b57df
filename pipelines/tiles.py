"""More pixels out of a network than it has: a finer crop is dealt out into several of the network's own size.

Tile (i, j) holds every k-th pixel of every k-th row, beginning at (i, j): each is the whole face, shifted by a part of
a pixel, and so something that the network has been trained for, which a cut-out quarter of a face is not. (Known in
the field as pixel boost; FaceFusion, `processors/pixel_boost.py`.) All tiles of a face go into one forward.
"""

from __future__ import annotations

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.swap_net import Crops


def split(crop: Rgb, k: int) -> Crops:
    """uint8 (k S, k S, 3) to uint8 (k k, S, S, 3), a new array. Raises `ValueError` for a side that is no multiple
    of `k`."""
    side = crop.shape[0] // k
    if crop.shape != (side * k, side * k, 3):
        raise ValueError(f"a crop of {crop.shape[1]} x {crop.shape[0]} px has no {k} x {k} tiles")
    return crop.reshape(side, k, side, k, 3).transpose(1, 3, 0, 2, 4).copy().reshape(-1, side, side, 3)


def join(tiles: Crops) -> Rgb:
    """The inverse of `split`, a new array. Raises `ValueError` when the number of tiles is no square."""
    count, side = tiles.shape[:2]
    k = round(count**0.5)
    if k * k != count or not k:
        raise ValueError(f"{count} tiles make no square")
    whole = tiles.reshape(k, k, side, side, 3).transpose(2, 0, 3, 1, 4)
    return whole.copy().reshape(side * k, side * k, 3)


def factor(reach: float, size: int, most: int) -> int:
    """Tiles along one side for a crop that covers `reach` px of its picture: the least power of two, up to `most`,
    that gives the face at least the pixels that it has there."""
    k = 1
    while k * 2 <= most and size * k * 1.25 < reach:
        k *= 2
    return k
