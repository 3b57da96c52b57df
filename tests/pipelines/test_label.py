"""The visible label: readable on any ground at any size, in its corner and nowhere else."""

import io

import av
import numpy as np
import pytest

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip import ClipLimits
from nanoswap.pipelines.frame import Frame
from nanoswap.pipelines.image import ImageLimits, decode, encode
from nanoswap.pipelines.label import Label
from nanoswap.pipelines.mark import Marks
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.pipelines.swap import SwapOptions, swap_image
from nanoswap.pipelines.swap_clip import ClipOptions, open_swap
from nanoswap.pipelines.yuv import Colour
from tests.clips import Recipe, make, portrait
from tests.corpus import SCENE

SIZES = [(4032, 3024), (1920, 1088), (1088, 1920), (640, 360), (128, 96), (64, 64), (33, 31), (3000, 40)]


def luminance(grey: float) -> float:
    """Relative luminance of WCAG 2.2, of an sRGB grey."""
    value = grey / 255
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_plate_is_whole_readable_and_in_its_corner(width: int, height: int) -> None:
    label = Label.of(width, height)
    roi = label.at
    assert 0 < roi.x0 < roi.x1 <= width
    assert 0 < roi.y0 < roi.y1 <= height
    assert label.grey.shape == (roi.height, roi.width)
    assert roi.x0 > width - 2 * roi.width
    assert roi.y0 > height - 2 * roi.height
    assert not [side for side in (roi.x0, roi.y0, roi.x1, roi.y1) if side % 2]
    dark, light = (luminance(float(value)) for value in (label.grey.min(), label.grey.max()))
    assert (light + 0.05) / (dark + 0.05) > 14
    # The letters: as high as can be read, a share of the picture, and nowhere at the plate's edge.
    rows, columns = (np.flatnonzero((label.grey > 128).any(axis)) for axis in (1, 0))
    assert len(rows) >= 8
    assert rows[-1] - rows[0] + 1 >= 0.02 * min(width, height)
    assert min(rows[0], columns[0], roi.height - 1 - rows[-1], roi.width - 1 - columns[-1]) >= 2


def test_narrow_picture_says_the_short_word_and_a_speck_nothing() -> None:
    assert 0 < Label.of(64, 64).grey.shape[1] * 3 < Label.of(640, 64).grey.shape[1]
    speck = Label.of(12, 12)
    assert speck.at.empty
    pixels = np.full((12, 12, 3), 77, np.uint8)
    speck.draw(pixels)
    frame = Frame(np.full((18, 12), 77, np.uint8))
    speck.on_frames(Colour()).draw(frame)
    assert set(pixels.ravel()) | set(frame.data.ravel()) == {77}


@pytest.mark.parametrize(("code", "low", "high"), [(0, 16, 235), (1, 16, 235), (2, 0, 255)])
def test_frame_has_the_same_greys_in_its_own_range_and_no_colour(code: int, low: int, high: int) -> None:
    label = Label.of(320, 180)
    frame = Frame(np.full((270, 320), 99, np.uint8))
    label.on_frames(Colour(range=code)).draw(frame)
    there = frame.y[label.at.slices]
    assert np.abs((there.astype(float) - low) / (high - low) - label.grey / 255).max() < 0.003
    half = slice(label.at.y0 // 2, label.at.y1 // 2), slice(label.at.x0 // 2, label.at.x1 // 2)
    for plane, part, plate in ((frame.y, label.at.slices, None), (frame.u, half, 128), (frame.v, half, 128)):
        if plate is not None:
            assert (plane[part] == plate).all()
        plane[part] = 99
        assert (plane == 99).all()


def swapped(label: bool) -> np.ndarray:
    files = [bytes(encode(portrait(name), "jpeg", 90)) for name in ("astronaut", "hopper")]
    made = swap_image(
        MeshEngine(), *files, SwapOptions(format="png"), ImageLimits(), cancel=CancelToken(), report=lambda *_: None,
        marks=Marks(label=label), gate=None,
    )  # fmt: skip
    return decode(made.data, ImageLimits())


def test_picture_has_it_when_it_is_on_and_is_the_same_elsewhere() -> None:
    plain, labelled = swapped(False), swapped(True)
    label = Label.of(plain.shape[1], plain.shape[0])
    assert (labelled[label.at.slices] == label.grey[..., None]).all()
    labelled[label.at.slices] = plain[label.at.slices]
    assert np.array_equal(plain, labelled)


def test_every_frame_of_a_clip_has_it() -> None:
    clip = make(Recipe(SCENE, frames=24))
    job = open_swap(
        MeshEngine(), bytes(encode(portrait("astronaut"), "jpeg", 92)), clip, ClipOptions(), ClipLimits(),
        ImageLimits(), Encoder(preset="ultrafast"), cancel=CancelToken(), report=lambda *_: None,
        marks=Marks(label=True), gate=None,
    )  # fmt: skip
    data = b"".join(job)
    job.close()
    with av.open(io.BytesIO(data)) as container:
        frames = [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]
    assert len(frames) == 24
    label = Label.of(frames[0].shape[1], frames[0].shape[0] * 2 // 3)
    wanted = label.on_frames(Colour()).luma.astype(float)
    for data in frames:
        assert np.abs(Frame(data).y[label.at.slices] - wanted).mean() < 6
