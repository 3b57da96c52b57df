"""Which faces go into one call of an engine."""

from dataclasses import dataclass

import numpy as np

from nanoswap.pipelines.engine import rounds
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.roi import Roi


@dataclass
class Box:
    """An engine of which only the footprint is asked: the box itself."""

    batch: int = 16

    def rinse(self) -> None:
        return None

    def footprint(self, face: Face) -> Roi:
        return Roi(*(int(value) for value in face.box))


def face(x: int, size: int = 40) -> Face:
    return Face(
        box=np.array([x, 0, x + size, size], np.float32), points=np.zeros((5, 2), np.float32), score=1, frame=(999, 99)
    )


def calls(*faces: tuple[int, Face], batch: int = 16) -> list[list[int]]:
    return rounds(Box(batch), faces)  # type: ignore[arg-type]


def test_faces_apart_go_together() -> None:
    assert calls((0, face(0)), (0, face(100)), (1, face(0))) == [[0, 1, 2]]
    assert calls() == []


def test_faces_that_meet_go_one_after_the_other_in_their_order() -> None:
    assert calls((0, face(0)), (0, face(30)), (0, face(60))) == [[0], [1], [2]]
    # The third doesn't meet the first, but the second, which has been put off, must come before it.
    assert calls((0, face(0)), (0, face(39)), (0, face(78)), (0, face(300))) == [[0, 3], [1], [2]]


def test_faces_of_different_pictures_never_meet() -> None:
    assert calls((0, face(0)), (1, face(10)), (0, face(20)), (1, face(300))) == [[0, 1, 3], [2]]


def test_no_call_is_larger_than_the_engine_likes() -> None:
    assert calls(*((index, face(0)) for index in range(5)), batch=2) == [[0, 1], [2, 3], [4]]
    assert calls((0, face(0)), (0, face(100)), batch=1) == [[0], [1]]
