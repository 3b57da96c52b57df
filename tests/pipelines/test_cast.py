"""Who is who: true places on known motion, through crossings, cuts, absences; nobody painted who was not chosen."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from av.video.frame import VideoFrame

from nanoswap.pipelines.cast import Cast, Choose
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.flow import Seen
from nanoswap.pipelines.frame import Frame
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.swap_clip import CHUNK
from nanoswap.pipelines.yuv import Colour, small
from tests.clips import Actor, Scene, line_path, sway
from tests.corpus import CORPUS, CROSSING

ENGINE = MeshEngine()
RATE = 24.0


def frames(scene: Scene, count: int) -> list[Frame]:
    made = []
    for index in range(count):
        rgb = VideoFrame.from_ndarray(scene.frame(index, index / RATE), format="rgb24")
        planes = rgb.reformat(format="yuv420p", dst_colorspace=1).to_ndarray()
        made.append(Frame(np.ascontiguousarray(planes), index))
    return made


def detect(frame: Frame, close: bool) -> tuple[Face, ...]:
    return ENGINE.detect(small(frame, 9999, Colour(1, 1, 1, 1)))


def followed(cast: Cast, clip: Sequence[Frame], cuts: Sequence[int] = ()) -> list[tuple[Face, ...]]:
    """The chosen faces of every frame, given in chunks that end at cuts."""
    edges = sorted({*range(0, len(clip), CHUNK), *cuts, len(clip)})
    found: list[tuple[Face, ...]] = []
    for start, end in pairwise(edges):
        found += cast.chunk(clip[start:end], start in (0, *cuts))
    return found


def error(face: Face, actor: Actor, index: int) -> float:
    """Distance of the pupils from the truth, as a share of the distance between them."""
    truth = actor.pupils(index / RATE)
    assert truth is not None
    return float(np.linalg.norm(face.points[:2] - truth, axis=1).mean() / np.hypot(*(truth[1] - truth[0])))


@pytest.mark.parametrize("choose", ["all", "largest"])
def test_a_moving_face_is_followed_without_trembling(choose: Choose) -> None:
    actor = Actor("hopper", sway(240, 130, 56))
    found = followed(Cast(choose, detect), frames(Scene([actor]), 48))
    assert all(len(here) == 1 for here in found)
    assert max(error(here[0], actor, index) for index, here in enumerate(found)) < 0.12
    # What is left when the true motion is taken off: constant but for the tremble.
    off = np.array([here[0].points[:2] - actor.pupils(index / RATE) for index, here in enumerate(found)])
    tremble = off[1:-1] - (off[:-2] + off[1:-1] + off[2:]) / 3
    assert np.sqrt((tremble**2).mean()) / 56 < 0.006


def test_somebody_who_walks_in_is_there_from_the_first_frame() -> None:
    actor = Actor("hopper", line_path((-40, 130), (300, 130), 1.2, 48))
    found = followed(Cast("all", detect), frames(Scene([actor]), 40))
    first = next(index for index in range(40) if actor.pupils(index / RATE)[:, 0].min() > 35)  # type: ignore[index]
    assert all(found[index] for index in range(first + 2, 40))


def test_the_chosen_one_of_two_who_cross() -> None:
    clip = frames(CROSSING.scene, CROSSING.frames)
    for which, actor in enumerate(CROSSING.scene.actors):
        cast, faces = Cast("known", detect), detect(clip[0], True)
        cast.introduce(clip[0], faces, [min(faces, key=lambda face: error(face, actor, 0))])
        found = followed(cast, clip)
        there = [index for index in range(len(clip)) if found[index]]
        assert all(len(found[index]) == 1 for index in there)
        assert max(error(found[index][0], actor, index) for index in there) < 0.25, "somebody else was taken for them"
        # Who passes in front is never lost; who is hidden is missed only while they are.
        assert len(clip) - len(there) <= (20, 2)[which]


def test_known_again_after_a_cut_and_after_an_absence() -> None:
    recipe = CORPUS["face leaving"]
    (actor,) = recipe.scene.actors
    clip = frames(recipe.scene, recipe.frames)
    cast, faces = Cast("known", detect), detect(clip[0], True)
    cast.introduce(clip[0], faces, faces)
    found = followed(cast, clip)
    away = [index for index in range(recipe.frames) if actor.pupils(index / RATE) is None]
    assert away
    assert not any(found[index] for index in away)
    assert found[-3], "somebody who came back was not known"
    cut = Scene([Actor("hopper", lambda t: (160, 130, 50, 0) if t < 1 else (330, 140, 60, 5))], cuts=(1.0,))
    clip = frames(cut, 44)
    cast, faces = Cast("known", detect), detect(clip[0], True)
    cast.introduce(clip[0], faces, faces)
    found = followed(cast, clip, cuts=(24,))
    assert all(found)
    assert max(error(here[0], cut.actors[0], index) for index, here in enumerate(found)) < 0.2


def test_of_two_in_one_place_the_one_who_looks_less_like_themselves_is_behind() -> None:
    def pose(x: float) -> np.ndarray:
        return np.array([[40.0, 0, x], [0, 40.0, 100]])

    front = [Seen(pose(200 - 10 * step), 0.9) for step in range(10)]
    back = [Seen(pose(100 + 10 * step), 0.7) for step in range(10)]
    paths: dict[int, list[Seen | None]] = {1: list(back), 2: list(front)}
    Cast("all", detect)._hide(paths)
    assert paths[2] == front
    lost = paths[1].index(None)
    assert 0 < lost < 6
    assert paths[1] == [*back[:lost], *[None] * (10 - lost)]


def test_nobody_is_found_where_nobody_is() -> None:
    assert not any(followed(Cast("all", detect), frames(Scene([]), 20)))


def test_forgetting_overwrites() -> None:
    cast, clip = Cast("all", detect), frames(Scene([Actor("hopper", sway(240, 130, 56))]), 10)
    followed(cast, clip)
    (person,) = cast._people
    last = cast._last
    cast.wipe()
    assert last is not None
    assert not person.points.any()
    assert not person.look.any()
    assert not last.any()
