"""The people of a clip: who is who, from frame to frame, behind each other, through cuts.

A clip comes in chunks of a few frames. In the last frame of each, faces are detected; between two
detections everybody is followed by optical flow. What a detection corrects is dealt out over the frames of
its chunk, so nothing jumps; and who is new in it is followed backwards through the chunk, so a face that
comes in is found from its first frame and not from the next detection on. The shape of a face (its
landmarks in its own frame of reference) is averaged over detections, its motion never is: smoothing that
would make the new face lag behind the head. A person who was hidden, or away for a scene, is known again by
their look, and whoever was chosen stays chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Final, Literal

import numpy as np

from nanoswap.pipelines.align import place
from nanoswap.pipelines.face import Face, Floats, overlap
from nanoswap.pipelines.flow import LOST, Look, Pose, Seen, box, follow, look_at, unit
from nanoswap.pipelines.frame import Frame, Plane
from nanoswap.pipelines.shape import frame_of

Detect = Callable[[Frame, bool], tuple[Face, ...]]
"""The faces of a frame, in its pixels; True asks for a close look that finds small faces too."""
Choose = Literal["all", "largest", "known"]

_KNOWN: Final = 0.55  # correlation of looks above which somebody is known again
_SAME_PERSON: Final = 0.35  # cosine of embeddings, for engines that have them
_NEAR: Final = 0.35  # of the unit: a detection further off than this from where the flow leads is an error
_WEIGHT: Final = 0.3  # of a detection against what was known before
_HIDDEN: Final = 0.4  # overlap at which one of two faces is behind the other
_BRIDGE: Final = 3  # frames without a face that are filled in
_MOST: Final = 8  # people followed at once
_PATIENCE: Final = 8  # chunks without a detection, for somebody seen often
_CLOSE_LOOK: Final = 6  # every so many chunks
_SHORT: Final = 4  # frames; a shorter chunk is not worth a detection


class Person:
    """One person as known so far. `pose` is where they are in the last frame, None when they are not there."""

    __slots__ = ("chosen", "embedding", "look", "missed", "number", "points", "pose", "score", "seen")

    def __init__(self, number: int, face: Face, plane: Plane, chosen: bool) -> None:
        self.number = number
        self.pose: Pose | None = None
        pose = frame_of(face.points[0], face.points[1])
        self.points = _own(face, pose)
        self.look: Look = look_at(plane, pose)
        self.embedding, self.score, self.chosen = face.embedding, face.score, chosen
        self.seen, self.missed = 1, 0

    def likeness(self, face: Face, look: Look) -> float:
        """-1..1, on the scale of looks."""
        if self.embedding is not None and face.embedding is not None:
            return float(self.embedding @ face.embedding) / _SAME_PERSON * _KNOWN
        return float(self.look @ look)

    def learn(self, face: Face, look: Look) -> None:
        self.look = self.look + (look - self.look) * 0.5
        self.look /= max(float(np.linalg.norm(self.look)), 1e-3)
        if self.embedding is None or face.embedding is None:
            self.embedding = face.embedding if self.embedding is None else self.embedding
        else:
            self.embedding += (face.embedding - self.embedding) * 0.5
            self.embedding /= max(float(np.linalg.norm(self.embedding)), 1e-3)
        self.score, self.seen, self.missed = face.score, self.seen + 1, 0

    def face(self, pose: Pose, points: Floats, frame: Frame) -> Face:
        pixels = place(pose, points)
        return Face(
            box=np.clip(box(pose), 0, [frame.width, frame.height, frame.width, frame.height]).astype(np.float32),
            points=pixels[:5],
            score=self.score,
            frame=(frame.width, frame.height),
            embedding=self.embedding,
            landmarks=pixels[5:] if len(pixels) > 5 else None,
            person=self.number,
        )

    def wipe(self) -> None:
        self.points.fill(0)
        self.look.fill(0)
        if self.embedding is not None:
            self.embedding.fill(0)


class Cast:
    """Give it every chunk of a clip in order; it answers with the chosen faces of each frame."""

    def __init__(self, choose: Choose, detect: Detect) -> None:
        self._choose, self._detect = choose, detect
        self._people: list[Person] = []
        self._last: Plane | None = None
        self._chunks = 0

    def introduce(self, frame: Frame, faces: Sequence[Face], chosen: Sequence[Face]) -> None:
        """Everybody of a frame that the person who chose has looked at; nobody is in the clip yet."""
        for face in faces:
            self._people.append(Person(len(self._people), face, frame.y, any(face is one for one in chosen)))

    def chunk(self, frames: Sequence[Frame], cut: bool) -> list[tuple[Face, ...]]:
        """The chosen faces of each frame; `cut`: a new scene begins with the first frame."""
        planes = [frame.y for frame in frames]
        self._chunks += 1
        if cut or self._last is None:
            self._last = None
            for person in self._people:
                person.pose = None
            faces = self._detect(frames[0], True)
            for person, face, look in self._recognised(frames[0], faces):
                person.pose = frame_of(face.points[0], face.points[1])
                person.points = _own(face, person.pose)
                person.learn(face, look)
            self._forget(faces)
        skipped = 0 if self._last is None else 1
        lead = planes if self._last is None else [self._last, *planes]
        paths = {id(one): self._path(one, lead) for one in self._people if one.pose is not None}
        self._hide(paths)
        shapes = {id(one): one.points for one in self._people}
        corrected: dict[int, tuple[list[Seen | None], Floats]] = {}
        if len(frames) >= _SHORT or not self._people:
            corrected = self._measure(frames[-1], lead, paths, shapes)
        result: list[tuple[Face, ...]] = []
        steps = len(lead) - 1
        for index, frame in enumerate(frames):
            here = []
            for person in self._people:
                path, target = corrected.get(id(person), (paths.get(id(person)), person.points))
                at = path[index + skipped] if path else None
                if person.chosen and at is not None:
                    old = shapes.get(id(person), target)
                    part = (index + skipped) / steps if steps else 1.0
                    here.append(person.face(at.pose, old + (target - old) * np.float32(part), frame))
            result.append(tuple(sorted(here, key=lambda face: -face.area)))
        for person in self._people:
            path, target = corrected.get(id(person), (paths.get(id(person)), person.points))
            person.points = target
            person.pose = _end(path)
        self._keep(planes[-1])
        return result

    def wipe(self) -> None:
        """Forget everybody. Idempotent."""
        for person in self._people:
            person.wipe()
        self._people.clear()
        if self._last is not None:
            self._last.fill(0)
            self._last = None

    def _forget(self, faces: Sequence[Face]) -> None:
        """Overwrite what tells people apart of faces that have been learned, unless it is what somebody is known by."""
        kept = {id(person.embedding) for person in self._people}
        for face in faces:
            if face.embedding is not None and id(face.embedding) not in kept:
                face.embedding.fill(0)

    def _keep(self, plane: Plane) -> None:
        if self._last is None:
            self._last = plane.copy()
        else:
            np.copyto(self._last, plane)

    def _path(self, person: Person, lead: Sequence[Plane]) -> list[Seen | None]:
        assert person.pose is not None
        seen = follow(lead, person.pose, person.look)
        return [Seen(person.pose, 1.0), *seen, *[None] * (len(lead) - 1 - len(seen))]

    def _hide(self, paths: dict[int, list[Seen | None]]) -> None:
        """Of two faces in one place, the one that looks less like itself is behind, and is lost from there on."""
        for one, other in combinations(paths.values(), 2):
            for index, (a, b) in enumerate(zip(one, other, strict=True)):
                if a is None or b is None:
                    break
                if overlap(box(a.pose), box(b.pose)) > _HIDDEN:
                    behind = one if a.likeness < b.likeness else other
                    behind[index:] = [None] * (len(behind) - index)
                    break

    def _measure(
        self, frame: Frame, lead: list[Plane], paths: dict[int, list[Seen | None]], shapes: dict[int, Floats]
    ) -> dict[int, tuple[list[Seen | None], Floats]]:
        """Detect in the last frame of a chunk; for whom was found, the path as corrected and the shape as learned."""
        for person in self._people:
            person.pose = _end(paths.get(id(person)))
        corrected: dict[int, tuple[list[Seen | None], Floats]] = {}
        faces = self._detect(frame, self._chunks % _CLOSE_LOOK == 0)
        for person, face, look in self._recognised(frame, faces):
            pose = frame_of(face.points[0], face.points[1])
            path = paths.get(id(person), [None] * len(lead))
            new = id(person) not in shapes
            weight = max(_WEIGHT, 1 / (person.seen + 1))
            own = _own(face, pose)
            target = own if new else person.points + (own - person.points) * np.float32(weight)
            end = path[-1]
            if end is not None:
                path = _dealt(path, pose, weight)
            else:
                back = follow(lead[::-1], pose, look if new else person.look)
                path = _joined(path, [Seen(pose, 1.0), *back])
                target = own
                shapes[id(person)] = own
            if not new:
                person.learn(face, look)
            corrected[id(person)] = path, target
        self._forget(faces)
        for person in self._people:
            if person.pose is not None and id(person) not in corrected:
                person.missed += 1
                if person.missed > min(_PATIENCE, person.seen):
                    paths.pop(id(person), None)
        return corrected

    def _recognised(self, frame: Frame, faces: Sequence[Face]) -> list[tuple[Person, Face, Look]]:
        """Who each face belongs to: to whom is there already, else to whom it looks like, else to somebody new."""
        looks = [look_at(frame.y, frame_of(face.points[0], face.points[1])) for face in faces]
        rated: list[tuple[float, Person, int]] = []
        for person in self._people:
            for index, face in enumerate(faces):
                like = person.likeness(face, looks[index])
                if person.pose is not None and _near(person.pose, face):
                    rated.append((1 + like if like > LOST / 2 else like, person, index))
                elif like > _KNOWN:
                    rated.append((like, person, index))
        taken: dict[int, Person] = {}
        for _, person, index in sorted(rated, key=lambda each: -each[0]):
            if index not in taken and not any(person is other for other in taken.values()):
                taken[index] = person
        result: list[tuple[Person, Face, Look]] = []
        for index, face in enumerate(faces):
            who = taken.get(index)
            if who is None:
                if sum(one.pose is not None for one in self._people) + len(result) >= _MOST:
                    continue
                if any(one.pose is not None and overlap(box(one.pose), face.box) > _HIDDEN for one in self._people):
                    continue  # a second, worse measurement of somebody who is followed
                who = self._new(face, frame)
            elif who.pose is not None and not _near(who.pose, face):
                who.pose = None
            result.append((who, face, looks[index]))
        return result

    def _new(self, face: Face, frame: Frame) -> Person:
        chosen = self._choose == "all" or (self._choose == "largest" and not any(p.chosen for p in self._people))
        person = Person(len(self._people), face, frame.y, chosen)
        self._people.append(person)
        return person


def _own(face: Face, pose: Pose) -> Floats:
    """The five points and the landmarks in the face's own frame, float32 (N, 2)."""
    points = face.points if face.landmarks is None else np.vstack([face.points, face.landmarks])
    back = np.linalg.inv(np.vstack([pose, [0, 0, 1]]))[:2]
    return place(back, points)


def _end(path: list[Seen | None] | None) -> Pose | None:
    """Where a path ends, if the face is still there."""
    return path[-1].pose if path and path[-1] is not None else None


def _near(pose: Pose, face: Face) -> bool:
    there = frame_of(face.points[0], face.points[1])
    eyes = place(pose, np.array([(-0.5, 0), (0.5, 0)])) - face.points[:2]
    return bool(np.linalg.norm(eyes, axis=1).max() < _NEAR * min(unit(pose), unit(there)))


def _dealt(path: list[Seen | None], pose: Pose, weight: float) -> list[Seen | None]:
    """The path, led to `pose` by `weight`: nothing at its start, all of it at its end."""
    end = path[-1]
    assert end is not None
    change = np.linalg.inv(np.vstack([end.pose, [0, 0, 1]])) @ np.vstack([pose, [0, 0, 1]]) - np.eye(3)
    steps = max(1, len(path) - 1)
    return [
        None if at is None else Seen(at.pose @ (np.eye(3) + change * (weight * index / steps)), at.likeness)
        for index, at in enumerate(path)
    ]


def _joined(path: list[Seen | None], back: list[Seen]) -> list[Seen | None]:
    """What was followed forwards, then what was followed backwards, and a short gap between filled in."""
    lost = next((index for index, at in enumerate(path) if at is None), len(path))
    found = max(lost, len(path) - len(back))
    joined = [*path[:lost], *[None] * (found - lost), *back[::-1][len(back) - (len(path) - found) :]]
    before, after = joined[lost - 1] if lost else None, joined[found]
    if before is not None and after is not None and found - lost <= _BRIDGE:
        for index in range(lost, found):
            part = (index - lost + 1) / (found - lost + 1)
            joined[index] = Seen(before.pose + (after.pose - before.pose) * part, LOST)
    return joined
