"""What a swap is judged by: does the new face look like the source, and does it still do what the target did?

The judge looks with its own eyes. Who is who is asked of an encoder that the swap has not used, because a network
that was trained towards one encoder pleases that one. What no network is there for is None, and is said to be not
measured; it is never guessed from something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.align import cut, place, similarity, template, to_crop
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Face, Floats, overlap

Find = Callable[[Rgb], tuple[Face, ...]]
Identify = Callable[[Rgb, Sequence[Face]], tuple[Face, ...]]
Dense = Callable[[Sequence[Rgb], Sequence[Face]], list[Floats]]
Features = Callable[[Sequence[Rgb]], npt.NDArray[np.float64]]

# A general head, millimetres, x to the viewer's right and y down: eyes, nose tip, mouth corners.
_HEAD: Final = np.array([(-32, -35, 25), (32, -35, 25), (0, 0, 0), (-25, 32, 20), (25, 32, 20)], np.float64)
_SAME: Final = 0.3  # overlap of boxes above which the face of the result is the face of the target
CROP: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """find      faces of a picture.
    identify  faces with identities, or None; independent: the swap has not used that encoder.
    dense     dense landmarks, or None: expression is then told from the five points.
    features  float64 (N, D) of uint8 (S, S, 3) crops, for realism, or None.
    notes     what must be said with the figures.
    """

    find: Find
    identify: Identify | None = None
    independent: bool = False
    dense: Dense | None = None
    features: Features | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One face as judged. identity float32 (512,) or None; pose degrees (yaw, pitch, roll); shape float32 (N, 2), in
    the face's own frame, where the distance between the pupils is 1; crop uint8 (256, 256, 3)."""

    face: Face
    identity: Floats | None
    pose: tuple[float, float, float]
    shape: Floats
    crop: Rgb


def look(judge: Judge, rgb: Rgb, at: Face | None = None) -> Seen | None:
    """The largest face of a picture, or the one where `at` is; None when there is none."""
    faces = judge.find(rgb)
    if at is not None:
        faces = tuple(face for face in faces if overlap(face.box, at.box) > _SAME)
    if not faces:
        return None
    face = faces[0]
    identity = None
    if judge.identify is not None:
        identity = judge.identify(rgb, [face])[0].embedding
    points = face.points if judge.dense is None else judge.dense([rgb], [face])[0]
    return Seen(face, identity, pose(face), own_shape(face, points), cut(rgb, to_crop(face.points, CROP), CROP))


def pose(face: Face) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of a general head whose five points are where the face's are."""
    width, height = face.frame
    focal = float(max(width, height))
    camera = np.array([(focal, 0, width / 2), (0, focal, height / 2), (0, 0, 1)], np.float64)
    found, turn, _ = cv2.solvePnP(_HEAD, face.points.astype(np.float64), camera, None, flags=cv2.SOLVEPNP_SQPNP)
    if not found:
        return (0.0, 0.0, 0.0)
    r: Any = cv2.Rodrigues(turn)[0]
    yaw = np.degrees(np.arctan2(-r[2, 0], np.hypot(r[2, 1], r[2, 2])))
    pitch = np.degrees(np.arctan2(r[2, 1], r[2, 2]))
    roll = np.degrees(np.arctan2(r[1, 0], r[0, 0]))
    return float(yaw), float(pitch), float(roll)


def own_shape(face: Face, points: Floats) -> Floats:
    """`points` without place, size and tilt; the distance between the pupils is 1."""
    target = template(112)
    matrix = similarity(face.points, target)
    unit = float(np.linalg.norm(target[1] - target[0]))
    return np.asarray(place(matrix, points) / unit, np.float32)


def pose_error(a: Seen, b: Seen) -> float:
    """Largest difference of the three angles, degrees."""
    return max(abs((x - y + 180) % 360 - 180) for x, y in zip(a.pose, b.pose, strict=True))


def expression_error(a: Seen, b: Seen) -> float:
    """Mean distance of corresponding points, per cent of the distance between the pupils."""
    return float(np.linalg.norm(a.shape - b.shape, axis=1).mean() * 100)


def likeness(a: Floats, b: Floats) -> float:
    """Cosine of two identities of unit length."""
    return float(a @ b)


def jitter(before: Sequence[Face | None], after: Sequence[Face | None]) -> float | None:
    """How much more the points of a face tremble than they did, per cent of the distance between the pupils.

    Mean length of the second difference of five points over three successive frames, of the result's points relative
    to the target's: what the clip itself does cancels out. None when no three frames in a row show the face in both.
    """
    moved = [
        None
        if a is None or b is None
        else (b.points - a.points) / max(float(np.hypot(*(a.points[1] - a.points[0]))), 1)
        for a, b in zip(before, after, strict=True)
    ]
    bends = [
        float(np.linalg.norm(x - 2 * y + z, axis=1).mean())
        for x, y, z in zip(moved, moved[1:], moved[2:], strict=False)
        if x is not None and y is not None and z is not None
    ]
    return float(np.mean(bends)) * 100 if bends else None


def frechet(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> float:
    """Fréchet distance of two clouds of features, float64 (N, D), seen as normal distributions (Heusel et al. 2017).

    Raises `ValueError` for fewer than two of either.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError("a distribution needs at least two samples")
    mean = float(((a.mean(0) - b.mean(0)) ** 2).sum())
    x, y = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    # The trace of the root of x y is that of the root of the symmetric s y s with s = root of x.
    values, vectors = np.linalg.eigh(x)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ y @ root), 0, None)).sum()
    return max(0.0, mean + float(np.trace(x) + np.trace(y) - 2 * cross))
