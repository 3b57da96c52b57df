"""Pasting back: the same pixels as the full-frame way, and nothing outside."""

import cv2
import numpy as np
import pytest
from skimage import data

from nanoswap.pipelines.paste import covered, feather, paste

FRAME = np.ascontiguousarray(data.astronaut())
CROP = np.ascontiguousarray(np.random.default_rng(3).integers(0, 255, (128, 128, 3), dtype=np.uint8))
MASK = feather(128)


def matrix(angle: float = 0.0, scale: float = 1.0, x: float = 256.0, y: float = 256.0) -> np.ndarray:
    """Frame to crop: the crop's centre lies at (x, y) of the frame, turned and scaled."""
    turn = cv2.getRotationMatrix2D((x, y), angle, scale)
    turn[:, 2] += 64 - np.array([x, y])
    return turn


def full_frame(frame: np.ndarray, crop: np.ndarray, mask: np.ndarray, to_crop: np.ndarray) -> np.ndarray:
    """The reference: warp everything to the whole frame, blend in float64."""
    size = (frame.shape[1], frame.shape[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(crop, to_crop, size, flags=flags).astype(float)
    weight = cv2.warpAffine(mask, to_crop, size, flags=flags)[..., None] / 255
    return warped * weight + frame * (1 - weight)


@pytest.mark.parametrize("angle", [0, 17, 90, 180, -133])
@pytest.mark.parametrize("scale", [0.4, 1.0, 3.0])
def test_equals_the_full_frame_way(angle: float, scale: float) -> None:
    to_crop = matrix(angle, scale)
    frame = FRAME.copy()
    roi = paste(frame, CROP, MASK, to_crop)
    difference = np.abs(frame - full_frame(FRAME, CROP, MASK, to_crop))
    assert difference.max() <= 2
    outside = np.ones(frame.shape[:2], bool)
    outside[roi.slices] = False
    assert np.array_equal(frame[outside], FRAME[outside])
    assert np.abs(frame.astype(int) - FRAME).max() > 100, "nothing was pasted"


@pytest.mark.parametrize(("x", "y"), [(0, 0), (511, 30), (-20, 256), (256, 540)])
def test_crop_partly_outside(x: float, y: float) -> None:
    to_crop = matrix(20, 1.0, x, y)
    frame = FRAME.copy()
    paste(frame, CROP, MASK, to_crop)
    assert np.abs(frame - full_frame(FRAME, CROP, MASK, to_crop)).max() <= 2


@pytest.mark.parametrize(
    "to_crop", [matrix(0, 1.0, -500, 256), matrix(0, 1.0, 256, 5000), np.zeros((2, 3)), np.full((2, 3), 1e-9)]
)
def test_crop_outside_or_without_area_touches_nothing(to_crop: np.ndarray) -> None:
    frame = FRAME.copy()
    assert paste(frame, CROP, MASK, to_crop).empty
    assert np.array_equal(frame, FRAME)


def test_face_of_one_pixel() -> None:
    frame = FRAME.copy()
    roi = paste(frame, CROP, MASK, matrix(0, 128.0))
    assert roi.width <= 3
    assert roi.height <= 3


def test_works_on_a_view_of_a_larger_frame() -> None:
    frame = FRAME.copy()
    paste(frame[100:400, 100:400], CROP, MASK, matrix(0, 1.0, 150, 150))
    whole = FRAME.copy()
    paste(whole, CROP, MASK, matrix(0, 1.0, 250, 250))
    assert np.abs(frame.astype(int) - whole).max() <= 1


def test_feather_is_zero_at_the_edge_and_full_inside() -> None:
    assert not MASK[[0, -1]].any()
    assert not MASK[:, [0, -1]].any()
    assert MASK[64, 64] == 255
    assert covered(matrix(), (128, 128), (512, 512)).width in (129, 130)
