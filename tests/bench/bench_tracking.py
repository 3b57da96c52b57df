"""How still a face is held, and whether it stays the same person's: against the known motion of made clips.

Steadiness: 720p, 120 frames, one face of 120 px between the pupils that sways, nears and tilts by a known motion,
with sensor noise, after one H.264 encoding. Deviation is what is left of the landmarks that the engine is given
when the true motion of the portrait is taken off, in % of the distance between the pupils, root of the mean square
over landmarks and frames: *total* from its own mean over the clip, *jitter* from its own moving average over nine
frames. *Gross* are frames off by more than 20 %. *Warp error* is the mean of |I(t) - I(t-1) moved by the true
motion| of luma inside the face, in 8-bit levels, before the result is encoded. The rival is detection in every
frame at full size, without tracking; the bound is the tracked face's mean shape on the true motion, which leaves
only what the engine itself makes of each frame.

Who is who: dropouts are frames in which the face is in full view and nobody was found there, mix-ups are faces
found where the chosen person is not.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import cv2
import numpy as np

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.cast import Cast
from nanoswap.pipelines.clip_still import Detector
from nanoswap.pipelines.engine import Source
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.frame import Frame, FramePool
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.reader import Reader
from nanoswap.pipelines.shape import HULL, frame_of
from nanoswap.pipelines.swap_clip import _paint, _tracked
from nanoswap.pipelines.yuv import Colour
from tests.clips import Actor, Recipe, Scene, line_path, make, portrait, sway
from tests.corpus import CROSSING

RATE = Fraction(30)
FRAMES = 120
AVERAGE_OVER = 9
ENGINE = MeshEngine()
Faces = list[tuple[Face, ...]]


@dataclass(frozen=True)
class Clip:
    """Decoded, and where everybody truly is."""

    actors: Sequence[Actor]
    frames: list[Frame]
    colour: Colour
    rate: Fraction

    @staticmethod
    def of(recipe: Recipe) -> "Clip":
        reader = Reader(make(recipe), CancelToken())
        frames = list(reader.frames(FramePool(reader.shape.width, reader.shape.height, recipe.frames)))
        return Clip(recipe.scene.actors, frames, reader.shape.colour, recipe.rate)

    def detector(self) -> Detector:
        return Detector(ENGINE, self.colour, identify=False)

    def truth(self, actor: Actor, index: int) -> np.ndarray | None:
        """float64 (2, 3): the face's own frame (pupils at ±0.5) to pixels; None where the actor is not there."""
        eyes = actor.pupils(float(index / self.rate))
        return None if eyes is None else frame_of(*eyes)

    def copy(self) -> "Clip":
        return Clip(self.actors, [Frame(f.data.copy(), f.pts) for f in self.frames], self.colour, self.rate)


def moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def tracked(clip: Clip, cast: Cast) -> Faces:
    chunks = _tracked(iter(clip.frames), cast, CancelToken(), lambda: None)  # type: ignore[arg-type]
    return [faces for _, chunk in chunks for faces in chunk]


def in_every_frame(clip: Clip) -> Faces:
    detect = clip.detector()
    return [detect(frame, True)[:1] for frame in clip.frames]


def deviations(clip: Clip, faces: Faces) -> tuple[float, float, int]:
    """Jitter and total deviation in % of the distance between the pupils, and the gross failures."""
    own, gross = [], 0
    for index, here in enumerate(faces):
        truth = clip.truth(clip.actors[0], index)
        assert truth is not None
        if not here or here[0].landmarks is None:
            gross += 1
            continue
        points = moved(cv2.invertAffineTransform(truth), here[0].landmarks)
        gross += bool(np.linalg.norm(points[:2] - ((-0.5, 0), (0.5, 0)), axis=1).max() > 0.2)
        own.append(points)
    left = np.array(own)
    half = AVERAGE_OVER // 2
    slow = np.array([left[i - half : i + half + 1].mean(0) for i in range(half, len(left) - half)])
    return 100 * spread(left[half:-half] - slow), 100 * spread(left - left.mean(0)), gross


def spread(off: np.ndarray) -> float:
    """Root of the mean square length of (…, 2)."""
    return float(np.sqrt((off**2).sum(-1).mean()))


def warp_error(clip: Clip) -> float:
    """Luma inside the face, against the frame before moved by the true motion."""
    errors = []
    for index in range(1, len(clip.frames)):
        before, now = clip.truth(clip.actors[0], index - 1), clip.truth(clip.actors[0], index)
        assert before is not None
        assert now is not None
        motion = (np.vstack([now, [0, 0, 1]]) @ np.linalg.inv(np.vstack([before, [0, 0, 1]])))[:2]
        y0, y1 = clip.frames[index - 1].y, clip.frames[index].y
        warped = cv2.warpAffine(y0, motion, y0.shape[::-1], flags=cv2.INTER_CUBIC)
        mask = np.zeros(y0.shape, np.uint8)
        cv2.fillPoly(mask, [np.rint(moved(now, HULL * (0.9, 0.9) + (0, 0.05))).astype(np.int32)], 255)
        errors.append(cv2.absdiff(warped, y1)[mask > 0].mean())
    return float(np.mean(errors))


def painted(clip: Clip, faces: Faces, source: Source) -> Clip:
    result = clip.copy()
    for frame, here in zip(result.frames, faces, strict=True):
        for face in here:
            _paint(frame, face, ENGINE, source, clip.colour)
    return result


def on_true_motion(clip: Clip, faces: Faces) -> Faces:
    """One face a frame, of the mean shape of `faces`, in its true place."""
    truths = [clip.truth(clip.actors[0], index) for index in range(len(faces))]
    places = [cv2.invertAffineTransform(truth) for truth in truths if truth is not None]
    marks = [np.vstack([here[0].points, here[0].landmarks]) for here in faces if here[0].landmarks is not None]
    shape = np.mean([moved(back, points) for back, points in zip(places, marks, strict=True)], 0)
    result: Faces = []
    for truth, here in zip(truths, faces, strict=True):
        assert truth is not None
        points = moved(truth, shape).astype(np.float32)
        result.append((replace(here[0], points=points[:5], landmarks=points[5:]),))
    return result


def steadiness() -> None:
    clip = Clip.of(Recipe(Scene([Actor("astronaut", sway(640, 330, 120))], 1280, 720), frames=FRAMES, rate=RATE))
    giver = portrait("hopper")
    source = ENGINE.prepare(giver, ENGINE.detect(giver)[0])
    floor = warp_error(clip)
    print(f"{'':<26}{'jitter %':>9}{'total %':>9}{'gross':>7}{'warp error':>12}{'of source':>11}{'CPU ms':>8}")
    print(f"{'the source clip':<26}{'':>9}{'':>9}{'':>7}{floor:>12.2f}{1:>10.2f}x")
    ways: dict[str, Callable[[], Faces]] = {
        "detection in every frame": lambda: in_every_frame(clip),
        "tracked": lambda: tracked(clip, Cast("largest", clip.detector())),
    }
    faces: Faces = []
    for name, way in ways.items():
        started = time.process_time()
        faces = way()
        took = (time.process_time() - started) / len(faces) * 1000
        jitter, total, gross = deviations(clip, faces)
        error = warp_error(painted(clip, faces, source))
        print(f"{name:<26}{jitter:>9.2f}{total:>9.2f}{gross:>7}{error:>12.2f}{error / floor:>10.2f}x{took:>8.1f}")
    error = warp_error(painted(clip, on_true_motion(clip, faces), source))
    print(f"{'on the true motion':<26}{'':>9}{'':>9}{'':>7}{error:>12.2f}{error / floor:>10.2f}x")


def away(t: float) -> tuple[float, float, float, float] | None:
    """Out to the right, and back after a while."""
    if 1.0 < t < 1.6:
        return None
    return (240 + 330 * t if t <= 1 else 570 - 330 * (t - 1.6), 130.0, 48.0, 0.0)


def who_is_who() -> None:
    cut = Actor("hopper", lambda t: (160, 130, 50, 0) if t < 1 else (330, 140, 60, 5))
    two = Scene([Actor("astronaut", sway(360, 130, 44)), cut], cuts=(1.0,))
    scenes = {
        "crossing, the one behind": (CROSSING, 0),
        "crossing, the one in front": (CROSSING, 1),
        "a hard cut, two people": (Recipe(two, frames=60, rate=RATE), 1),
        "leaving and coming back": (Recipe(Scene([Actor("hopper", away)]), frames=96, rate=RATE), 0),
        "walking in": (
            Recipe(Scene([Actor("hopper", line_path((-60, 130), (300, 130), 1.5, 48))]), frames=60, rate=RATE),
            0,
        ),
    }
    print(f"\n{'':<28}{'in full view':>13}{'dropouts':>10}{'per 1000':>10}{'mix-ups':>9}")
    for name, (recipe, who) in scenes.items():
        clip = Clip.of(recipe)
        seen, dropped, mixed = mistakes(clip, recipe, clip.actors[who])
        print(f"{name:<28}{seen:>13}{dropped:>10}{1000 * dropped / seen:>10.0f}{mixed:>9}")


def mistakes(clip: Clip, recipe: Recipe, chosen: Actor) -> tuple[int, int, int]:
    """Frames in which the chosen one is in full view; in how many of them they were missed; faces of others."""
    cast = Cast("known", clip.detector())
    faces = clip.detector()(clip.frames[0], True)
    first = clip.truth(chosen, 0)
    if first is not None and any(near(face, first) for face in faces):
        cast.introduce(clip.frames[0], faces, [face for face in faces if near(face, first)])
    else:
        cast = Cast("all", clip.detector())  # nobody to choose in the first frame
    seen = dropped = mixed = 0
    for index, here in enumerate(tracked(clip, cast)):
        truth = clip.truth(chosen, index)
        right = [face for face in here if truth is not None and near(face, truth)]
        mixed += len(here) - len(right)
        if truth is not None and in_full_view(clip, recipe, chosen, index):
            seen += 1
            dropped += not right
    return seen, dropped, mixed


def near(face: Face, truth: np.ndarray) -> bool:
    apart = np.linalg.norm(face.points[:2] - moved(truth, np.array([(-0.5, 0), (0.5, 0)])), axis=1)
    return bool(apart.max() < 0.35 * np.hypot(truth[0, 0], truth[1, 0]))


def in_full_view(clip: Clip, recipe: Recipe, chosen: Actor, index: int) -> bool:
    """The whole of what is painted is inside the frame, and nobody is in front of it."""
    truth = clip.truth(chosen, index)
    assert truth is not None
    points = moved(truth, HULL)
    if points.min() < 0 or (points > (recipe.scene.width, recipe.scene.height)).any():
        return False
    for other in clip.actors[list(clip.actors).index(chosen) + 1 :]:
        there = clip.truth(other, index)
        # What `Actor.draw` cuts out of a portrait, in units.
        if there is not None and (
            np.hypot(*((moved(cv2.invertAffineTransform(there), points) - (0, 0.5)) / (1.45, 1.95)).T).min() < 1
        ):
            return False
    return True


def main() -> None:
    cv2.setNumThreads(1)
    steadiness()
    who_is_who()


if __name__ == "__main__":
    main()
