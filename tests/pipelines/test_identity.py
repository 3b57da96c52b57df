"""What each adapter is shown of a face, and in which order its answers stand."""

import os
from typing import Any

import cv2
import numpy as np
import pytest

if os.environ.get("NANOSWAP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="torch isn't installed, and engines of diffusion are optional")

import torch

from nanoswap.pipelines.align import FFHQ, place, similarity
from nanoswap.pipelines.identity import Identity
from nanoswap.pipelines.mesh import MeshEngine
from tests.clips import portrait


class Pulid:
    """Keeps what it was shown."""

    def tokens(self, embedding: np.ndarray, face: np.ndarray, seen: np.ndarray) -> torch.Tensor:
        self.shown = embedding.copy(), face.copy(), seen.copy()
        self.held = face, seen
        return torch.full((1, 1, 3, 4), 2.0)

    def nothing(self) -> torch.Tensor:
        return torch.full((1, 1, 3, 4), -1.0)


class Resampler(torch.nn.Linear):
    """The sum of an identity, twice."""

    def __init__(self) -> None:
        super().__init__(512, 2, bias=False)
        torch.nn.init.ones_(self.weight)


@pytest.mark.parametrize("guided", [False, True])
def test_second_adapter_is_shown_the_aligned_face_and_answers_behind_nobody(guided: bool) -> None:
    rgb = portrait("hopper")
    face = MeshEngine().detect(rgb)[0]
    pulid, parsed = Pulid(), []

    def parser(crops: Any) -> Any:
        parsed.append(crops[0].copy())
        return [np.full(crops[0].shape[:2], 7, np.uint8)]

    identity = Identity(Resampler(), guided=guided, pulid=pulid, parser=parser)  # type: ignore[arg-type]
    embedding = np.linspace(0, 1, 512, dtype=np.float32)
    first, second = identity(embedding, rgb, face)
    total = pytest.approx(float(embedding.sum()), rel=1e-5)
    assert first[:, 0, 0, 0].tolist() == ([0.0, total] if guided else [total])
    assert second[:, 0, 0, 0].tolist() == ([-1.0, 2.0] if guided else [2.0])
    given, crop, seen = pulid.shown
    assert np.array_equal(given, embedding)
    assert crop.shape == (512, 512, 3)
    assert np.array_equal(crop, parsed[0])
    assert (seen == 7).all()
    # Where FFHQ has the eyes: what lies there in the picture.
    matrix = similarity(face.points, FFHQ)
    eyes = place(cv2.invertAffineTransform(matrix), FFHQ[:2]).round().astype(int)
    for (x, y), (u, v) in zip(eyes, FFHQ[:2].round().astype(int), strict=True):
        assert np.abs(crop[v, u].astype(int) - rgb[y, x]).max() < 25
    assert not any(each.any() for each in pulid.held)
    assert embedding.any()
    nobody = identity.nobody()
    assert [each.shape for each in nobody] == [first.shape, second.shape]
    assert (nobody[1] == -1).all()
