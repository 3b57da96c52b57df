"""Clips by networks, on stand-in files: frames share forwards, and who was chosen is known by their face."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip import ClipLimits
from nanoswap.pipelines.engine import Engine
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.image import ImageLimits
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.pipelines.swap_clip import ClipOptions, open_swap
from tests.clips import Actor, Recipe, Scene, make, portrait, read, sway
from tests.corpus import CROSSING
from tests.pipelines.test_neural import counted, engine
from tests.serve.conftest import jpeg

__all__ = ["counted"]

SWAY = Recipe(Scene([Actor("hopper", sway(240, 135, 50))]), frames=40)


def made(ours: Engine, clip: bytes, options: ClipOptions) -> list[np.ndarray]:
    job = open_swap(
        ours, jpeg(portrait("astronaut")), clip, options, ClipLimits(), ImageLimits(), Encoder(),
        gate=None, cancel=CancelToken(), report=lambda *_: None,
    )  # fmt: skip
    try:
        return read(b"".join(job)).frames
    finally:
        job.close()


def change(before: np.ndarray, after: np.ndarray, actor: Actor, seconds: float) -> float:
    """Mean change in levels between an actor's eyes and mouth."""
    pupils = actor.pupils(seconds)
    assert pupils is not None
    x, y = pupils.mean(0)
    unit = float(np.hypot(*(pupils[1] - pupils[0])))
    area = np.s_[int(y) : int(y + unit), int(x - unit / 2) : int(x + unit / 2)]
    return float(np.abs(before[area].astype(int) - after[area]).mean())


def test_frames_share_forwards_and_nobody_is_recognised_in_vain(models: Path, counted: Counter[str]) -> None:
    ours = engine(models)
    clip = make(SWAY)
    before = read(clip).frames
    counted.clear()
    after = made(ours, clip, ClipOptions(faces="all"))
    assert len(after) == 40
    for index, (old, new) in enumerate(zip(before, after, strict=True)):
        assert change(old, new, SWAY.scene.actors[0], index / 24) > 8, index
    # Forty frames in chunks of ten; one identity, the source's; a look at the start, one to begin, one per chunk.
    assert counted["output"] == 4
    assert counted["683"] == 1
    assert counted["out1_8"] <= 8


def test_chosen_person_is_known_again_behind_the_other(models: Path, counted: Counter[str]) -> None:
    ours = engine(models)
    clip = make(CROSSING)
    seen = read(clip)
    hopper, astronaut = CROSSING.scene.actors
    faces = ours.detect(seen.frames[0])
    pupils = hopper.pupils(0.0)
    assert pupils is not None
    (chosen,) = [face for face in faces if np.abs(face.points[:2] - pupils).max() < 12]
    counted.clear()
    after = made(ours, clip, ClipOptions(faces=(chosen.id,)))
    assert counted["683"] > 2
    changed = [
        (change(old, new, hopper, at), change(old, new, astronaut, at))
        for old, new, at in zip(seen.frames, after, seen.pts, strict=True)
    ]
    apart = [
        index
        for index, at in enumerate(seen.pts)
        if np.abs(hopper.pupils(float(at)).mean(0) - astronaut.pupils(float(at)).mean(0))[0] > 110  # type: ignore[union-attr]
    ]
    assert apart[0] == 0
    assert apart[-1] == len(after) - 1
    wrong = {index: changed[index] for index in apart if not changed[index][0] > 8 > 5 > changed[index][1]}
    assert wrong == {}


@pytest.mark.parametrize("faces", ["all", "largest"])
def test_two_people_are_told_apart_where_it_matters(models: Path, faces: str) -> None:
    ours = engine(models)
    clip = make(Recipe(Scene([Actor("hopper", sway(130, 135, 50)), Actor("astronaut", sway(350, 135, 40))]), frames=24))
    seen = read(clip)
    hopper, astronaut = Actor("hopper", sway(130, 135, 50)), Actor("astronaut", sway(350, 135, 40))
    after = made(ours, clip, ClipOptions(faces=faces))  # type: ignore[arg-type]
    for old, new, at in zip(seen.frames, after, seen.pts, strict=True):
        assert change(old, new, hopper, float(at)) > 8
        assert (change(old, new, astronaut, float(at)) > 8) == (faces == "all")


def test_nothing_that_tells_people_apart_is_left(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = engine(models)
    given: list[np.ndarray] = []
    recognise = ours.recognise

    def kept(rgb: np.ndarray, faces: tuple[Face, ...]) -> tuple[Face, ...]:
        known = recognise(rgb, faces)
        given.extend(face.embedding for face in known if face.embedding is not None)
        return known

    monkeypatch.setattr(ours, "recognise", kept)
    clip = make(CROSSING)
    faces = ours.detect(read(clip).frames[0])
    made(ours, clip, ClipOptions(faces=(faces[0].id,)))
    assert len(given) > 4
    assert not any(embedding.any() for embedding in given)
