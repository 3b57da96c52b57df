"""Following one face from frame to frame by the movement of its own pixels.

Detectors place a face a little differently in every frame, which shows as trembling; the optical flow of
some fifty points of its skin does not. The points are found in the first frame and followed (Lucas and
Kanade 1981, pyramids after Bouguet 2001) in the part of the picture around the face, halved until pupils
are at most 96 px apart, so the cost hardly grows with the picture; the similarity that most of them agree
on (RANSAC) moves the face. It works in either direction of time. A face is lost when it no longer looks
like itself, leaves, or runs out of points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.align import place
from nanoswap.pipelines.frame import Plane
from nanoswap.pipelines.roi import Roi

Pose = npt.NDArray[np.float64]
"""float64 (2, 3): a similarity from the face's own frame (pupils at (-0.5, 0) and (0.5, 0)) to pixels."""
Look = npt.NDArray[np.float32]
"""float32 (768,): a face's grey 24 by 32 thumbnail, mean 0, length 1, so that a dot product is a correlation."""

LOST: Final = 0.4  # correlation with its own look below which a face is not there
_UNIT: Final = 96.0
_ROOM: Final = 0.8  # of the unit, around the face: how far it may go before another part of the picture is taken
_POINTS: Final = 48
_FEWEST: Final = 10
_VISIBLE: Final = 0.35
_EXTENT: Final = np.array([(-1.05, -0.75), (1.05, -0.75), (1.05, 1.73), (-1.05, 1.73)])
_MIDDLE: Final = np.array([[0.0, 0.5]])
_LOOK: Final = (24, 32)
# Thumbnail pixels to the face's own frame: x -1.3..1.3, y -1.1..1.9.
_THUMB: Final = np.array([[2.6 / 23, 0, -1.3], [0, 3.0 / 31, -1.1], [0, 0, 1]])


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Where a face is in one frame, and how much it looks like itself there, -1..1."""

    pose: Pose
    likeness: float


def unit(pose: Pose) -> float:
    """Pixels between the pupils."""
    return float(np.hypot(pose[0, 0], pose[1, 0]))


def box(pose: Pose) -> npt.NDArray[np.float32]:
    """float32 (4,): x0, y0, x1, y1 around the face, unclipped."""
    corners = place(pose, _EXTENT)
    return np.concatenate([corners.min(0), corners.max(0)])


def visible(pose: Pose, plane: Plane) -> bool:
    """Is enough of the face inside the frame?"""
    x0, y0, x1, y1 = box(pose)
    height, width = plane.shape
    inside = max(0.0, min(x1, width) - max(x0, 0)) * max(0.0, min(y1, height) - max(y0, 0))
    return bool(inside > _VISIBLE * (x1 - x0) * (y1 - y0))


def look_at(plane: Plane, pose: Pose) -> Look:
    """What the face at `pose` looks like, whatever its size, tilt and light."""
    there = pose @ _THUMB
    # A large face is averaged down by a pyramid step or two first, or the thumbnail would be noise.
    while unit(there) > 2.0:
        around = _around(there, plane)
        if around.empty:
            break
        plane = np.asarray(cv2.resize(plane[around.slices], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))
        there = (there - np.array([[0, 0, around.x0], [0, 0, around.y0]])) / 2
        if min(plane.shape) < 4:
            break
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    thumb = cv2.warpAffine(plane, there, _LOOK, flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)
    flat = thumb.ravel() - thumb.mean()
    return np.asarray(flat / max(float(np.linalg.norm(flat)), 1e-3), np.float32)


def _around(there: Pose, plane: Plane) -> Roi:
    """The rectangle of the plane under a whole thumbnail, with a pixel or two to spare."""
    corners = place(there, np.array([(0, 0), (24, 0), (24, 32), (0, 32)]))
    low, high = np.floor(corners.min(0)) - 2, np.ceil(corners.max(0)) + 3
    return Roi(int(low[0]), int(low[1]), int(high[0]), int(high[1])).clip(plane.shape[1], plane.shape[0])


def follow(planes: Sequence[Plane], pose: Pose, look: Look) -> list[Seen]:
    """Where the face that is at `pose` in planes[0] is in planes[1], planes[2], …, until it is lost.

    planes: uint8 (H, W), grey, of one size. The list is shorter than planes by at least one.
    """
    seen: list[Seen] = []
    start = here = pose
    part = _Part.around(planes[0], pose)
    old = part.of(planes[0])
    points = first = _seeds(old, part, pose)
    for before, now in pairwise(planes):
        if not part.holds(here, now):
            part = _Part.around(before, here)
            old = part.of(before)
        if len(points) < 2 * _FEWEST:
            start, points = here, _seeds(old, part, here)
            first = points
        if len(points) < _FEWEST:
            break
        new = part.of(now)
        moved, kept = _step(old, new, part, points)
        if kept.sum() < _FEWEST:
            break
        motion, inliers = cv2.estimateAffinePartial2D(
            first[kept], moved[kept], method=cv2.RANSAC, ransacReprojThreshold=max(0.7, unit(here) / 40)
        )
        if motion is None or inliers.sum() < _FEWEST:
            break
        here_next = motion @ np.vstack([start, [0, 0, 1]])
        if not 0.8 < unit(here_next) / unit(here) < 1.25 or not visible(here_next, now):
            break
        likeness = float(look @ look_at(new, part.inside @ np.vstack([here_next, [0, 0, 1]])))
        if likeness < LOST:
            break
        agreed = np.flatnonzero(kept)[inliers.ravel() > 0]
        first, points, here, old = first[agreed], moved[agreed], here_next, new
        seen.append(Seen(here, likeness))
    return seen


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The part of every plane in which a face is looked for, and how often it is halved.

    Halving and whole multiples: the same place has the same coordinates in every frame, and it is the cheapest way
    to make a picture smaller that does not alias.
    """

    roi: Roi
    halvings: int
    unit: float

    @staticmethod
    def around(plane: Plane, pose: Pose) -> _Part:
        x0, y0, x1, y1 = box(pose)
        halvings = max(0, int(np.ceil(np.log2(unit(pose) / _UNIT))))
        times = 2**halvings
        margin = _ROOM * unit(pose) + 8
        roi = Roi(int(x0 - margin), int(y0 - margin), int(x1 + margin), int(y1 + margin))
        roi = roi.clip(plane.shape[1], plane.shape[0])
        x0, y0 = roi.x0 // times * times, roi.y0 // times * times
        return _Part(
            Roi(x0, y0, x0 + (roi.x1 - x0) // times * times, y0 + (roi.y1 - y0) // times * times), halvings, unit(pose)
        )

    @property
    def inside(self) -> Pose:
        """Pixels of a plane to pixels of the part."""
        by = 0.5**self.halvings
        return np.array([[by, 0, (0.5 - self.roi.x0) * by - 0.5], [0, by, (0.5 - self.roi.y0) * by - 0.5]])

    @property
    def outside(self) -> Pose:
        """And back."""
        by = 2.0**self.halvings
        return np.array([[by, 0, 0.5 * by - 0.5 + self.roi.x0], [0, by, 0.5 * by - 0.5 + self.roi.y0]])

    def holds(self, pose: Pose, plane: Plane) -> bool:
        """Is there room enough around a face at `pose` still, as far as the frame goes?"""
        x0, y0, x1, y1 = box(pose)
        room = _ROOM / 2 * unit(pose)
        wanted = Roi(int(x0 - room), int(y0 - room), int(x1 + room), int(y1 + room))
        wanted = wanted.clip(plane.shape[1], plane.shape[0])
        spare = 2**self.halvings
        return (
            0.7 < unit(pose) / self.unit < 1.4
            and wanted.x0 >= self.roi.x0
            and wanted.y0 >= self.roi.y0
            and wanted.x1 < self.roi.x1 + spare
            and wanted.y1 < self.roi.y1 + spare
        )

    def of(self, plane: Plane) -> Plane:
        grey = plane[self.roi.slices]
        for _ in range(self.halvings):
            grey = np.asarray(cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.uint8)
        return grey


def _seeds(grey: Plane, part: _Part, pose: Pose) -> npt.NDArray[np.float32]:
    """Corners inside the face, float32 (N, 2) px of the plane. grey: of the part."""
    if part.roi.empty:
        return np.zeros((0, 2), np.float32)
    mask = np.zeros(grey.shape, np.uint8)
    there = part.inside @ np.vstack([pose, [0, 0, 1]])
    size = unit(there)
    angle = float(np.degrees(np.arctan2(pose[1, 0], pose[0, 0])))
    cv2.ellipse(mask, (tuple(map(float, place(there, _MIDDLE)[0])), (1.8 * size, 2.2 * size), angle), 255, -1)
    found = cv2.goodFeaturesToTrack(grey, _POINTS, 0.01, max(3.0, size / 14), mask=mask)
    # None where there is no corner, which OpenCV's type stub does not say.
    corners: Any = np.zeros((0, 2)) if found is None else found
    return place(np.asarray(part.outside, np.float64), corners.reshape(-1, 2))


def _step(
    old: Plane, new: Plane, part: _Part, points: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Where each point went, and which of them were found again. old, new: of the part."""
    moved, status, _ = cv2.calcOpticalFlowPyrLK(
        old,
        new,
        place(part.inside, points),
        np.zeros_like(points),
        winSize=(15, 15),
        maxLevel=3,
        criteria=(3, 10, 0.03),
    )
    return place(np.asarray(part.outside, np.float64), moved), status.ravel() == 1
