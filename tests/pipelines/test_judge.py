"""The measures by which swaps are judged, on things whose measure is known."""

import numpy as np
import pytest

from nanoswap.pipelines.face import Face
from nanoswap.pipelines.judge import Judge, expression_error, frechet, jitter, look, pose, pose_error
from nanoswap.pipelines.mesh import MeshEngine
from tests.clips import portrait

HEAD = np.array([(-32, -35, 25), (32, -35, 25), (0, 0, 0), (-25, 32, 20), (25, 32, 20)], np.float64)


def face(points: np.ndarray) -> Face:
    low, high = points.min(0), points.max(0)
    return Face(box=np.array([*low, *high], np.float32), points=points.astype(np.float32), score=1.0, frame=(640, 480))


def turned(yaw: float, pitch: float, roll: float) -> Face:
    """A general head, seen by a camera from 900 mm."""
    a, b, c = np.radians([pitch, yaw, roll])
    about_x = np.array([(1, 0, 0), (0, np.cos(a), -np.sin(a)), (0, np.sin(a), np.cos(a))])
    about_y = np.array([(np.cos(b), 0, np.sin(b)), (0, 1, 0), (-np.sin(b), 0, np.cos(b))])
    about_z = np.array([(np.cos(c), -np.sin(c), 0), (np.sin(c), np.cos(c), 0), (0, 0, 1)])
    seen = HEAD @ (about_z @ about_y @ about_x).T + (0, 0, 900)
    return face(seen[:, :2] / seen[:, 2:] * 640 + (320, 240))


@pytest.mark.parametrize("angles", [(0, 0, 0), (20, 0, 0), (0, -15, 0), (0, 0, 30), (25, 10, -12)])
def test_pose_of_a_head_that_was_turned(angles: tuple[float, float, float]) -> None:
    assert np.allclose(pose(turned(*angles)), angles, atol=1.0)


def test_face_is_no_error_against_itself_and_some_against_another() -> None:
    judge = Judge(find=MeshEngine().detect)
    one, other = (look(judge, portrait(name)) for name in ("astronaut", "hopper"))
    assert one is not None
    assert other is not None
    assert (pose_error(one, one), expression_error(one, one)) == (0, 0)
    assert pose_error(one, other) > 1
    assert expression_error(one, other) > 1


def test_angles_are_compared_around_the_circle() -> None:
    judge = Judge(find=lambda rgb: (face(HEAD[:, :2] + 200),))
    seen = look(judge, np.zeros((480, 640, 3), np.uint8))
    assert seen is not None
    a, b = (type(seen)(seen.face, None, (0.0, 0.0, roll), seen.shape, seen.crop) for roll in (179.0, -179.0))
    assert pose_error(a, b) == pytest.approx(2)


def test_expression_does_not_see_size_place_or_tilt() -> None:
    def judged(points: np.ndarray) -> Judge:
        return Judge(find=lambda rgb: (face(points),))

    turn = np.radians(25)
    rotation = np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
    rgb = np.zeros((480, 640, 3), np.uint8)
    plain = look(judged(HEAD[:, :2] + 200), rgb)
    moved = look(judged(HEAD[:, :2] @ rotation.T * 1.7 + (300, 220)), rgb)
    smile = HEAD[:, :2].copy()
    smile[3:] += ((-6, -5), (6, -5))
    smiling = look(judged(smile + 200), rgb)
    assert plain is not None
    assert moved is not None
    assert smiling is not None
    assert expression_error(plain, moved) < 0.01
    assert expression_error(plain, smiling) > 2


def test_jitter_is_what_was_added_and_not_what_the_clip_does() -> None:
    rng = np.random.default_rng(0)
    path = [face(HEAD[:, :2] + (200 + 3 * t, 200 + 20 * np.sin(t))) for t in range(40)]
    shifted = [face(one.points + np.array([4, 2])) for one in path]
    trembling = [face(one.points + rng.normal(0, 0.64, (5, 2))) for one in path]
    assert jitter(path, shifted) == pytest.approx(0, abs=1e-3)
    # 1 % of 64 px in x and y: the second difference is sqrt(6) of it, its mean length sqrt(pi / 2) of that.
    assert jitter(path, trembling) == pytest.approx(np.sqrt(6) * np.sqrt(np.pi / 2), rel=0.1)
    assert jitter(path[:2], shifted[:2]) is None
    assert jitter([*path[:2], None, *path[3:5]], shifted[:5]) is None


def test_frechet_distance_of_known_clouds() -> None:
    rng = np.random.default_rng(1)
    a = rng.normal(0, 1, (4000, 3))
    assert frechet(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet(a, a + 2) == pytest.approx(12, rel=1e-3)
    # Twice the spread: (2 - 1)² for each of three axes.
    assert frechet(a, a * 2) == pytest.approx(3 + (a.mean(0) ** 2).sum(), rel=0.05)
    with pytest.raises(ValueError, match="two samples"):
        frechet(a[:1], a)
