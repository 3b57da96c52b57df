"""Rows and summary of an evaluation, with a judge whose answers are known."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.evaluation import evaluate
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.judge import Judge
from nanoswap.pipelines.mesh import MeshEngine
from tests.clips import portrait
from tests.serve.conftest import jpeg

MESH = MeshEngine()


def by_hue(rgb: Rgb, faces: Sequence[Face]) -> tuple[Face, ...]:
    """An encoder for which people are the colour in the picture's upper left corner: 0 red, 1 green."""
    identity = np.zeros(512, np.float32)
    identity[int(rgb[:4, :4].mean((0, 1)).argmax())] = 1
    return tuple(replace(face, embedding=identity.copy()) for face in faces)


def marked(name: str, channel: int) -> bytes:
    rgb = portrait(name).copy()
    rgb[:40, :40] = 0
    rgb[:40, :40, channel] = 255
    return jpeg(rgb)


def test_identity_is_told_from_the_result_against_every_source() -> None:
    judge = Judge(find=MESH.detect, identify=by_hue)
    sources = {"red": marked("astronaut", 0), "green": marked("hopper", 1)}
    # The corner of a result is its target's, so a red target looks like the red source whoever was swapped in.
    report = evaluate(MESH, judge, sources, {"red target": marked("hopper", 0)}, {})
    rows = {row.source: row for row in report.rows}
    assert (rows["red"].identity, rows["red"].nearest) == (1, "red")
    assert (rows["green"].identity, rows["green"].nearest) == (0, "red")
    assert rows["green"].target_identity == 1
    assert report.summary["top1"] == 0.5
    assert report.summary["identity"] == 0.5
    assert report.summary["frechet"] is None
    assert report.sheet.shape == (3 * 192, 2 * 192, 3)


def test_realism_compares_the_faces_before_and_after() -> None:
    def bright(crops: Sequence[Rgb]) -> np.ndarray:
        return np.array([[crop.mean(), crop.std()] for crop in crops], np.float64)

    judge = Judge(find=MESH.detect, features=bright)
    targets = {name: jpeg(portrait(name)) for name in ("astronaut", "hopper")}
    # A face on itself changes next to nothing, one on another something.
    report = evaluate(MESH, judge, {"astronaut": targets["astronaut"]}, targets, {})
    assert report.summary["frechet"] is not None
    assert report.summary["frechet"] > 0.1


def test_nothing_to_do_is_an_error() -> None:
    judge = Judge(find=MESH.detect)
    with pytest.raises(ValueError, match="at least one source"):
        evaluate(MESH, judge, {}, {"a": b""}, {})
    blank = jpeg(np.full((200, 200, 3), 90, np.uint8))
    with pytest.raises(ValueError, match="no face was found in the source blank"):
        evaluate(MESH, judge, {"blank": blank}, {"a": blank}, {})
