"""Work of many steps, done together with whoever else is at it: a job joins at the next step and leaves when done.

A picture made by diffusion takes some steps of one large network. A batch that is put together once keeps everybody
until its slowest is done, while those who come meanwhile wait. Here the batch is put together anew before each step, of
jobs that may be at different steps of different schedules (Yu et al., Orca, OSDI 2022, do so for text). As in `Window`
there is no thread of its own: one of those who wait leads for a step, and if a step of several fails, each is tried
alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
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
R = TypeVar("R")


def choose(buckets: Sequence[Hashable], most: int) -> list[int]:
    """Whose step is next: indices of jobs, which are given by their buckets in the order in which they came.

    Whoever came first, and the next of the same bucket. So those who came first leave first, and nobody waits for ever;
    buckets that take turns, or steps that are shared evenly, would keep everybody longer (`./dev bench steps`).
    """
    return [index for index, bucket in enumerate(buckets) if bucket == buckets[0]][:most]


class _Place(Generic[J, R]):
    __slots__ = ("busy", "cancel", "error", "job", "result")

    def __init__(self, job: J, cancel: CancelToken) -> None:
        self.job, self.cancel = job, cancel
        self.busy = False  # a step of it is being made
        self.error: Exception | None = None
        self.result: R | None = None

    @property
    def left(self) -> bool:
        """Nothing more is to be done for it."""
        return self.error is not None or self.result is not None or self.cancel.cancelled


class StepBatcher(Generic[J, R]):
    """step      takes jobs of one bucket one step further, all of them or (when it raises) none. One thread at a time.
    finish    makes the result of a job that is done, in its caller's thread. The next step waits for it: who is done is
              kept from leaving by nobody. Never None.
    most      jobs in one step.
    admitted  jobs that may be on their way at once, until their results are there, which bounds memory; others wait
              outside, in order.
    told      of each step that was made, how many jobs shared it.
    """

    def __init__(
        self,
        step: Callable[[Sequence[J]], None],
        finish: Callable[[J], R],
        *,
        most: int,
        admitted: int,
        told: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._step, self._finish, self._most, self._admitted, self._told = step, finish, most, admitted, told
        self._changed = Condition()
        self._outside: deque[object] = deque()
        self._inside = 0
        self._on_way: list[_Place[J, R]] = []
        self._led = False

    def run(self, begins: Sequence[Callable[[], J]], cancel: CancelToken) -> list[R]:
        """Begin the jobs when there is room for all of them, and take them to their results.

        Raises what beginning, a step or finishing raises, and `Cancelled`, never while a step of one of these jobs is
        being made: the caller may wipe them. `ValueError` for more jobs than are ever admitted.
        """
        self._enter(len(begins), cancel)
        places: list[_Place[J, R]] = []
        try:
            for begin in begins:
                cancel.check()
                places.append(_Place(begin(), cancel))
            with self._changed:
                self._on_way += places
            while (what := self._turn(places, cancel)) is not None:
                if isinstance(what, _Place):
                    what.result = self._finish(what.job)
                    with self._changed:
                        self._changed.notify_all()
                else:
                    self._lead(what)
            return [place.result for place in places if place.result is not None]
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

    def _turn(
        self, places: Sequence[_Place[J, R]], cancel: CancelToken
    ) -> Sequence[_Place[J, R]] | _Place[J, R] | None:
        """What this caller does next: take these a step further, finish that one, or go."""
        with self._changed:
            while True:
                if not any(place.busy for place in places):
                    cancel.check()
                    for place in places:
                        if place.error is not None:
                            raise place.error
                        if place.job.done and place.result is None:
                            return place
                    if all(place.result is not None for place in places):
                        return None
                waiting = [place for place in self._on_way if not place.left]
                if waiting and not self._led and not any(place.job.done for place in waiting):
                    batch = [waiting[index] for index in choose([one.job.bucket for one in waiting], self._most)]
                    self._led = True
                    for place in batch:
                        place.busy = True
                    return batch
                self._changed.wait(_LOOK)

    def _lead(self, batch: Sequence[_Place[J, R]]) -> None:
        try:
            self._serve(batch)
        finally:
            with self._changed:
                self._led = False
                for place in batch:
                    place.busy = False
                self._changed.notify_all()

    def _serve(self, batch: Sequence[_Place[J, R]]) -> None:
        try:
            self._step([place.job for place in batch])
            self._told(len(batch))
            return
        except Exception as failed:
            if len(batch) == 1:
                batch[0].error = failed
                return
        # Not inside the handler: while an error is held, so is all the memory that its step had taken, which may be
        # what it failed for; and an error of one must not carry the others' frames as its context.
        for place in batch:
            self._serve([place])
