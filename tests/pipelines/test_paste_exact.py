"""Ours against insightface's own paste-back, pixel by pixel, on one network that both run."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from insightface.model_zoo.inswapper import INSwapper

from nanoswap.pipelines.align import to_crop
from nanoswap.pipelines.paste_exact import paste_exact
from tests.bench.bench_paste import POINTS, stand_in


@pytest.fixture(scope="module")
def swapper(tmp_path_factory: pytest.TempPathFactory) -> INSwapper:
    path: Path = stand_in(tmp_path_factory.mktemp("net"))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return INSwapper(model_file=str(path), session=session)


def frame(width: int, height: int) -> np.ndarray:
    rng = np.random.default_rng(width)
    y, x = np.mgrid[:height, :width]
    soft = np.stack([x * 255 / width, y * 255 / height, (x + y) % 256], axis=2)
    return np.clip(soft + rng.normal(0, 12, soft.shape), 0, 255).astype(np.uint8)


def points(x: float, y: float, size: float, degrees: float) -> np.ndarray:
    """Five points of a face that fills `size` px around (x, y), leaning by `degrees`."""
    turn = np.deg2rad(degrees)
    rotation = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    return ((POINTS - 56) * size / 112 @ rotation.T + (x, y)).astype(np.float32)


pytestmark = pytest.mark.filterwarnings("ignore:.estimate. is deprecated:FutureWarning")

CASES = [
    (1280, 720, 640, 360, 324, 0),
    (1280, 720, 400, 300, 160, 25),
    (640, 360, 200, 200, 90, -70),
    (640, 360, 320, 180, 40, 10),
    (640, 360, 20, 40, 150, 5),  # half outside
    (640, 360, 620, 350, 200, 30),  # in the lower corner
    (320, 240, 160, 120, 500, 0),  # larger than the frame
]


@pytest.mark.parametrize(("width", "height", "x", "y", "size", "degrees"), CASES)
def test_pasted_as_insightface_pastes(
    swapper: INSwapper, width: int, height: int, x: float, y: float, size: float, degrees: float
) -> None:
    picture, five = frame(width, height), points(x, y, size, degrees)
    face = SimpleNamespace(kps=five)
    source = SimpleNamespace(normed_embedding=np.full(512, 512**-0.5, np.float32))
    # A crop that differs from the frame, or the mask could be anything.
    crop, theirs_matrix = swapper.get(picture, face, source, paste_back=False)
    crop = np.ascontiguousarray(255 - crop)
    swapper.forward = None
    swapper.session = SimpleNamespace(
        run=lambda *_: [(crop[None, :, :, ::-1].transpose(0, 3, 1, 2) + 0.5) / np.float32(255)]
    )
    theirs = swapper.get(picture, face, source, paste_back=True)

    ours = picture.copy()
    matrix = to_crop(five, 128)
    assert np.allclose(matrix, theirs_matrix, atol=1e-3)
    roi = paste_exact(ours, crop, matrix)
    apart = np.abs(ours.astype(int) - theirs.astype(int))
    assert apart.max() <= 1
    assert (ours != picture).any()
    outside = np.ones(ours.shape[:2], bool)
    outside[roi.slices] = False
    assert np.array_equal(ours[outside], picture[outside])


def test_face_outside_the_frame_changes_nothing() -> None:
    picture = frame(64, 48)
    before = picture.copy()
    assert paste_exact(picture, np.zeros((128, 128, 3), np.uint8), to_crop(points(-900, -900, 100, 0), 128)).empty
    assert np.array_equal(picture, before)
