"""The rules of the room, as a stateful property test on the Redis room and the in-memory twin in step.

Both get the same calls at the same (injected) times; every answer must agree, and after every step the rules that make
the room fair must hold in what they answer. A rule broken in one of the two shows as a difference, in both as a broken
invariant.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace

import pytest
import redis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nanoswap.queue.eta import MIN_SAMPLES
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.redis_room import RedisRoom
from nanoswap.queue.redis_server import RedisServer
from nanoswap.queue.room import Joined, Policy, Refused, RoomError, WaitingRoom
from nanoswap.queue.session import LEEWAY_SECONDS, MAX_LIFE_SECONDS
from nanoswap.queue.tally import WAIT_BOUNDS, Tally, bucket
from nanoswap.queue.ticket import Declaration, Kind, Outcome, Place, Progress, State, Ticket, new_ticket_id

POLICY = Policy(max_tickets_per_account=3, max_waiting=8, horizon=300.0)
ACCOUNTS = ("ann", "bob", "cem")
WORKERS = ("w1", "w2")
HOW = ("own", "own", "own", "forged", "foreign")
START = 1_800_000_000_000


def declaration(kind: Kind = Kind.IMAGE, width: int = 100) -> Declaration:
    return Declaration(kind=kind, bytes=1000, width=width, height=100, frames=1, consent="likeness-3")


@dataclass(slots=True)
class Pair:
    """One ticket as both rooms know it: ids and nonces differ, everything else must not."""

    account: str
    kind: Kind
    ids: tuple[str, str]
    worker: str | None = None


def plain(place: Place) -> tuple[object, ...]:
    """All of a place that both rooms must agree on."""
    ticket = place.ticket
    eta = None if place.eta is None else (round(place.eta.p50, 1), round(place.eta.p90, 1))
    return (
        *(ticket.account, ticket.kind, ticket.state, ticket.estimate, ticket.debt, ticket.score, ticket.joined),
        *(ticket.attempts, ticket.grant is None, ticket.grant_expires, ticket.progress, ticket.outcome),
        *(place.position, None if place.ahead is None else round(place.ahead, 2), eta),
    )


class Rooms(RuleBasedStateMachine):
    """Drives both rooms."""

    url: str

    @initialize()
    def open(self) -> None:
        self.now = START
        self.runner = asyncio.Runner()
        with redis.Redis.from_url(self.url) as store:
            store.flushall()
        self.rooms: tuple[WaitingRoom, WaitingRoom] = (
            MemoryRoom(POLICY, clock=lambda: self.now),
            RedisRoom(self.url, POLICY, clock=lambda: self.now),
        )
        self.pairs: list[Pair] = []
        self.redeemed: set[str] = set()
        #: account -> access tokens issued until then (s) are refused
        self.denied: dict[str, int] = {}
        #: account -> when it was last erased, ms
        self.erased: dict[str, int] = {}
        #: GPU seconds of turns that went well: estimated and used
        self.took: dict[Kind, list[tuple[float, float]]] = {kind: [] for kind in Kind}

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.rooms[1].close())
            self.runner.close()

    def both(self, call: Callable[[WaitingRoom, int], Awaitable[object]]) -> list[object]:
        """Make the same call on both rooms; errors are answers."""

        async def one(side: int) -> object:
            try:
                return await call(self.rooms[side], side)
            except RoomError as error:
                wait = round(error.retry_after, 1) if isinstance(error, Refused) else None
                return (type(error).__name__, wait)

        return [self.runner.run(one(side)) for side in (0, 1)]

    def agree(self, call: Callable[[WaitingRoom, int], Awaitable[object]]) -> object:
        memory, store = self.both(call)
        assert memory == store
        return memory

    def place(self, pair: Pair) -> Place:
        memory, store = self.both(lambda room, side: room.place(pair.ids[side], pair.account))
        if isinstance(memory, tuple) or isinstance(store, tuple):
            raise AssertionError((memory, store))
        assert isinstance(memory, Place)
        assert isinstance(store, Place)
        assert plain(memory) == plain(store)
        return memory

    def pick(self, index: int) -> Pair:
        return self.pairs[index % len(self.pairs)]

    # Steps ------------------------------------------------------------------------------------------------------

    @rule(
        account=st.sampled_from(ACCOUNTS),
        estimate=st.sampled_from([0.3, 2.0, 25.0]),
        kind=st.sampled_from([Kind.IMAGE, Kind.IMAGE, Kind.IMAGE, Kind.VIDEO]),
        key=st.sampled_from([None, None, "k1", "k2"]),
        width=st.sampled_from([100, 200]),
    )
    def join(self, account: str, estimate: float, kind: Kind, key: str | None, width: int) -> None:
        self.now += 1
        wanted = declaration(kind, width)
        memory, store = self.both(lambda room, _: room.join(account, wanted, estimate, idempotency_key=key))
        if not isinstance(memory, Joined) or not isinstance(store, Joined):
            assert memory == store
            return
        assert plain(memory.place) == plain(store.place)
        assert memory.replayed == store.replayed
        ids = (memory.place.ticket.id, store.place.ticket.id)
        if memory.replayed:
            # The key belongs to the account: whoever replays gets a ticket of their own.
            (old,) = [pair for pair in self.pairs if pair.ids == ids]
            assert old.account == account
        else:
            assert all(pair.ids[0] != ids[0] for pair in self.pairs)
            self.pairs.append(Pair(account, kind, ids))

    @rule(
        slots=st.integers(1, 2),
        worker=st.sampled_from(WORKERS),
        alive=st.sampled_from([5.0, 60.0]),
        jobs=st.sampled_from([None, 1]),
    )
    def enlist(self, slots: int, worker: str, alive: float, jobs: int | None = None) -> None:
        self.agree(lambda room, _: room.enlist(worker, Kind.IMAGE, slots, alive, jobs=jobs))

    @rule(worker=st.sampled_from(WORKERS))
    def retire(self, worker: str) -> None:
        self.agree(lambda room, _: room.retire(worker))

    @rule(kind=st.sampled_from(list(Kind)))
    def grant(self, kind: Kind) -> None:
        before = self.runner.run(self.rooms[0].line(kind))
        memory, store = self.both(lambda room, _: room.grant(kind))
        assert isinstance(memory, list)
        assert isinstance(store, list)
        known = [{pair.ids[side]: number for number, pair in enumerate(self.pairs)} for side in (0, 1)]
        assert [known[0][name] for name in memory] == [known[1][name] for name in store]
        room = before.slots * (1 + POLICY.ahead) - before.granted - before.running
        assert len(memory) <= max(0, room)
        scores = [self.place(self.pairs[known[0][name]]).ticket.score for name in memory]
        assert scores == sorted(scores)
        after = self.runner.run(self.rooms[0].line(kind))
        if len(memory) < room:
            # Work conserving: a turn stays free only when nobody is there to take it.
            assert after.waiting == 0

    @precondition(lambda self: self.pairs)
    @rule(
        index=st.integers(0, 30),
        worker=st.sampled_from(WORKERS),
        how=st.sampled_from(HOW),
    )
    def redeem(self, index: int, worker: str, how: str) -> None:
        pair = self.pick(index)
        places = [self.runner.run(room.place(pair.ids[side], pair.account)) for side, room in enumerate(self.rooms)]
        nonces = [place.ticket.grant or "none" for place in places]
        account = "eve" if how == "foreign" else pair.account
        if how == "forged":
            nonces = ["0" * 40, "0" * 40]
        memory, store = self.both(lambda room, side: room.redeem(pair.ids[side], account, nonces[side], worker))
        if isinstance(memory, Ticket):
            assert isinstance(store, Ticket)
            assert how == "own"
            assert nonces[0] not in self.redeemed, "a grant was redeemed twice"
            self.redeemed.add(nonces[0])
            pair.worker = worker
            again = self.both(lambda room, side: room.redeem(pair.ids[side], account, nonces[side], worker))
            assert again == [("GrantUsed", None)] * 2
        else:
            assert memory == store

    @precondition(lambda self: self.pairs)
    @rule(index=st.integers(0, 30), worker=st.sampled_from(WORKERS), done=st.integers(0, 3))
    def renew(self, index: int, worker: str, done: int) -> None:
        pair = self.pick(index)
        step = Progress("swap", done, 3)
        held = self.agree(
            lambda room, side: room.report(pair.ids[side], worker, step) if done else room.renew(pair.ids[side], worker)
        )
        assert held == (self.place(pair).ticket.state is State.RUNNING and pair.worker == worker)

    @precondition(lambda self: self.pairs)
    @rule(index=st.integers(0, 30), used=st.sampled_from([0.1, 3.0]), code=st.sampled_from([None, None, "no_face"]))
    def finish(self, index: int, used: float, code: str | None) -> None:
        pair = self.pick(index)
        outcome = Outcome(code=code, bytes=5, sha256="ab", gpu_seconds=used)
        before = self.quota(pair.account)
        place = self.place(pair)
        done = self.agree(lambda room, side: room.finish(pair.ids[side], pair.worker or "", outcome))
        assert done == (place.ticket.state is State.RUNNING)
        if done and code is None:
            self.took[pair.kind].append((place.ticket.estimate, used))
        if done and before > 0:
            settled = before + used / POLICY.phi - place.ticket.debt
            assert math.isclose(self.quota(pair.account), max(0.0, settled), abs_tol=0.01)

    @precondition(lambda self: self.pairs)
    @rule(index=st.integers(0, 30), used=st.sampled_from([0.1, 3.0]), code=st.sampled_from([None, None, "no_face"]))
    def remember(self, index: int, used: float, code: str | None) -> None:
        """A worker that lost its turn to a stalled store had delivered it all the same."""
        pair = self.pick(index)
        outcome = Outcome(code=code, bytes=5, sha256="ab", gpu_seconds=used)
        ahead, before = self.quota(pair.account), self.place(pair).ticket
        done = self.agree(lambda room, side: room.remember(replace(before, id=pair.ids[side]), outcome))
        after = self.place(pair).ticket
        assert done == (before.state in (State.WAITING, State.GRANTED, State.PARKED))
        if not done:
            assert (after.state, after.outcome) == (before.state, before.outcome), "an end was written over"
            return
        assert (after.state, after.outcome) == (State.FAILED if code else State.SUCCEEDED, outcome)
        if ahead > 0:
            settled = max(0.0, ahead + used / POLICY.phi - before.debt)
            assert math.isclose(self.quota(pair.account), settled, abs_tol=0.01)

    @rule(
        account=st.sampled_from(ACCOUNTS),
        kind=st.sampled_from(list(Kind)),
        age=st.sampled_from([0.0, 30.0, POLICY.life + 1]),
        used=st.sampled_from([0.1, 3.0]),
    )
    def remember_forgotten(self, account: str, kind: Kind, age: float, used: float) -> None:
        """The same of a ticket that the store has lost since."""
        self.now += 1
        joined = self.now - round(age * 1000)
        lost = Ticket(
            **asdict(declaration(kind)),
            id=new_ticket_id(),
            account=account,
            state=State.RUNNING,
            estimate=2.0,
            debt=20.0,
            score=joined,
            joined=joined,
        )
        outcome = Outcome(code=None, bytes=5, sha256="ab", gpu_seconds=used)
        owed = self.quota(account)
        done = self.agree(lambda room, _: room.remember(lost, outcome))
        assert done == (age < POLICY.life and joined > self.erased.get(account, 0))
        assert math.isclose(self.quota(account), owed + (used / POLICY.phi if done else 0.0), abs_tol=0.01)
        if done:
            self.pairs.append(Pair(account, kind, (lost.id, lost.id)))
            assert self.place(self.pairs[-1]).ticket.outcome == outcome

    @precondition(lambda self: self.pairs)
    @rule(index=st.integers(0, 30), used=st.sampled_from([0.0, 1.5]))
    def release(self, index: int, used: float) -> None:
        pair = self.pick(index)
        before, ahead = self.place(pair).ticket, self.quota(pair.account)
        given = self.agree(lambda room, side: room.release(pair.ids[side], pair.worker or "", used))
        after = self.place(pair).ticket
        assert given == (before.state is State.RUNNING)
        if given and ahead > 0 and after.state is State.PARKED:
            assert math.isclose(self.quota(pair.account), ahead + used / POLICY.phi, abs_tol=0.01)
        if given:
            assert after.state is (State.ABORTED if after.attempts >= POLICY.max_attempts else State.PARKED)
            assert (after.score, after.joined) == (before.score, before.joined), "the place was lost"

    @precondition(lambda self: self.pairs)
    @rule(index=st.integers(0, 30), foreign=st.booleans())
    def cancel(self, index: int, foreign: bool) -> None:
        pair = self.pick(index)
        account = "eve" if foreign else pair.account
        self.agree(lambda room, side: room.cancel(pair.ids[side], account))
        if not foreign:
            assert self.place(pair).ticket.state.terminal

    @precondition(lambda self: self.pairs)
    @rule(indices=st.lists(st.integers(0, 30), min_size=1, max_size=6))
    def beat(self, indices: list[int]) -> None:
        pairs = [self.pick(index) for index in indices]
        before = [self.place(pair).ticket for pair in pairs]
        answers = self.both(lambda room, side: room.beat([pair.ids[side] for pair in pairs] + ["t_unknown"]))
        for old, memory, store in zip(before, *answers, strict=False):
            assert isinstance(memory, Place)
            assert isinstance(store, Place)
            assert plain(memory) == plain(store)
            if old.state is State.PARKED:
                assert memory.ticket.state is State.WAITING
            assert memory.ticket.score == old.score
        assert all(isinstance(answer, list) and answer[-1] is None for answer in answers)

    @rule(seconds=st.sampled_from([0.01, 1.0, 10.0, 16.0, 21.0, 46.0]))
    def wait(self, seconds: float) -> None:
        self.now += round(seconds * 1000)

    @rule()
    def sweep(self) -> None:
        self.agree(lambda room, _: room.sweep())

    @rule(account=st.sampled_from(ACCOUNTS), earlier=st.sampled_from([0, 0, 3600]), forgive=st.booleans())
    def erase(self, account: str, earlier: int, forgive: bool) -> None:
        moment = self.now // 1000 - earlier
        mine = [pair for pair in self.pairs if pair.account == account]
        tickets = [self.place(pair).ticket for pair in mine]
        still_open = sum(not ticket.state.terminal for ticket in tickets)
        unused = (State.WAITING, State.GRANTED, State.PARKED)
        owed, refund = self.quota(account), sum(ticket.debt for ticket in tickets if ticket.state in unused)
        ended = self.agree(lambda room, _: room.erase(account, moment, forgive=forgive))
        if moment <= self.denied.get(account, 0):
            assert ended == 0, "a call that came twice erased twice"
            return
        assert ended == still_open
        self.denied[account], self.erased[account] = moment, self.now
        for pair in mine:
            gone = self.both(lambda room, side, pair=pair: room.place(pair.ids[side], account))  # type: ignore[misc]
            assert gone == [("TicketNotFound", None)] * 2
            kept_on = self.both(lambda room, side, pair=pair: room.renew(pair.ids[side], pair.worker or ""))  # type: ignore[misc]
            assert kept_on == [False, False], "the swap of an erased account goes on"
        self.pairs = [pair for pair in self.pairs if pair.account != account]
        left = 0.0 if forgive else max(0.0, owed - refund)
        assert math.isclose(self.quota(account), left, abs_tol=0.01), "debt can't be dropped by erasing"

    @rule(account=st.sampled_from(ACCOUNTS))
    def busy_spell(self, account: str) -> None:
        """Somebody comes, gets a turn and begins it: deep states are reached in one step."""
        self.enlist(2, "w1", 60.0)
        self.join(account, 2.0, Kind.IMAGE, None, 100)
        self.grant(Kind.IMAGE)
        for index in range(len(self.pairs)):
            if self.place(self.pairs[index]).ticket.state is State.GRANTED:
                self.redeem(index, "w1", "own")

    @rule(account=st.sampled_from(ACCOUNTS))
    def nobody_home(self, account: str) -> None:
        """A turn gets free while the next in line hasn't been heard of for a while."""
        self.retire("w1")
        self.retire("w2")
        self.join(account, 2.0, Kind.IMAGE, None, 100)
        self.now += round(POLICY.presence * 1000) + 1
        self.enlist(2, "w1", 5.0)
        waiting = [pair for pair in self.pairs if self.place(pair).ticket.state is State.WAITING]
        self.grant(Kind.IMAGE)
        assert all(self.place(pair).ticket.state in (State.WAITING, State.PARKED) for pair in waiting)

    @rule(account=st.sampled_from(ACCOUNTS))
    def nobody_comes(self, account: str) -> None:
        """A turn is granted and not begun."""
        self.enlist(2, "w1", 60.0)
        self.join(account, 2.0, Kind.IMAGE, None, 100)
        self.grant(Kind.IMAGE)
        self.now += round(POLICY.grant * 1000)
        self.sweep()

    @rule()
    def worker_dies(self) -> None:
        """Leases lapse while those who are there stay: the lost turns come back at their places."""
        running = [pair for pair in self.pairs if self.place(pair).ticket.state is State.RUNNING]
        before = [self.place(pair).ticket for pair in running]
        self.now += round(POLICY.lease * 1000) + 1
        self.sweep()
        for pair, old in zip(running, before, strict=True):
            new = self.place(pair).ticket
            assert new.attempts == old.attempts + 1
            assert (new.score, new.joined) == (old.score, old.joined)
            assert new.state in (State.PARKED, State.ABORTED)

    # What must hold whatever happened ---------------------------------------------------------------------------

    def quota(self, account: str) -> float:
        memory, store = self.both(lambda room, _: room.quota(account))
        assert memory == store
        return float(memory.refill_seconds)  # type: ignore[attr-defined]

    @invariant()
    def both_rooms_agree_and_the_line_is_in_order(self) -> None:
        if not hasattr(self, "rooms"):
            return
        for account in ACCOUNTS:
            self.quota(account)
            for issued in (self.denied.get(account, 0) + step for step in (-1, 0, 1)):
                refused = self.agree(lambda room, _, who=account, at=issued: room.denied(who, at))  # type: ignore[misc]
                assert refused == (account in self.denied and issued <= self.denied[account])
            mine = [pair for pair in self.pairs if pair.account == account]
            open_tickets = [pair for pair in mine if not self.place(pair).ticket.state.terminal]
            assert len(open_tickets) <= POLICY.max_tickets_per_account
        for kind in Kind:
            line = self.agree(lambda room, _, kind=kind: room.line(kind))  # type: ignore[misc]
            sums = self.agree(lambda room, _, kind=kind: room.tally(kind))  # type: ignore[misc]
            assert isinstance(sums, Tally)
            assert sum(sums.waits) <= sums.tickets[State.GRANTED]
            assert sums.covered <= sums.quoted <= sums.tickets[State.WAITING]
            assert sums.no_shows <= sums.tickets[State.EXPIRED] + sums.tickets[State.PARKED]
            places = [self.place(pair) for pair in self.pairs if pair.kind is kind]
            waiting = sorted((place.position, place.ticket.score) for place in places if place.position)
            assert [position for position, _ in waiting] == list(range(1, len(waiting) + 1))
            assert [score for _, score in waiting] == sorted(score for _, score in waiting)
            work = sum(place.ticket.estimate for place in places if place.ticket.state is State.WAITING)
            if len(took := self.took[kind]) >= MIN_SAMPLES:
                work *= sum(used for _, used in took) / sum(estimated for estimated, _ in took)
            assert math.isclose(line.work_seconds, work, abs_tol=1e-6)  # type: ignore[attr-defined]
            joined = [place.ticket.joined for place in places if place.ticket.state is State.WAITING]
            # Who was away is back since later than they joined.
            longest = (self.now - min(joined, default=self.now)) / 1000
            assert 0 <= line.oldest_seconds <= longest  # type: ignore[attr-defined]
            counts = [place.ticket.state for place in places]
            assert line.granted == counts.count(State.GRANTED)  # type: ignore[attr-defined]
            assert line.running == counts.count(State.RUNNING)  # type: ignore[attr-defined]


def test_rooms_agree(redis_server: RedisServer) -> None:
    class Machine(Rooms):
        url = redis_server.url

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=80,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            # A failing run is short enough to read; shrinking one takes minutes.
            phases=(Phase.generate,),
        ),
    )


async def test_a_burst_delays_the_one_who_bursts(redis_url: str) -> None:
    """Nine jobs of one account, then one of another: the other is served second, not tenth."""
    now = START
    policy = Policy(max_tickets_per_account=20)
    room = RedisRoom(redis_url, policy, clock=lambda: now)
    for number in range(9):
        now += 1
        await room.join("burster", declaration(width=100 + number), 2.0, idempotency_key=None)
    now += 1
    other = await room.join("other", declaration(), 2.0, idempotency_key=None)
    assert other.place.position == 2
    await room.close()


@pytest.mark.parametrize("make", ["memory", "redis"])
async def test_the_line_tells_how_long_the_first_to_come_has_waited_without_a_break(redis_url: str, make: str) -> None:
    now = START
    room: WaitingRoom = MemoryRoom(POLICY, clock=lambda: now)
    if make == "redis":
        room = RedisRoom(redis_url, POLICY, clock=lambda: now)

    async def oldest() -> float:
        return (await room.line(Kind.IMAGE)).oldest_seconds

    assert await oldest() == 0
    long = (await room.join("ann", declaration(), 25.0, idempotency_key=None)).place.ticket
    now += 10_000
    short = (await room.join("bob", declaration(), 0.3, idempotency_key=None)).place
    assert short.position == 1
    now += 36_000
    assert await oldest() == 46, "of who came first, not of who is next"
    await room.beat([short.ticket.id])
    await room.sweep()
    assert (await room.place(long.id, "ann")).ticket.state is State.PARKED
    assert await oldest() == 36, "who is away doesn't wait, and hearing of somebody doesn't begin their wait anew"
    now += 4_000
    await room.cancel(short.ticket.id, "bob")
    assert await oldest() == 0
    await room.beat([long.id])
    now += 1_500
    await room.beat([long.id])
    assert await oldest() == 1.5, "who comes back keeps the place and waits anew"
    await room.cancel(long.id, "ann")
    await room.restore(replace(long, id="t_forgotten"), "ann")
    now += 500
    assert await oldest() == 0.5, "so does who is put back"
    await room.close()


async def test_short_jobs_get_a_head_start_but_nobody_starves(redis_url: str) -> None:
    now = START
    room = RedisRoom(redis_url, Policy(), clock=lambda: now)
    long = await room.join("long", declaration(), 60.0, idempotency_key=None)
    now += 1000
    short = await room.join("short", declaration(), 0.3, idempotency_key=None)
    assert short.place.position == 1
    # Only those who join within boost_cap can overtake.
    now += round(Policy().boost_cap * 1000)
    late = await room.join("late", declaration(), 0.3, idempotency_key=None)
    overtaken = await room.place(long.place.ticket.id, "long")
    assert overtaken.position == 2
    assert late.place.position == 3
    await room.close()


@pytest.mark.parametrize("wiped", [True, False], ids=["wiped", "kept"])
async def test_restore_gives_back_the_place_and_never_a_second_turn(redis_url: str, wiped: bool) -> None:
    now = START
    room = RedisRoom(redis_url, Policy(), clock=lambda: now)
    first = (await room.join("ann", declaration(), 2.0, idempotency_key=None)).place.ticket
    now += 10
    second = (await room.join("bob", declaration(), 2.0, idempotency_key=None)).place.ticket
    await room.cancel(second.id, "bob")
    if wiped:
        with redis.Redis.from_url(redis_url) as store:
            store.flushall()
    now += 10
    await room.join("cem", declaration(), 2.0, idempotency_key=None)
    assert (await room.restore(first, "ann")).position == 1
    assert (await room.restore(first, "ann")).position == 1
    if not wiped:
        ended = await room.restore(second, "bob")
        assert ended.ticket.state is State.CANCELED
    with pytest.raises(RoomError):
        await room.restore(first, "eve")
    now += round(Policy().life * 1000)
    with redis.Redis.from_url(redis_url) as store:
        store.flushall()
    with pytest.raises(RoomError):
        await room.restore(first, "ann")
    await room.close()


@pytest.mark.parametrize("make", ["memory", "redis"])
async def test_a_turn_that_ended_is_remembered_whatever_the_store_has_forgotten(redis_url: str, make: str) -> None:
    now = START

    def new_room() -> WaitingRoom:
        """One that knows nothing."""
        if make == "memory":
            return MemoryRoom(POLICY, clock=lambda: now)
        with redis.Redis.from_url(redis_url) as store:
            store.flushall()
        return RedisRoom(redis_url, POLICY, clock=lambda: now)

    async def running(room: WaitingRoom, account: str) -> Ticket:
        await room.enlist("w", Kind.IMAGE, 8, 3600.0)
        joined = (await room.join(account, declaration(), 2.0, idempotency_key=None)).place.ticket
        await room.grant(Kind.IMAGE)
        nonce = (await room.place(joined.id, account)).ticket.grant
        return await room.redeem(joined.id, account, nonce or "", "w")

    done = Outcome(code=None, bytes=9, sha256="ab" * 32, gpu_seconds=1.5)
    room = new_room()
    ticket = await running(room, "ann")
    assert not await room.remember(ticket, done), "its own worker still has it"
    await room.close()

    # Emptied: it is known again as what it was, costs what it cost, and its seal brings nothing back.
    room = new_room()
    assert not await room.finish(ticket.id, "w", done)
    assert await room.remember(ticket, done)
    found = (await room.place(ticket.id, "ann")).ticket
    assert (found.state, found.outcome, found.joined) == (State.SUCCEEDED, done, ticket.joined)
    assert (await room.quota("ann")).refill_seconds == pytest.approx(1.5 / POLICY.phi)
    assert (await room.quota("ann")).open_tickets == 0
    assert (await room.restore(ticket, "ann")).ticket.state is State.SUCCEEDED
    assert not await room.remember(ticket, done), "once"
    await room.close()

    # Emptied, and its owner was quicker and is in line again.
    room = new_room()
    assert (await room.restore(ticket, "ann")).ticket.state is State.WAITING
    assert await room.remember(ticket, done)
    assert (await room.place(ticket.id, "ann")).ticket.state is State.SUCCEEDED
    line = await room.line(Kind.IMAGE)
    assert (line.waiting, line.work_seconds) == (0, 0)
    await room.close()

    # The worker was taken for lost.
    room = new_room()
    ticket = await running(room, "ann")
    now += round(POLICY.lease * 1000) + 1
    assert (await room.sweep()).lost == 1
    assert await room.remember(ticket, done)
    assert (await room.place(ticket.id, "ann")).ticket.state is State.SUCCEEDED
    await room.close()

    # Too late: the account is gone, or the ticket.
    room = new_room()
    await room.erase("ann", now // 1000, forgive=True)
    assert not await room.remember(ticket, done)
    await room.close()
    room = new_room()
    now += round(POLICY.life * 1000)
    assert not await room.remember(ticket, done)
    await room.close()


@pytest.mark.parametrize("make", ["memory", "redis"])
async def test_erased_account_can_not_be_brought_back_by_its_seals(redis_url: str, make: str) -> None:
    now = START
    room: WaitingRoom = MemoryRoom(POLICY, clock=lambda: now)
    if make == "redis":
        room = RedisRoom(redis_url, POLICY, clock=lambda: now)
    ticket = (await room.join("ann", declaration(), 2.0, idempotency_key="k")).place.ticket
    now += 10
    assert await room.erase("ann", now // 1000, forgive=True) == 1
    assert (await room.quota("ann")).refill_seconds == 0
    with pytest.raises(RoomError):
        await room.restore(ticket, "ann")
    now += 10
    fresh = await room.join("ann", declaration(), 2.0, idempotency_key="k")
    assert not fresh.replayed
    await room.close()


@pytest.mark.parametrize("make", ["memory", "redis"])
async def test_tokens_from_before_an_erasure_are_refused_while_any_of_them_can_be_valid(
    redis_url: str, make: str
) -> None:
    now = START
    room: WaitingRoom = MemoryRoom(POLICY, clock=lambda: now)
    if make == "redis":
        room = RedisRoom(redis_url, POLICY, clock=lambda: now)
    moment = now // 1000
    await room.erase("ann", moment, forgive=True)
    assert POLICY.denial >= MAX_LIFE_SECONDS + LEEWAY_SECONDS
    now += (MAX_LIFE_SECONDS + LEEWAY_SECONDS) * 1000
    assert await room.denied("ann", moment)
    assert not await room.denied("ann", moment + 1), "whoever signs in anew is welcome"
    assert not await room.denied("bob", moment)
    now += round(POLICY.denial * 1000)
    assert not await room.denied("ann", moment)
    await room.close()


async def test_erasing_leaves_no_key_and_no_value_of_the_account_but_two_notes_that_lapse(redis_url: str) -> None:
    room = RedisRoom(redis_url, POLICY)
    account = "a1" * 32
    ended = []
    for number in range(3):
        ended.append((await room.join(account, declaration(), 2.0, idempotency_key=f"k{number}")).place.ticket.id)
        if number == 0:
            await room.cancel(ended[0], account)
    await room.enlist("w", Kind.IMAGE, 1, 60.0)
    (granted, *_) = await room.grant(Kind.IMAGE)
    running = (await room.place(granted, account)).ticket
    await room.redeem(granted, account, running.grant or "", "w")
    await room.join("other", declaration(), 2.0, idempotency_key="k")
    # The set that lists an account's keys may lapse before a ticket that is kept open for longer than it lasts.
    with redis.Redis.from_url(redis_url, decode_responses=True) as store:
        tickets = [f"{{nanoswap}}:t:{name}" for name in (granted, ended[0])]
        assert store.srem(f"{{nanoswap}}:k:{account}", *tickets) == 2
    assert await room.erase(account, START // 1000, forgive=True) == 2
    assert not await room.renew(granted, "w"), "the worker must hear of it"
    with redis.Redis.from_url(redis_url, decode_responses=True) as store:
        named = {key for key in store.scan_iter() if account in key}
        assert named == {f"{{nanoswap}}:{note}:{account}" for note in "xd"}
        assert all(0 < store.pttl(key) <= POLICY.denial * 1000 for key in named)
        hashes = [key for key in store.scan_iter(_type="hash") if account in store.hvals(key)]
        assert len(hashes) == 1, "the ticket that had ended is not known any more: it lapses"
        assert store.hget(hashes[0], "state") == "canceled"
        assert 0 < store.pttl(hashes[0]) <= POLICY.tombstone * 1000
    assert (await room.line(Kind.IMAGE)).waiting + (await room.line(Kind.IMAGE)).granted == 1
    await room.close()


async def in_both(url: str, story: Callable[[WaitingRoom, list[int]], Awaitable[None]]) -> Tally:
    """What a story leaves in the sums of the image line of both rooms; it moves the time in its list's only number."""
    found = []
    for memory in (True, False):
        now = [START]
        room: WaitingRoom = (
            MemoryRoom(POLICY, clock=lambda now=now: now[0])  # type: ignore[misc]
            if memory
            else RedisRoom(url, POLICY, clock=lambda now=now: now[0])  # type: ignore[misc]
        )
        await room.enlist("w", Kind.IMAGE, 1, 3600.0)
        await story(room, now)
        found.append(await room.tally(Kind.IMAGE))
        await room.close()
    assert found[0] == found[1]
    return found[0]


async def test_waits_and_quotes_are_counted_as_they_were(redis_url: str) -> None:
    async def story(room: WaitingRoom, now: list[int]) -> None:
        # Two turns on one slot; the next two wait behind them, of whom one waits as long as told and one longer.
        for name in ("a", "b", "c", "d"):
            now[0] += 1
            await room.join(name, declaration(), 2.0, idempotency_key=None)
        first, second = await room.grant(Kind.IMAGE)
        for ticket_id, name in ((first, "a"), (second, "b")):
            nonce = (await room.place(ticket_id, name)).ticket.grant
            assert (await room.redeem(ticket_id, name, nonce or "", "w")).account == name
        now[0] += 1_999
        done = Outcome(code=None, bytes=1, sha256="", gpu_seconds=2.0)
        await room.finish(first, "w", done)
        (third,) = await room.grant(Kind.IMAGE)
        now[0] += 500
        nonce = (await room.place(third, "c")).ticket.grant
        await room.redeem(third, "c", nonce or "", "w")
        now[0] += 39_500
        await room.finish(second, "w", done)
        (fourth,) = await room.grant(Kind.IMAGE)
        nonce = (await room.place(fourth, "d")).ticket.grant
        await room.redeem(fourth, "d", nonce or "", "w")

    sums = await in_both(redis_url, story)
    assert [sums.tickets[state] for state in (State.WAITING, State.GRANTED, State.RUNNING, State.SUCCEEDED)] == [
        4, 4, 4, 2
    ]  # fmt: skip
    waits = dict(zip((*WAIT_BOUNDS, math.inf), sums.waits, strict=True))
    assert {bound: count for bound, count in waits.items() if count} == {0.5: 2, 2.0: 1, 60.0: 1}
    assert sums.wait_seconds == 44.004
    # For the first two a turn was free, so they were told nothing that could hold.
    assert (sums.quoted, sums.covered) == (2, 1)


@pytest.mark.parametrize(
    ("seconds", "how", "quoted"),
    [(0.5, "cancel", 0), (40.0, "cancel", 1), (40.0, "erase", 1), (46.0, "sweep", 1)],
)
async def test_who_leaves_after_the_quoted_time_was_told_too_little(
    redis_url: str, seconds: float, how: str, quoted: int
) -> None:
    async def story(room: WaitingRoom, now: list[int]) -> None:
        for name in ("a", "b", "c"):
            ticket = (await room.join(name, declaration(), 2.0, idempotency_key=None)).place.ticket
            if name != "c":
                await room.grant(Kind.IMAGE)
        now[0] += round(seconds * 1000)
        match how:
            case "cancel":
                await room.cancel(ticket.id, "c")
            case "erase":
                await room.erase("c", now[0] // 1000, forgive=False)
            case _:
                await room.sweep()

    sums = await in_both(redis_url, story)
    assert (sums.quoted, sums.covered) == (quoted, 0)


async def test_a_grant_that_nobody_comes_for_is_a_no_show(redis_url: str) -> None:
    async def story(room: WaitingRoom, now: list[int]) -> None:
        ticket = (await room.join("a", declaration(), 2.0, idempotency_key=None)).place.ticket
        for attempt in range(1, POLICY.max_attempts + 1):
            assert await room.grant(Kind.IMAGE) == [ticket.id]
            now[0] += round(POLICY.grant * 1000)
            assert (await room.sweep()).expired == 1
            found = (await room.place(ticket.id, "a")).ticket
            last = attempt == POLICY.max_attempts
            assert (found.state, found.attempts) == (State.EXPIRED if last else State.PARKED, attempt)
            assert await room.grant(Kind.IMAGE) == [], "nobody is granted a turn who isn't there"
            await room.beat([ticket.id])
        # Once, and never heard of again: over as soon as somebody who is unheard of, and the debt stays.
        alone = (await room.join("c", declaration(), 20.0, idempotency_key=None)).place.ticket
        await room.grant(Kind.IMAGE)
        now[0] += round(POLICY.grant * 1000)
        assert (await room.sweep()).expired == 1
        owed = (await room.quota("c")).refill_seconds
        now[0] += round(POLICY.presence * 1000)
        assert (await room.sweep()).forgotten == 1
        assert (await room.place(alone.id, "c")).ticket.state is State.EXPIRED
        assert (await room.quota("c")).refill_seconds == pytest.approx(max(0.0, owed - POLICY.presence))
        # Parked for too long ends in the same state and is none.
        await room.join("b", declaration(), 2.0, idempotency_key=None)
        for seconds in (POLICY.presence, POLICY.parked):
            now[0] += round(seconds * 1000)
            await room.sweep()

    sums = await in_both(redis_url, story)
    assert (sums.no_shows, sums.tickets[State.EXPIRED], sums.tickets[State.PARKED]) == (4, 3, 4)


async def test_who_had_a_turn_and_did_not_come_says_nothing_about_the_quote(redis_url: str) -> None:
    async def story(room: WaitingRoom, now: list[int]) -> None:
        for name in ("a", "b", "c"):
            now[0] += 1
            await room.join(name, declaration(), 2.0, idempotency_key=None)
        first, _ = await room.grant(Kind.IMAGE)
        await room.cancel(first, "a")
        assert len(await room.grant(Kind.IMAGE)) == 1
        now[0] += round(POLICY.grant * 1000)
        assert (await room.sweep()).expired == 2

    sums = await in_both(redis_url, story)
    assert (sums.quoted, sums.no_shows) == (0, 2)


async def test_the_next_turn_of_a_worker_begins_when_another_ends(redis_url: str) -> None:
    async def story(room: WaitingRoom, now: list[int]) -> None:
        tickets = []
        for name in ("a", "b", "c", "d"):
            now[0] += 1
            tickets.append((await room.join(name, declaration(), 10.0, idempotency_key=None)).place.ticket.id)
        for ticket_id, name in zip(await room.grant(Kind.IMAGE), ("a", "b"), strict=True):
            nonce = (await room.place(ticket_id, name)).ticket.grant
            await room.redeem(ticket_id, name, nonce or "", "w")
        now[0] += 6_000
        third = (await room.place(tickets[2], "c")).eta
        assert third is not None
        assert third.replayed == 4.0
        await room.finish(tickets[0], "w", Outcome(code=None, bytes=1, sha256="", gpu_seconds=10.0))
        await room.grant(Kind.IMAGE)
        now[0] += 1_000
        fourth = (await room.place(tickets[3], "d")).eta
        assert fourth is not None
        assert fourth.replayed == 9.0
        # The third comes and goes: it was waiting there itself.
        nonce = (await room.place(tickets[2], "c")).ticket.grant
        await room.redeem(tickets[2], "c", nonce or "", "w")
        await room.cancel(tickets[2], "c")
        last = (await room.join("e", declaration(), 10.0, idempotency_key=None)).place.ticket.id
        await room.grant(Kind.IMAGE)
        fifth = (await room.place(last, "e")).eta
        assert fifth is not None
        assert fifth.replayed == 9.0

    await in_both(redis_url, story)


async def test_a_worker_that_has_gone_leaves_no_key(redis_url: str) -> None:
    now = START
    room = RedisRoom(redis_url, POLICY, clock=lambda: now)

    async def turn(worker: str) -> str:
        await room.enlist(worker, Kind.IMAGE, 1, 5.0)
        ticket = (await room.join(worker, declaration(), 2.0, idempotency_key=None)).place.ticket
        await room.grant(Kind.IMAGE)
        nonce = (await room.place(ticket.id, worker)).ticket.grant
        return (await room.redeem(ticket.id, worker, nonce or "", worker)).id

    done = Outcome(code=None, bytes=1, sha256="", gpu_seconds=2.0)
    with redis.Redis.from_url(redis_url, decode_responses=True) as store:
        store.flushall()

        def fields() -> set[str]:
            return {field for name in ("slots", "jobs", "end") for field in store.hkeys(f"{{nanoswap}}:{name}")}

        early, late = await turn("early"), await turn("late")
        await room.finish(early, "early", done)
        assert fields() == {"early", "late"}
        await room.retire("early")
        assert fields() == {"late"}
        now += 6_000
        await room.sweep()
        # Its turn ends after it has gone.
        assert await room.finish(late, "late", done)
        assert fields() == set()
    await room.close()


def test_a_wait_at_a_bound_is_below_it() -> None:
    assert [bucket(seconds) for seconds in (0.0, 0.5, 0.501, 3600.0, 3600.1)] == [0, 0, 1, 14, 15]
