"""The picture of five points, against its description drawn in another way: each pixel asked whether it lies within."""

import numpy as np

from nanoswap.pipelines.keypoint_picture import keypoint_picture

COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)]
POINTS = np.array([(90.3, 110.8), (170.2, 104.5), (133.0, 150.1), (101.7, 196.4), (163.9, 190.6)], np.float32)


def described(points: np.ndarray, size: int) -> np.ndarray:
    y, x = np.mgrid[:size, :size].astype(float)
    picture = np.zeros((size, size, 3))
    for start in (0, 1, 3, 4):
        (x0, y0), (x1, y1) = points[start].astype(float), points[2].astype(float)
        along = np.array([x1 - x0, y1 - y0])
        half = np.hypot(*along) / 2
        along /= np.hypot(*along)
        dx, dy = x - (x0 + x1) / 2, y - (y0 + y1) / 2
        inside = ((dx * along[0] + dy * along[1]) / half) ** 2 + ((dy * along[0] - dx * along[1]) / 4) ** 2 <= 1
        picture[inside] = np.array(COLOURS[start]) * 0.6
    for (px, py), colour in zip(points, COLOURS, strict=True):
        picture[(x - px) ** 2 + (y - py) ** 2 <= 10**2] = colour
    return picture.astype(np.uint8)


def test_lines_and_points_are_as_described() -> None:
    ours, expected = keypoint_picture(POINTS, 256), described(POINTS, 256)
    # Edges differ by a pixel: whole numbers there, none here. Drawn by Pillow it was 0.48 % (reference).
    assert (ours != expected).any(2).mean() < 0.015
    inner = (expected != 0).any(2)
    assert (ours != expected).any(2)[inner].mean() < 0.2
    for point, colour in zip(POINTS, COLOURS, strict=True):
        x, y = point.astype(int)
        assert tuple(ours[y, x]) == colour


def test_lines_are_dimmed_and_lie_under_the_points() -> None:
    ours = keypoint_picture(POINTS, 256)
    assert set(map(tuple, ours.reshape(-1, 3))) == {
        (0, 0, 0), *COLOURS, (153, 0, 0), (0, 153, 0), (153, 153, 0), (153, 0, 153)
    }  # fmt: skip


def test_points_may_lie_outside_or_on_each_other() -> None:
    assert not keypoint_picture(POINTS + 1000, 256).any()
    assert keypoint_picture(np.full((5, 2), 20, np.float32), 64).any()


def test_mirrored_points_make_the_mirrored_picture() -> None:
    mirrored = POINTS[[1, 0, 2, 4, 3]] * (-1, 1) + (255, 0)
    ours = keypoint_picture(mirrored.astype(np.float32), 256)[:, ::-1]
    expected = keypoint_picture(POINTS, 256)
    swap = {0: 1, 1: 0, 2: 2, 3: 4, 4: 3}
    table = {COLOURS[a]: COLOURS[b] for a, b in swap.items()}
    table |= {tuple(int(c * 0.6) for c in k): tuple(int(c * 0.6) for c in v) for k, v in list(table.items())}
    renamed = np.array([table.get(tuple(p), (0, 0, 0)) for p in ours.reshape(-1, 3)], np.uint8).reshape(ours.shape)
    assert (renamed != expected).any(2).mean() < 0.015
