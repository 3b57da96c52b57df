"""The simulated day against the room that it stands for, and the machine that the simulation adds to it."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import replace

import pytest

from nanoswap.queue import memory_room
from nanoswap.queue.baseline import first_in_first_out
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy, QueueFull, QuotaExceeded, Refused, TooManyTickets
from nanoswap.queue.simulation import BURST, HOUR, IMAGE, VIDEO, Arrival, Fleet, Waits, simulate
from nanoswap.queue.sizing import Target, fewest, misses
from nanoswap.queue.ticket import Declaration, Kind, Outcome

KINDS = (Kind.IMAGE, Kind.VIDEO)
REASONS = {TooManyTickets: "tickets", QueueFull: "full", QuotaExceeded: "quota"}
#: Everybody is present and every lease holds, as in the simulation.
PRESENT = Policy(presence=1e6, grant=1e6, lease=1e6)


def fleet(image: int = 1, video: int = 1, **more: object) -> Fleet:
    return replace(Fleet(image=(image,) * 24, video=(video,) * 24, shared=False), **more)  # type: ignore[arg-type]


def crowd(seed: int, jobs: int, accounts: int, seconds: int) -> list[Arrival]:
    """Few accounts that come often, with estimates that miss: every rule has something to do. No two are equal."""
    draw = random.Random(seed)
    moments = sorted(draw.randrange(seconds * 1000) for _ in range(jobs))
    found = []
    for number, at in enumerate(moments):
        group = IMAGE if draw.random() < 0.6 else VIDEO
        work = (draw.randrange(500, 4000) if group == IMAGE else draw.randrange(5000, 60_000)) * 1000 + number
        found.append((at, draw.randrange(accounts), group, work / 1e6 * draw.uniform(0.5, 2.0), work // 1000))
    return found


class Twin:
    """Hears what the simulation did, does the same in the in-memory room, and notes whom that one grants."""

    def __init__(self, policy: Policy) -> None:
        self.now = 0
        self.room = MemoryRoom(policy, clock=lambda: self.now)
        self.arrivals: dict[str, Arrival] = {}
        self.nonces: dict[Arrival, tuple[str, str, str]] = {}
        self.grants: list[tuple[int, Arrival]] = []
        self.ask_again: dict[Arrival, float] = {}

    async def join(self, said: str, arrival: Arrival) -> None:
        if arrival in self.ask_again:
            assert self.now == pytest.approx(self.ask_again.pop(arrival), abs=1)
        kind = KINDS[arrival[2] != IMAGE]
        declared = Declaration(kind=kind, bytes=1, width=1, height=1, frames=1, consent="likeness-3")
        account = f"account{arrival[1]}"
        try:
            joined = await self.room.join(account, declared, arrival[3], idempotency_key=None)
        except Refused as refused:
            answer = REASONS[type(refused)]
            if answer == "quota":
                self.ask_again[arrival] = self.now + refused.retry_after * 1000
        else:
            answer = "join"
        assert answer == said
        if answer != "join":
            return
        self.arrivals[joined.place.ticket.id] = arrival
        await self.grant(kind)

    async def grant(self, kind: Kind) -> None:
        for ticket_id in await self.room.grant(kind):
            arrival = self.arrivals[ticket_id]
            self.grants.append((self.now, arrival))
            account = f"account{arrival[1]}"
            ticket = (await self.room.place(ticket_id, account)).ticket
            assert ticket.grant is not None
            await self.room.redeem(ticket_id, account, ticket.grant, "worker")
            self.nonces[arrival] = (ticket_id, account, ticket.grant)

    async def finish(self, arrival: Arrival) -> None:
        outcome = Outcome(code=None, bytes=1, sha256="", gpu_seconds=arrival[4] / 1000)
        assert await self.room.finish(self.nonces[arrival][0], "worker", outcome)
        await self.grant(KINDS[arrival[2] != IMAGE])


@pytest.mark.parametrize("seed", range(6))
async def test_same_turns_at_the_same_moments_as_the_room(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # Equal scores are ordered by the ticket's id, which is random: here by who came first.
    numbers = itertools.count()
    monkeypatch.setattr(memory_room, "new_ticket_id", lambda: f"t_{next(numbers):06}")
    rules = {"max_waiting": 6, "phi": 0.3, "horizon": 150.0, "max_tickets_per_account": 2}
    policy = replace(PRESENT, ahead=seed % 3, **rules)
    arrivals = crowd(seed, 500, 45, 1500)
    done: list[tuple[int, str, Arrival]] = []
    machines = fleet(2, 3, video_slots=1 + seed % 2)
    waits = simulate(arrivals, policy, machines, watch=lambda *what: done.append(what))
    assert all(waits.refused.values()), "the crowd was too small to be refused for every reason"

    twin = Twin(policy)
    await twin.room.enlist("images", Kind.IMAGE, 2, 1e6)
    await twin.room.enlist("clips", Kind.VIDEO, 3 * machines.video_slots, 1e6)
    for now, what, arrival in done:
        twin.now = now
        if what == "finish":
            await twin.finish(arrival)
        elif what != "grant":
            await twin.join(what, arrival)
    assert twin.grants == [(now, arrival) for now, what, arrival in done if what == "grant"]
    assert len(twin.grants) == len(arrivals) - waits.refused["full"]
    # Fair and not first come, first served: the comparison says something.
    for group in (IMAGE, VIDEO):
        order = [arrival[0] for _, arrival in twin.grants if arrival[2] == group]
        assert order != sorted(order)


def seconds(*arrivals: tuple[float, int, int, float]) -> list[Arrival]:
    """(when, whose, group, work) in seconds, each estimated at what it is."""
    return [(round(at * 1000), account, group, work, round(work * 1000)) for at, account, group, work in arrivals]


def ends(arrivals: Sequence[Arrival], machines: Fleet, policy: Policy = PRESENT) -> dict[int, float]:
    """account -> when its turn ended, in seconds."""
    found: dict[int, float] = {}

    def watch(now: int, what: str, arrival: Arrival) -> None:
        if what == "finish":
            found[arrival[1]] = now / 1000

    simulate(arrivals, policy, machines, watch=watch)
    return found


def test_clip_stands_still_for_the_pictures_of_its_gpu() -> None:
    day = seconds((0, 1, VIDEO, 10), (3, 2, IMAGE, 2), (4, 3, IMAGE, 1), (11, 4, IMAGE, 1))
    assert ends(day, fleet(shared=True, chunk=0.0)) == {1: 14, 2: 5, 3: 6, 4: 12}
    assert ends(day, fleet(shared=False)) == {1: 10, 2: 5, 3: 6, 4: 12}


def test_clip_that_begins_during_a_picture_waits_for_its_end() -> None:
    assert ends(seconds((0, 1, IMAGE, 3), (1, 2, VIDEO, 10)), fleet(shared=True)) == {1: 3, 2: 13}


def test_pictures_at_once_stop_a_clip_once() -> None:
    day = seconds((0, 1, VIDEO, 10), (3, 2, IMAGE, 4), (5, 3, IMAGE, 1))
    assert ends(day, fleet(shared=True, chunk=0.0, image_slots=2)) == {1: 14, 2: 7, 3: 6}
    day = seconds((0, 1, VIDEO, 10), (3, 2, IMAGE, 4), (5, 3, IMAGE, 4))
    assert ends(day, fleet(shared=True, chunk=0.0, image_slots=2)) == {1: 16, 2: 7, 3: 9}


def test_picture_waits_for_the_end_of_a_chunk_and_is_counted_as_waiting() -> None:
    day = [arrival for one in range(200) for arrival in seconds((one * 10, one, IMAGE, 1))]
    day = sorted([*seconds((0, 1000, VIDEO, 9000)), *day])
    waits = simulate(day, PRESENT, fleet(shared=True, chunk=2.0))
    quantiles = waits.quantiles(IMAGE, range(24), (0.05, 0.5, 0.95, 1.0))
    assert quantiles is not None
    assert quantiles == pytest.approx([0.1, 1.0, 1.9, 2.0], abs=0.25)
    assert quantiles[3] <= 2.0


def test_granted_turn_waits_behind_its_own_worker() -> None:
    # Both workers hold one clip; the third is sent to the first of them, and stays there though the other is done.
    day = seconds((0, 1, VIDEO, 100), (0.001, 2, VIDEO, 10), (1, 3, VIDEO, 5))
    assert ends(day, fleet(video=2, video_slots=1)) == {1: 100, 2: 10.001, 3: 105}
    # Not granted ahead, it waits in line for whoever is free.
    assert ends(day, fleet(video=2, video_slots=1), replace(PRESENT, ahead=0))[3] == 15.001


def test_workers_that_leave_end_what_they_hold_and_take_no_more() -> None:
    machines = replace(fleet(), image=(3, 1) + (1,) * 22)
    before = HOUR / 1000 - 1
    late = [(before + 10 + one / 1000, 10 + one, IMAGE, 3.0) for one in range(3)]
    found = ends(seconds(*((before, one, IMAGE, 20.0) for one in range(3)), *late), machines)
    assert [found[one] for one in range(3)] == [before + 20] * 3
    # The one that stays takes them, one after the other.
    assert sorted(found[10 + one] for one in range(3)) == [before + 23, before + 26, before + 29]


def test_workers_that_come_take_those_who_wait() -> None:
    machines = replace(fleet(), image=(1, 3) + (1,) * 22)
    before = HOUR / 1000 - 10
    found = ends(seconds(*((before, one, IMAGE, 100.0) for one in range(4))), machines, replace(PRESENT, ahead=0))
    assert sorted(found.values()) == [before + 100, before + 110, before + 110, before + 200]


def test_wait_counts_from_the_first_ask() -> None:
    burst = seconds(*((0, 7, BURST, 60.0) for _ in range(6)))
    policy = replace(PRESENT, max_tickets_per_account=2)
    waits = simulate(burst, policy, fleet(video=6))
    assert waits.refused["tickets"]
    assert waits.refused["quota"]
    longest = waits.quantiles(BURST, [0], [1.0])
    # Six clips of 600 s of the account's clock each; an ask is granted while it is 1200 s ahead or less.
    assert longest == [pytest.approx(5 * 600 - 1200, abs=1)]
    assert waits.count(BURST, [0]) == 6


def test_first_in_first_out_is_one_line() -> None:
    waits = Waits()
    day = seconds((0, 1, VIDEO, 60), (1, 2, VIDEO, 30), (2, 3, IMAGE, 2), (3, 4, IMAGE, 2))
    assert list(first_in_first_out(day, fleet(shared=True), waits)) == day
    assert list(waits.waits[VIDEO * 24]) == [0, 59_000]
    assert list(waits.waits[IMAGE * 24]) == [88_000, 89_000]
    # Apart, the same two GPUs are two for that line.
    waits = Waits()
    list(first_in_first_out(day, fleet(), waits))
    assert list(waits.waits[IMAGE * 24]) == [29_000, 30_000]


def test_first_in_first_out_follows_the_hours() -> None:
    machines = replace(fleet(shared=True), image=(1, 2) + (1,) * 22)
    waits = Waits()
    at = [hour * HOUR / 1000 + late for hour, late in ((1, -1), (1, 1), (2, 1))]
    day = seconds(*((moment, one, IMAGE, 10) for moment in at for one in range(2)))
    list(first_in_first_out(day, machines, waits))
    assert [list(waits.waits[IMAGE * 24 + hour]) for hour in range(3)] == [[0, 10_000], [0, 10_000], [0, 10_000]]


@pytest.mark.parametrize("seconds", [3.0, 200.0])
def test_fewest_gpus_meet_the_target_and_one_less_does_not(seconds: float) -> None:
    draw = random.Random(3)
    rates = [30] * 8 + [600] * 4 + [30] * 12
    day = [
        (hour * HOUR + draw.randrange(HOUR), number, IMAGE, 2.0, draw.randrange(4000, 8000))
        for hour, rate in enumerate(rates)
        for number in range(hour * 1000, hour * 1000 + rate)
    ]
    target, policy = Target(image=seconds, video=60.0), Policy()
    found = fewest(sorted(day), policy, fleet(), target)
    assert found is not None
    assert not any(misses(simulate(sorted(day), policy, found), target))
    assert found.video == (1,) * 24
    busy = [hour for hour in range(24) if found.image[hour] > 1]
    assert busy
    for hour in busy:
        fewer = replace(found, image=tuple(gpus - (one == hour) for one, gpus in enumerate(found.image)))
        assert any(misses(simulate(sorted(day), policy, fewer), target)), hour


def test_fewest_gpus_of_the_impossible_is_none() -> None:
    # Accounts are at most served as fast as they may be: no GPU helps, and the search ends.
    day = seconds(*((0, 7, VIDEO, 60.0) for _ in range(6)))
    assert fewest(day, Policy(), fleet(), Target(image=1.0, video=1.0)) is None
