"""Work of many steps, done together with whoever else is at it: a job joins at the next step and leaves when done.

A picture made by diffusion takes some steps of one large network. A batch that is put together once keeps everybody
until its slowest is done, while those who come meanwhile wait. Here the batch is put together anew before each step, of
jobs that may be at different steps of different schedules (Yu et al., Orca, OSDI 2022, do so for text). As in `Window`
there is no thread of its own: one of those who wait leads for a step, and if a step of several fails, each is tried
alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from threading import Condition
from typing import Final, Generic, Protocol, TypeVar

from nanoswap.pipelines.cancel import CancelToken

_LOOK: Final = 0.1  # seconds after which somebody who waits looks whether they were cancelled


class Job(Protocol):
    """bucket: jobs of equal buckets can share a step. done: after its last step."""

    @property
    def bucket(self) -> Hashable: ...

    @property
    def done(self) -> bool: ...


J = TypeVar("J", bound=Job)


def choose(buckets: Sequence[Hashable], served: Mapping[Hashable, int], most: int) -> list[int]:
    """Whose step is next: indices of jobs, which are given by their buckets in the order in which they came.

    Buckets take turns: `served` holds the round of each one's last step. In a bucket those who came first go first, so
    that they leave first; sharing the steps evenly would keep all of them longer.
    """
    if not buckets:
        return []
    # Of buckets that waited equally long, that of whoever came first.
    turn = min(dict.fromkeys(buckets), key=lambda bucket: served.get(bucket, -1))
    return [index for index, bucket in enumerate(buckets) if bucket == turn][:most]


class _Place(Generic[J]):
    __slots__ = ("busy", "cancel", "error", "job")

    def __init__(self, job: J, cancel: CancelToken) -> None:
        self.job, self.cancel = job, cancel
        self.busy = False  # a step of it is being made
        self.error: BaseException | None = None

    @property
    def waits(self) -> bool:
        return not (self.busy or self.error or self.job.done or self.cancel.cancelled)


class StepBatcher(Generic[J]):
    """step      takes jobs of one bucket one step further, all of them or (when it raises) none. One thread at a time.
    most      jobs in one step.
    admitted  jobs that may be on their way at once, which bounds memory; others wait outside, in order.
    """

    def __init__(self, step: Callable[[Sequence[J]], None], *, most: int, admitted: int) -> None:
        self._step, self._most, self._admitted = step, most, admitted
        self._changed = Condition()
        self._outside: deque[object] = deque()
        self._inside = 0
        self._on_way: list[_Place[J]] = []
        self._served: dict[Hashable, int] = {}
        self._round = 0
        self._led = False

    def run(self, begins: Sequence[Callable[[], J]], cancel: CancelToken) -> list[J]:
        """Begin the jobs when there is room for all of them, and take them to their ends.

        Raises what beginning or a step raises, and `Cancelled`, never while a step of one of these jobs is being made:
        the caller may wipe them. `ValueError` for more jobs than are ever admitted.
        """
        self._enter(len(begins), cancel)
        places: list[_Place[J]] = []
        try:
            for begin in begins:
                cancel.check()
                places.append(_Place(begin(), cancel))
            with self._changed:
                self._on_way += places
            while batch := self._turn(places, cancel):
                self._lead(batch)
            return [place.job for place in places]
        finally:
            with self._changed:
                self._on_way = [place for place in self._on_way if place not in places]
                self._inside -= len(begins)
                self._changed.notify_all()

    def _enter(self, count: int, cancel: CancelToken) -> None:
        if count > self._admitted:
            raise ValueError(f"{count} jobs in one call, and {self._admitted} are ever admitted")
        mine = object()
        with self._changed:
            self._outside.append(mine)
            try:
                while self._outside[0] is not mine or self._inside + count > self._admitted:
                    cancel.check()
                    self._changed.wait(_LOOK)
                self._inside += count
            finally:
                self._outside.remove(mine)
                self._changed.notify_all()

    def _turn(self, places: Sequence[_Place[J]], cancel: CancelToken) -> list[_Place[J]]:
        """What to take a step further now that this caller leads; nothing when all of `places` are done."""
        with self._changed:
            while True:
                if not any(place.busy for place in places):
                    cancel.check()
                    for place in places:
                        if place.error is not None:
                            raise place.error
                    if all(place.job.done for place in places):
                        return []
                waiting = [place for place in self._on_way if place.waits]
                if waiting and not self._led:
                    buckets = [place.job.bucket for place in waiting]
                    batch = [waiting[index] for index in choose(buckets, self._served, self._most)]
                    self._round += 1
                    self._served[batch[0].job.bucket] = self._round
                    self._led = True
                    for place in batch:
                        place.busy = True
                    return batch
                self._changed.wait(_LOOK)

    def _lead(self, batch: Sequence[_Place[J]]) -> None:
        try:
            self._serve(batch)
        finally:
            with self._changed:
                self._led = False
                for place in batch:
                    place.busy = False
                self._changed.notify_all()

    def _serve(self, batch: Sequence[_Place[J]]) -> None:
        error: BaseException | None = None
        try:
            self._step([place.job for place in batch])
        except BaseException as failed:
            error = failed
        if error is not None and len(batch) > 1:
            # Not inside the handler: an error of one must not carry the others' frames as its context.
            for place in batch:
                self._serve([place])
        elif error is not None:
            batch[0].error = error
