"""Continuous batching: who shares a step, who waits, what an error or somebody who leaves does to the others."""

import gc
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.errors import Cancelled
from nanoswap.pipelines.step_batch import StepBatcher, choose


@dataclass(eq=False)
class Work:
    name: str
    steps: int
    bucket: int = 512
    taken: int = 0
    wiped: bool = False

    @property
    def done(self) -> bool:
        return self.taken == self.steps


@dataclass
class Steps:
    """What was stepped together, and a gate in front of every step."""

    batches: list[list[str]] = field(default_factory=list)
    gate: Callable[[Sequence[Work]], None] = lambda jobs: None
    at_once: int = 0

    def __call__(self, jobs: Sequence[Work]) -> None:
        self.at_once += 1
        assert self.at_once == 1
        try:
            self.gate(jobs)
            assert len({job.bucket for job in jobs}) == 1
            assert not any(job.wiped or job.done for job in jobs)
            self.batches.append([job.name for job in jobs])
            for job in jobs:
                job.taken += 1
        finally:
            self.at_once -= 1


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def batcher(
    steps: Steps,
    most: int = 8,
    admitted: int = 16,
    finish: Callable[[Work], Work] = lambda job: job,
    told: Callable[[int], None] = lambda _: None,
) -> StepBatcher[Work, Work]:
    return StepBatcher(steps, finish, most=most, admitted=admitted, told=told)


class Held:
    """Steps that each wait to be let through."""

    def __init__(self) -> None:
        self.waiting = threading.Semaphore(0)
        self.let = threading.Semaphore(0)

    def __call__(self, jobs: Sequence[Work]) -> None:
        self.waiting.release()
        assert self.let.acquire(timeout=20)

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            assert self.waiting.acquire(timeout=20)
            self.let.release()


def test_choice_is_whoever_came_first_and_the_next_of_that_size() -> None:
    assert choose([], 4) == []
    assert choose([512, 512, 512], 2) == [0, 1]
    assert choose([512, 1024, 512], 4) == [0, 2]
    assert choose([1024, 512, 512, 1024], 4) == [0, 3]


def test_alone_it_goes_from_step_to_step() -> None:
    steps = Steps()
    (done,) = batcher(steps).run([lambda: Work("a", 5)], CancelToken())
    assert (done.name, done.taken) == ("a", 5)
    assert steps.batches == [["a"]] * 5


def test_joins_at_the_next_step_and_leaves_when_done() -> None:
    held, steps, told = Held(), Steps(), list[int]()
    steps.gate = held
    ours = batcher(steps, told=told.append)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(ours.run, [lambda: Work("a", 4)], CancelToken())
        held.step(2)  # two steps alone: the second is let through when the third waits
        assert held.waiting.acquire(timeout=20)
        second = pool.submit(ours.run, [lambda: Work("b", 3)], CancelToken())
        until(lambda: len(ours._on_way) == 2)
        held.let.release()
        held.step(3)
        assert [job.taken for job in (*first.result(20), *second.result(20))] == [4, 3]
    assert steps.batches == [["a"], ["a"], ["a"], ["a", "b"], ["b"], ["b"]]
    assert told == [1, 1, 1, 2, 1, 1]


def test_buckets_never_share_a_step_and_who_came_first_goes_first() -> None:
    steps = Steps()
    ours = batcher(steps)
    begins = [lambda: Work("s", 3, 512), lambda: Work("l", 3, 1024), lambda: Work("t", 3, 512)]
    ours.run(begins, CancelToken())
    assert steps.batches == [["s", "t"]] * 3 + [["l"]] * 3


def test_who_is_done_is_finished_before_the_next_step_and_is_admitted_until_then() -> None:
    held, steps, said = Held(), Steps(), []
    finishing, go = threading.Event(), threading.Event()

    def finish(job: Work) -> Work:
        if job.name == "a":
            finishing.set()
            assert go.wait(20)
        said.append((job.name, len(steps.batches)))
        return job

    steps.gate = held
    ours = batcher(steps, admitted=2, finish=finish)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ours.run, [lambda: Work("a", 1)], CancelToken())
        assert held.waiting.acquire(timeout=20)
        second = pool.submit(ours.run, [lambda: Work("b", 3)], CancelToken())
        until(lambda: len(ours._on_way) == 2)
        third = pool.submit(ours.run, [lambda: Work("c", 1)], CancelToken())
        until(lambda: len(ours._outside) == 1)
        held.let.release(20)
        assert finishing.wait(20)
        time.sleep(0.3)  # longer than anybody looks around
        assert steps.batches == [["a"]]
        assert len(ours._outside) == 1
        go.set()
        for each in (first, second, third):
            each.result(20)
    assert said[0] == ("a", 1)


def test_error_of_finishing_is_the_callers_own() -> None:
    def fails(job: Work) -> Work:
        if job.name == "b":
            raise RuntimeError("no")
        return job

    ours = batcher(Steps(), finish=fails)
    with pytest.raises(RuntimeError, match="no"):
        ours.run([lambda: Work("a", 1), lambda: Work("b", 2)], CancelToken())
    assert ours.run([lambda: Work("c", 1)], CancelToken())[0].name == "c"
    assert ours._inside == 0


def test_memory_of_a_step_that_failed_is_free_before_each_is_tried_alone() -> None:
    class Taken:
        pass

    alive: list[int] = []
    taken: list[weakref.ref[Taken]] = []

    def breaks(jobs: Sequence[Work]) -> None:
        gc.collect()
        alive.append(sum(one() is not None for one in taken))
        mine = Taken()
        taken.append(weakref.ref(mine))
        if len(jobs) > 1:
            raise MemoryError

    ours = batcher(Steps(gate=breaks))
    ours.run([lambda name=name: Work(name, 1) for name in "abc"], CancelToken())
    assert alive == [0, 0, 0, 0]


def test_no_more_than_most_in_a_step_and_those_who_came_first_leave_first() -> None:
    steps = Steps()
    batcher(steps, most=2).run([lambda name=name: Work(name, 2) for name in "abc"], CancelToken())
    assert steps.batches == [["a", "b"], ["a", "b"], ["c"], ["c"]]


def test_memory_is_bounded_by_admission() -> None:
    held, steps = Held(), Steps()
    steps.gate = held
    ours = batcher(steps, admitted=2)
    begun: list[str] = []

    def begin(name: str) -> Work:
        begun.append(name)
        return Work(name, 2)

    with ThreadPoolExecutor(3) as pool:
        jobs = []
        for name in "abc":
            jobs.append(pool.submit(ours.run, [lambda name=name: begin(name)], CancelToken()))
            until(lambda: len(ours._on_way) == min(2, len(jobs)))
        until(lambda: len(ours._outside) == 1)
        assert begun == ["a", "b"]
        held.step(3)
        held.let.release(20)
        assert [job.result(20)[0].taken for job in jobs] == [2, 2, 2]
    assert begun == ["a", "b", "c"]
    with pytest.raises(ValueError, match="2 are ever admitted"):
        ours.run([lambda: Work("x", 1)] * 3, CancelToken())


def test_who_waits_outside_is_let_in_in_order_also_with_many_faces() -> None:
    held, steps = Held(), Steps()
    steps.gate = held
    ours = batcher(steps, admitted=2)
    with ThreadPoolExecutor(3) as pool:
        one = pool.submit(ours.run, [lambda: Work("a", 3)], CancelToken())
        until(lambda: len(ours._on_way) == 1)
        two = pool.submit(ours.run, [lambda: Work("b", 1), lambda: Work("c", 1)], CancelToken())
        until(lambda: len(ours._outside) == 1)
        # There would be room for it, and those before it would wait for ever if such were let past.
        three = pool.submit(ours.run, [lambda: Work("d", 1)], CancelToken())
        until(lambda: len(ours._outside) == 2)
        held.let.release(20)
        for each in (one, two, three):
            each.result(20)
    assert steps.batches == [["a"]] * 3 + [["b", "c"], ["d"]]


def test_cancelled_between_steps_and_never_while_one_is_made() -> None:
    held, steps = Held(), Steps()
    steps.gate = held
    ours = batcher(steps)
    cancel = CancelToken()
    left: list[Work] = []

    def leaves() -> None:
        mine = Work("b", 9)
        try:
            ours.run([lambda: mine], cancel)
        finally:
            mine.wiped = True
            left.append(mine)

    with ThreadPoolExecutor(2) as pool:
        stays = pool.submit(ours.run, [lambda: Work("a", 4)], CancelToken())
        assert held.waiting.acquire(timeout=20)
        goes = pool.submit(leaves)
        until(lambda: len(ours._on_way) == 2)
        held.let.release()
        assert held.waiting.acquire(timeout=20)  # a step of both is being made
        cancel.cancel()
        time.sleep(0.3)  # longer than it looks around
        assert not left
        held.let.release()
        with pytest.raises(Cancelled):
            goes.result(20)
        held.let.release(20)
        assert stays.result(20)[0].taken == 4
    assert steps.batches == [["a"], ["a", "b"], ["a"], ["a"]]
    assert not ours._on_way


def test_cancelled_outside_makes_room_for_the_next() -> None:
    held, steps = Held(), Steps()
    steps.gate = held
    ours = batcher(steps, admitted=1)
    cancel = CancelToken()
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(ours.run, [lambda: Work("a", 1)], CancelToken())
        assert held.waiting.acquire(timeout=20)
        second = pool.submit(ours.run, [lambda: Work("b", 1)], cancel)
        until(lambda: len(ours._outside) == 1)
        third = pool.submit(ours.run, [lambda: Work("c", 1)], CancelToken())
        until(lambda: len(ours._outside) == 2)
        cancel.cancel()
        with pytest.raises(Cancelled):
            second.result(20)
        held.let.release(20)
        first.result(20)
        third.result(20)
    assert steps.batches == [["a"], ["c"]]


def test_error_of_one_is_not_its_neighbours() -> None:
    def breaks(jobs: Sequence[Work]) -> None:
        if any(job.name == "b" and job.taken == 1 for job in jobs):
            raise RuntimeError("b")

    held, steps = Held(), Steps()
    steps.gate = lambda jobs: (held(jobs), breaks(jobs))[0]
    ours = batcher(steps)
    with ThreadPoolExecutor(3) as pool:
        jobs = []
        for name in "abc":
            jobs.append(pool.submit(ours.run, [lambda name=name: Work(name, 3)], CancelToken()))
            until(lambda: len(ours._on_way) == len(jobs))
        held.let.release(99)
        assert jobs[0].result(20)[0].taken == 3
        assert jobs[2].result(20)[0].taken == 3
        with pytest.raises(RuntimeError, match="b") as raised:
            jobs[1].result(20)
    assert raised.value.__context__ is None
    assert ["a"] in steps.batches
    assert steps.batches[-1] == ["a", "c"] or steps.batches[-1] == ["c"]


def test_beginning_that_fails_leaves_nothing_behind() -> None:
    ours = batcher(Steps(), admitted=2)

    def fails() -> Work:
        raise RuntimeError("no")

    for _ in range(3):
        with pytest.raises(RuntimeError, match="no"):
            ours.run([lambda: Work("a", 1), fails], CancelToken())
    assert ours.run([lambda: Work("a", 1), lambda: Work("b", 1)], CancelToken())[1].done


def test_many_at_once_all_come_to_their_ends() -> None:
    steps = Steps()
    steps.gate = lambda jobs: time.sleep(0.001)
    ours = batcher(steps, most=4, admitted=12)

    def person(number: int) -> int:
        begins = [lambda n=n: Work(f"{number}.{n}", 1 + (number + n) % 7, 512 * (1 + number % 2)) for n in range(2)]
        return sum(job.taken for job in ours.run(begins, CancelToken()))

    with ThreadPoolExecutor(24) as pool:
        assert list(pool.map(person, range(60))) == [2 + n % 7 + (n + 1) % 7 for n in range(60)]
    assert max(map(len, steps.batches)) == 4
    assert ours._inside == 0
