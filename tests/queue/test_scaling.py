"""The number of replicas, on a fake clock: what it must never do, and a day of it."""

import math
import random
from collections import deque
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nanoswap.queue.scaling import Demand, Fleet, Rules, Window, desired, floor, follow

WEEKDAYS, WEEKEND = frozenset(range(5)), frozenset({5, 6})
PEAK = Window(days=WEEKDAYS, begin=13 * 60 + 45, end=22 * 60, replicas=4)
PARTY = Window(days=WEEKEND, begin=20 * 60, end=2 * 60, replicas=6)
RULES = Rules(slots=1, minimum=1, maximum=8, target_wait=3.0, cold_start=60.0, windows=(PEAK, PARTY))
EMPTY = Demand(work=0.0, oldest=0.0, turns=0)
NIGHT = datetime(2026, 11, 26, 3, tzinfo=UTC).timestamp()  # a Thursday


def utc(day: int, hour: int, minute: int, second: int = 0) -> float:
    """A moment of November 2026; the 23rd is a Monday."""
    return datetime(2026, 11, day, hour, minute, second, tzinfo=UTC).timestamp()


def fleet(target: int, ready: int | None = None, *, now: float = NIGHT, calm: float = 0.0, busy: float = 0.0) -> Fleet:
    """As if nothing had changed for an hour, and nobody had waited for ``calm`` seconds."""
    return Fleet(
        target=target,
        ready=target if ready is None else ready,
        changed=now - 3600,
        calm=now - calm,
        seen=now,
        turn_seconds=busy * calm,
    )


demands = st.builds(
    Demand,
    work=st.floats(0, 5000),
    oldest=st.sampled_from([0.0, 0.5]) | st.floats(0, 600),
    turns=st.integers(0, 40),
    p95=st.none() | st.floats(0, 600),
)
rules = st.builds(
    lambda least, more, **other: Rules(minimum=least, maximum=least + more, **other),
    st.integers(1, 4),
    st.integers(0, 12),
    slots=st.integers(1, 4),
    target_wait=st.sampled_from([3.0, 180.0]),
    cold_start=st.sampled_from([5.0, 60.0, 900.0]),
    windows=st.sampled_from([(), (PEAK,), (PEAK, PARTY)]),
)
moments = st.floats(utc(22, 0, 0), utc(30, 0, 0))


@st.composite
def fleets(draw: st.DrawFn, now: float, most: int) -> Fleet:
    target = draw(st.integers(1, most))
    return fleet(
        target,
        draw(st.integers(0, target)),
        now=now,
        calm=draw(st.sampled_from([0.0, 599.0, 600.0, 5000.0])),
        busy=draw(st.floats(0, 10)),
    )


@given(data=st.data(), demand=demands, rules=rules, now=moments)
def test_never_below_the_floor_nor_the_running_work_nor_down_by_two(
    data: st.DataObject, demand: Demand, rules: Rules, now: float
) -> None:
    before = data.draw(fleets(now, rules.maximum))
    wanted = desired(demand, rules, now, before)
    assert rules.minimum <= floor(rules, now) <= wanted <= rules.maximum
    assert wanted >= before.target - 1
    if wanted < before.target:
        assert wanted * rules.slots >= demand.turns
        assert demand.oldest < 1
        assert now - before.calm >= rules.step_down


@given(data=st.data(), demand=demands, more=st.floats(0, 5000), rules=rules, now=moments)
def test_more_waiting_work_or_longer_waits_never_mean_fewer_replicas(
    data: st.DataObject, demand: Demand, more: float, rules: Rules, now: float
) -> None:
    before = data.draw(fleets(now, rules.maximum))
    wanted = desired(demand, rules, now, before)
    assert desired(replace(demand, work=demand.work + more), rules, now, before) >= wanted
    assert desired(replace(demand, oldest=demand.oldest + more), rules, now, before) >= wanted


@settings(max_examples=60, deadline=None)
@given(demand=demands, rules=rules, start=st.integers(1, 16))
def test_the_same_demand_always_comes_to_rest(demand: Demand, rules: Rules, start: int) -> None:
    """The loop closed: what is asked for is ready a cold start later, and nobody's demand changes."""
    rules = replace(rules, windows=())
    target = ready = min(start, rules.maximum)
    seen, due, now, moves = None, NIGHT, NIGHT, []
    for _ in range(3000):
        seen = follow(seen, demand, target=target, ready=ready, now=now)
        wanted = desired(demand, rules, now, seen)
        if wanted != target:
            moves.append(wanted - target)
            target, due = wanted, now + rules.cold_start
        ready = target if now >= due else min(ready, target)
        now += 30.0
    directions = [move > 0 for move in moves]
    assert directions == sorted(directions, reverse=True), f"up, then down, and no more: {moves}"
    assert len(moves) <= 2 * rules.maximum
    assert now - seen.changed > 2 * (rules.step_down + rules.cold_start) if seen else False, "still moving at the end"


@pytest.mark.parametrize(
    ("now", "least"),
    [
        (utc(23, 13, 43, 59), 1),
        (utc(23, 13, 44), 4),  # a start takes a minute
        (utc(23, 21, 59, 59), 4),
        (utc(23, 22, 0), 1),
        (utc(27, 13, 45), 4),  # Friday
        (utc(28, 13, 45), 1),  # Saturday
        (utc(28, 19, 58, 59), 1),
        (utc(28, 19, 59), 6),
        (utc(29, 0, 0), 6),
        (utc(29, 1, 59, 59), 6),
        (utc(29, 2, 0), 1),
        (utc(30, 1, 59, 59), 6),  # Monday, still Sunday's
        (utc(30, 2, 0), 1),
        (utc(28, 1, 0), 1),  # Friday's night isn't the weekend's
    ],
)
def test_floor_by_the_clock(now: float, least: int) -> None:
    assert floor(RULES, now) == least


def test_a_window_from_midnight_begins_the_day_before() -> None:
    night = Window(days=frozenset({0}), begin=0, end=60, replicas=3)
    rules = replace(RULES, windows=(night,), cold_start=300.0)
    assert [floor(rules, utc(22, 23, 54, 59)), floor(rules, utc(22, 23, 55)), floor(rules, utc(23, 1, 0))] == [1, 3, 1]


def test_a_window_may_last_a_day_and_asks_for_no_more_than_the_maximum() -> None:
    always = Window(days=frozenset({0}), begin=600, end=600, replicas=99)
    rules = replace(RULES, windows=(always,), cold_start=1.0)
    assert [floor(rules, utc(23, 9, 59)), floor(rules, utc(23, 10, 0)), floor(rules, utc(24, 9, 59))] == [1, 8, 8]
    assert floor(rules, utc(24, 10, 0)) == 1


def test_work_that_will_be_gone_before_others_could_help_starts_nobody() -> None:
    burst = Demand(work=60.0, oldest=0.5, turns=2)
    assert desired(burst, RULES, NIGHT, fleet(1)) == 1
    assert desired(replace(burst, work=120.1), RULES, NIGHT, fleet(1)) == 2
    # Those that aren't ready yet do nothing until then.
    assert desired(replace(burst, work=120.1), RULES, NIGHT, fleet(2, 0)) == 3


def test_where_people_may_wait_for_longer_than_a_start_takes_the_work_may_too() -> None:
    clips = replace(RULES, target_wait=180.0, slots=2)
    demand = Demand(work=120.0 + 360.0, oldest=0.5, turns=2)
    assert desired(demand, clips, NIGHT, fleet(1)) == 1
    assert desired(replace(demand, work=481.0), clips, NIGHT, fleet(1)) == 2


def test_replicas_on_their_way_count() -> None:
    demand = Demand(work=170.0, oldest=20.0, turns=2)
    assert desired(demand, RULES, NIGHT, fleet(1)) == 2
    assert desired(demand, RULES, NIGHT, fleet(2, 1)) == 2


def test_long_waits_add_one_and_wait_for_it() -> None:
    stuck = Demand(work=2.0, oldest=3.1, turns=2)
    assert desired(replace(stuck, oldest=3.0), RULES, NIGHT, fleet(1)) == 1
    assert desired(stuck, RULES, NIGHT, fleet(1)) == 2
    assert desired(stuck, RULES, NIGHT, fleet(2, 1)) == 2
    new = follow(fleet(2, 1), stuck, target=2, ready=2, now=NIGHT)
    assert desired(stuck, RULES, NIGHT + 59, new) == 2
    assert desired(stuck, RULES, NIGHT + 60, new) == 3


def test_one_of_twenty_may_wait_longer_but_nobody_for_ever() -> None:
    stuck = Demand(work=2.0, oldest=14.9, turns=2, p95=3.0)
    assert desired(stuck, RULES, NIGHT, fleet(1)) == 1
    assert desired(replace(stuck, p95=3.1), RULES, NIGHT, fleet(1)) == 2
    assert desired(replace(stuck, oldest=2.9, p95=60.0), RULES, NIGHT, fleet(1)) == 1, "that was then"
    assert desired(replace(stuck, oldest=15.1), RULES, NIGHT, fleet(1)) == 2


def test_one_step_down_after_each_calm_spell() -> None:
    target, seen, steps, now = 4, None, [], NIGHT
    while now < NIGHT + 2400:
        seen = follow(seen, EMPTY, target=target, ready=target, now=now)
        if (wanted := desired(EMPTY, RULES, now, seen)) != target:
            steps.append((round(now - NIGHT), wanted))
            target = wanted
        now += 1
    assert steps == [(600, 3), (1201, 2), (1802, 1)]


def test_a_wait_or_a_change_begins_the_calm_anew() -> None:
    calm = fleet(3, calm=599.0)
    waited = follow(calm, Demand(work=1.0, oldest=1.0, turns=3), target=3, ready=3, now=NIGHT + 1)
    assert desired(EMPTY, RULES, NIGHT + 2, follow(waited, EMPTY, target=3, ready=3, now=NIGHT + 2)) == 3
    grown = follow(calm, EMPTY, target=3, ready=2, now=NIGHT + 1)
    assert desired(EMPTY, RULES, NIGHT + 1, grown) == 3
    # The moment between a place and its turn is no wait.
    passing = follow(calm, Demand(work=9.0, oldest=0.4, turns=0), target=3, ready=3, now=NIGHT + 1)
    assert desired(EMPTY, RULES, NIGHT + 1, passing) == 2
    turned_back = follow(calm, EMPTY, target=3, ready=3, now=NIGHT - 100)
    assert turned_back.calm == NIGHT - 100


@given(busy=st.floats(0, 3), slots=st.integers(1, 3))
def test_goes_down_only_where_what_ran_leaves_room(busy: float, slots: int) -> None:
    assume(not math.isclose(busy, 1.4 * slots))
    rules = replace(RULES, slots=slots)
    assert desired(EMPTY, rules, NIGHT, fleet(3, calm=600.0, busy=busy)) == (2 if busy < 1.4 * slots else 3)


def test_does_not_go_down_where_it_would_come_back_up() -> None:
    rush = Demand(work=240.0, oldest=0.5, turns=0)
    assert desired(rush, RULES, NIGHT, fleet(3, calm=600.0)) == 2
    assert desired(replace(rush, work=241.0), RULES, NIGHT, fleet(3, calm=600.0)) == 3


def test_mean_of_turns_is_over_time() -> None:
    seen = follow(None, EMPTY, target=3, ready=3, now=NIGHT)
    assert seen.busy == math.inf
    seen = follow(seen, replace(EMPTY, turns=3), target=3, ready=3, now=NIGHT + 10)
    seen = follow(seen, replace(EMPTY, turns=1), target=3, ready=3, now=NIGHT + 40)
    assert seen.busy == (3 * 10 + 1 * 30) / 40


def test_a_peak_from_end_to_end() -> None:
    """13:30 to 23:30 of a Monday, nobody there: four before the peak, one by one down after it."""
    target, seen, steps = 1, None, []
    for second in range(10 * 3600):
        now = utc(23, 13, 30) + second
        seen = follow(seen, EMPTY, target=target, ready=target, now=now)
        if (wanted := desired(EMPTY, RULES, now, seen)) != target:
            steps.append((f"{datetime.fromtimestamp(now, UTC):%H:%M}", wanted))
            target = wanted
    assert steps == [("13:44", 4), ("22:00", 3), ("22:10", 2), ("22:20", 1)]


def crowd(rate: float, mean: float, rules: Rules, hours: float) -> tuple[list[tuple[float, int]], list[float]]:
    """Moves and waits of a line that is served first come, first served, with Poisson arrivals and log-normal times."""
    rng, waiting, ends, due = random.Random(7), deque[tuple[float, float]](), list[float](), list[float]()
    target = ready = rules.minimum
    seen, moves, waits, now, then = None, list[tuple[float, int]](), list[float](), 0.0, 0.0
    while now < hours * 3600:
        now += 0.5
        while (then := then or now + rng.expovariate(rate)) <= now:
            waiting.append((then, mean * rng.lognormvariate(0, 0.4)))
            then += rng.expovariate(rate)
        ready, due = ready + sum(moment <= now for moment in due), [moment for moment in due if moment > now]
        ends = [end for end in ends if end > now]
        while waiting and len(ends) < ready * rules.slots:
            joined, seconds = waiting.popleft()
            waits.append(now - joined)
            ends.append(now + seconds)
        last = sorted(waits[-400:])
        demand = Demand(
            work=sum(seconds for _, seconds in waiting),
            oldest=now - waiting[0][0] if waiting else 0.0,
            turns=len(ends),
            p95=last[len(last) * 19 // 20] if last else None,
        )
        seen = follow(seen, demand, target=target, ready=ready, now=now)
        if (wanted := desired(demand, rules, now, seen)) != target:
            moves.append((now, wanted))
            due += [now + rules.cold_start] * (wanted - target)
            ready, target = min(ready, wanted), wanted
    return moves, waits


@pytest.mark.parametrize(
    ("rate", "mean", "target_wait"), [(1.25, 2.0, 3.0), (3 / 60, 60.0, 180.0)], ids=["image", "video"]
)
def test_an_even_crowd_hardly_moves_the_number_and_waits_as_it_should(
    rate: float, mean: float, target_wait: float
) -> None:
    """Work for two and a half, or three, replicas, from one on."""
    rules = replace(RULES, windows=(), maximum=20, target_wait=target_wait)
    moves, waits = crowd(rate, mean, rules, 6.0)
    assert max(wanted for _, wanted in moves) <= 7
    assert sum(moment > 3600 for moment, _ in moves) <= 8
    settled = sorted(waits[len(waits) // 6 :])
    assert settled[len(settled) * 19 // 20] <= target_wait
