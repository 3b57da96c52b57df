"""The estimate: the replay is exact where it can be, and the quoted range covers what it says."""

import heapq
import random
from collections import deque

import pytest

from nanoswap.queue.eta import DEFAULT_RATIOS, MIN_SAMPLES, REPLAY, Given, Load, eta, first_end, line, ratios, replay
from nanoswap.queue.score import boost, debt
from nanoswap.queue.ticket import Eta, Kind


def load(**changes: object) -> Load:
    values: dict[str, object] = {
        "kind": Kind.IMAGE, "now": 0, "waiting": 0, "work": 0.0, "granted": 0, "running": 0, "slots": 1, "workers": 1,
        "jobs": 1, "turns": (), "ended": {}, "waits": (), "told": (), "services": (),
    }  # fmt: skip
    return Load(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rank", "busy", "slots", "ahead", "wait"),
    [
        (0, [], 1, 0, None),
        (0, [3.0], 2, 0, None),
        (0, [3.0], 1, 0, 3.0),
        (2, [], 1, 0, 4.0),
        (2, [3.0, 1.0], 2, 0, 3.0),
        # More turns than may be: those of a worker that has gone.
        (0, [1.0, 5.0], 1, 0, 6.0),
        # One turn ahead for each slot: it is free as soon as the first one ends.
        (0, [3.0], 1, 1, None),
        (0, [3.0, 2.0], 1, 1, 3.0),
        (1, [3.0, 2.0], 1, 1, 5.0),
        (2, [3.0, 1.0, 2.0, 2.0], 2, 1, 3.0),
        (3, [3.0, 1.0, 2.0, 2.0], 2, 1, 5.0),
    ],
)
def test_replay(rank: int, busy: list[float], slots: int, ahead: int, wait: float | None) -> None:
    assert replay(rank, 2.0, busy, slots, slots * (1 + ahead)) == wait


def waited(rank: int = 0, **changes: object) -> float | None:
    """What the range is made of, on one slot with one turn ahead."""
    found = eta(load(**({"slots": 1, "ahead": 1} | changes)), rank)
    assert found is not None
    return found.replayed


def test_a_turn_that_waits_at_its_worker_has_not_begun() -> None:
    """Both came three seconds ago; the second has had its worker for one, since the first one ended."""
    first, second = Given(5.0, 3.0, "w"), Given(4.0, 2.9, "w")
    assert waited(running=2, turns=(second, first)) == 5.0 - 3.0
    assert waited(1, running=2, turns=(second, first), waiting=1, work=2.0) == 5.0 - 3.0 + 4.0
    after = {"running": 1, "granted": 1, "turns": (second, Given(9.0, 0.0, "")), "ended": {"w": 1.0}}
    assert waited(**after) == 4.0 - 1.0
    assert waited(**(after | {"ended": {}})) == pytest.approx(4.0 - 2.9)


def test_a_worker_of_two_slots_that_works_on_one_is_one() -> None:
    turns = (Given(60.0, 30.0, "w"), Given(60.0, 29.0, "w"))
    assert waited(slots=2, ahead=0, jobs=1, running=2, turns=turns) == 30.0
    assert waited(1, slots=2, ahead=0, jobs=1, running=2, turns=turns, waiting=1, work=60.0) == 90.0
    assert waited(1, slots=2, ahead=0, jobs=2, running=2, turns=turns, waiting=1, work=60.0) == 31.0


def test_each_worker_has_its_own_turns() -> None:
    turns = (Given(9.0, 3.0, "v"), Given(9.0, 2.0, "w"), Given(9.0, 1.0, "w"), Given(9.0, 0.0, "v"))
    found = {"slots": 2, "jobs": 2, "workers": 2, "running": 4, "turns": turns, "ended": {"v": 1.5}}
    # Of "v" the first may have begun when the one before it ended.
    assert [waited(rank, **found) for rank in (0, 1, 2, 3)] == [7.0, 7.5, 16.0, 16.5]


def test_who_works_on_more_than_it_takes_works_on_what_it_has() -> None:
    turns = (Given(1.0, 0.0, "w"), Given(5.0, 0.0, "w"))
    assert waited(1, ahead=0, slots=2, jobs=4, running=2, turns=turns, waiting=1, work=2.0) == 3.0


def test_estimates_are_scaled_by_how_long_turns_took() -> None:
    """An engine that takes four times as long as was thought: 2 s of 4 are past, and one more is before us."""
    slow = {"ahead": 0, "running": 1, "turns": (Given(1.0, 2.0, "w"),), "services": ((1.0, 4.0),) * MIN_SAMPLES}
    assert waited(**slow) == 2.0
    assert waited(1, **slow, waiting=2, work=2.0) == 2.0 + 4.0
    found = load(waiting=2, work=2.0, services=slow["services"])
    assert line(found).work_seconds == 8.0, "the scaling asks for as many as are needed"


@pytest.mark.parametrize("services", [((0.3, 20.0),) * (MIN_SAMPLES - 1), ((1.0, 0.0),) * 50, ()])
def test_a_few_turns_or_none_scale_nothing(services: tuple[tuple[float, float], ...]) -> None:
    assert line(load(waiting=2, work=2.0, services=services)).work_seconds == 2.0


def test_who_has_too_many_tickets_is_told_when_one_should_have_ended() -> None:
    """One is worked on, one waits there, and then it is the turn of ours: three times 300 s."""
    turns = (Given(300.0, 0.0, "w"), Given(300.0, 0.0, ""))
    found = load(ahead=1, running=1, granted=1, turns=turns, waiting=1, work=300.0)
    assert first_end(found, 0, 15.0) == 900.0
    assert first_end(load(slots=0, workers=0, jobs=0), 0, 15.0) == 15.0 + 1.0


def test_who_finds_a_turn_free_is_told_nothing_else() -> None:
    found = eta(load(slots=2, running=1, turns=(Given(9.0, 0.0, "w"),), told=((1.0, 99.0),) * 50), 0)
    assert found == Eta(0.0, 0.0, None)


def test_long_lines_are_extrapolated() -> None:
    assert replay(REPLAY + 1000, 2.0, [], 4, 4) == pytest.approx((REPLAY + 1000) / 4 * 2.0, rel=0.01)


def test_no_worker_no_estimate() -> None:
    assert eta(load(slots=0, workers=0), 0) is None


def test_few_samples_give_the_default_range() -> None:
    assert ratios([(1.0, 9.0)] * 3) == DEFAULT_RATIOS


@pytest.mark.parametrize("busy", [0.5, 0.9])
def test_quoted_p90_covers_nine_of_ten_in_a_simulated_day(busy: float) -> None:
    """Poisson arrivals on 4 slots, true times 40 % off their estimates either way; at half load four of five find a
    slot free and are told so."""
    rng = random.Random(7)
    free = [0.0] * 4
    told: deque[tuple[float, float]] = deque(maxlen=400)
    running: list[tuple[float, float]] = []  # (end, estimate)
    now, covered, quoted = 0.0, 0, 0
    for number in range(12_000):
        now += rng.expovariate(busy * 4 / 2.0)
        heapq.heapify(free)
        start = max(now, free[0])
        actual = start - now
        queue = [max(0.0, end - now) for end, _ in running if end > now]
        predicted = replay(0, 2.0, sorted(queue), 4, 4)
        if predicted is not None:
            if number > 1000:
                (_, upper) = ratios(told)
                quoted += 1
                covered += actual <= (predicted + 1.0) * upper - 1.0 + 1e-9
            told.appendleft((predicted, actual))
        estimate = rng.expovariate(0.5)
        heapq.heapreplace(free, start + estimate * rng.uniform(0.6, 1.4))
        running = [job for job in running if job[0] > now] + [(start + estimate, estimate)]
    assert quoted > 1000
    assert 0.85 <= covered / quoted <= 0.95


def test_boost_shrinks_with_the_job_and_is_capped() -> None:
    values = [boost(estimate, 0.02, 120.0) for estimate in (0.1, 1.0, 10.0, 100.0)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 120.0
    assert values[-1] > 0
    assert debt(2.0, 0.1) == 20.0
