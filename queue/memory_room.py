"""The waiting room in memory: the same rules as ``room.lua``, in plain Python, for one process.

It exists to be compared. The property test drives it and the Redis room with the same steps, so a rule that is wrong
in one of them shows; and it is what the gateway's own tests stand on. Nothing here is shared between processes.
"""

import hashlib
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from nanoswap.queue import eta
from nanoswap.queue.eta import Load
from nanoswap.queue.room import (
    GrantExpired,
    GrantUsed,
    IdempotencyMismatch,
    Joined,
    Line,
    Policy,
    QueueFull,
    Quota,
    QuotaExceeded,
    Swept,
    TicketNotFound,
    TooManyTickets,
)
from nanoswap.queue.score import boost, debt
from nanoswap.queue.score import milliseconds as _ms
from nanoswap.queue.tally import Tally, bucket, tally
from nanoswap.queue.ticket import Declaration, Kind, Outcome, Place, Progress, State, Ticket, new_ticket_id

SAMPLES = 400
_OPEN = frozenset(state for state in State if not state.terminal)


@dataclass(slots=True)
class _Held:
    """A ticket and what the room knows of it besides. ``until``: end of presence, grant, lease or parking, in ms."""

    ticket: Ticket
    until: float
    predicted: float = 0.0
    #: What the person was told at the join, ms; None when nothing was, or once it is known whether it held.
    quoted: int | None = None
    #: Came back from parking or a seal: its wait says nothing about the line.
    returned: bool = False
    #: Didn't come for its last turn.
    absent: bool = False
    worker: str | None = None
    started: int = 0
    #: Since when it has been in line without a break, in ms.
    entered: int = 0


@dataclass(slots=True)
class _Samples:
    waits: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    services: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))


class MemoryRoom:
    """A waiting room for one process. ``clock`` gives ms since the epoch."""

    def __init__(self, policy: Policy, *, clock: Callable[[], int] | None = None) -> None:
        self._policy = policy
        self._clock = clock or (lambda: int(time.time() * 1000))
        self._held: dict[str, _Held] = {}
        #: account -> reading of its clock, ms
        self._clocks: dict[str, float] = {}
        self._workers: dict[str, tuple[Kind, int, float]] = {}
        self._keys: dict[tuple[str, str], tuple[str, str, float]] = {}
        self._erased: dict[str, int] = {}
        #: account -> tokens issued until then (s) are refused, and until when (ms) that is known
        self._denied: dict[str, tuple[int, int]] = {}
        self._samples = {kind: _Samples() for kind in Kind}
        self._sums: dict[Kind, Counter[str]] = {kind: Counter() for kind in Kind}

    async def join(
        self, account: str, declaration: Declaration, estimate: float, *, idempotency_key: str | None
    ) -> Joined:
        policy, kind, now = self._policy, declaration.kind, self._now()
        load = self._load(kind)
        digest = hashlib.sha256(repr(declaration).encode()).hexdigest()
        if idempotency_key is not None and (known := self._keys.get((account, idempotency_key))):
            ticket_id, known_digest, expires = known
            if expires > now:
                if known_digest != digest:
                    raise IdempotencyMismatch
                if ticket_id in self._held:
                    return Joined(self._place(self._held[ticket_id]), True)
        mine = self._of(account)
        if len(mine) >= policy.max_tickets_per_account:
            ranks = [rank for held in mine if (rank := self._rank(held)) is not None]
            raise TooManyTickets((eta.predict(load, min(ranks, default=0)) or policy.grant) + load.mean)
        if load.waiting >= policy.max_waiting:
            raise QueueFull(load.mean / max(1, load.slots))
        tat = max(float(now), self._clocks.get(account, 0.0))
        if tat - now > _ms(policy.horizon):
            raise QuotaExceeded((tat - now) / 1000 - policy.horizon)
        owed = _ms(debt(estimate, policy.phi))
        self._clocks[account] = tat + owed
        ticket = Ticket(
            id=new_ticket_id(),
            account=account,
            kind=kind,
            state=State.WAITING,
            estimate=_ms(estimate) / 1000,
            debt=owed / 1000,
            score=round(tat - _ms(boost(estimate, policy.boost_gamma, policy.boost_cap))),
            joined=now,
            bytes=declaration.bytes,
            width=declaration.width,
            height=declaration.height,
            frames=declaration.frames,
            consent=declaration.consent,
        )
        predicted = _ms(eta.predict(load, load.waiting) or 0.0) / 1000
        held = self._held[ticket.id] = _Held(ticket, now + _ms(policy.presence), predicted, entered=now)
        if idempotency_key is not None:
            self._keys[account, idempotency_key] = (ticket.id, digest, now + _ms(policy.idempotency))
        self._sums[kind][State.WAITING] += 1
        place = self._place(held)
        held.quoted = None if place.eta is None else _ms(place.eta.p90)
        return Joined(place, False)

    async def place(self, ticket_id: str, account: str) -> Place:
        return self._place(self._own(ticket_id, account))

    async def beat(self, ticket_ids: Sequence[str]) -> list[Place | None]:
        seen: list[tuple[Ticket, int | None] | None] = []
        for ticket_id in ticket_ids:
            held = self._get(ticket_id)
            if held is None:
                seen.append(None)
                continue
            if held.ticket.state is State.PARKED:
                held.entered = self._now()
            if held.ticket.state in (State.WAITING, State.PARKED):
                self._enter(held, State.WAITING, self._policy.presence)
            seen.append((held.ticket, self._rank(held)))
        # As in the store: ranks are those of each moment, the load is that of the end.
        loads = {kind: self._load(kind) for kind in Kind}
        return [None if one is None else eta.place(*one, loads[one[0].kind]) for one in seen]

    async def restore(self, ticket: Ticket, account: str) -> Place:
        policy, now = self._policy, self._now()
        if ticket.account != account:
            raise TicketNotFound
        if (known := self._get(ticket.id)) is not None:
            return self._place(known)
        if self._over(ticket):
            raise TicketNotFound
        if len(self._of(account)) >= policy.max_tickets_per_account:
            raise TooManyTickets(policy.grant + self._load(ticket.kind).mean)
        start = _ms(boost(ticket.estimate, policy.boost_gamma, policy.boost_cap))
        reading = ticket.score + start + _ms(ticket.debt)
        self._clocks[account] = max(self._clocks.get(account, 0.0), float(reading))
        held = self._held[ticket.id] = _Held(
            replace(ticket, state=State.WAITING), now + _ms(policy.presence), returned=True, entered=now
        )
        return self._place(held)

    async def grant(self, kind: Kind) -> list[str]:
        policy, now = self._policy, self._now()
        slots, _ = self._slots(kind)
        taken = len(self._in(kind, State.GRANTED)) + len(self._in(kind, State.RUNNING))
        given: list[str] = []
        for held in self._line(kind):
            if slots * (1 + policy.ahead) - taken - len(given) <= 0:
                break
            if held.until <= now:
                self._park(held)
                continue
            sums = self._sums[kind]
            sums[State.GRANTED] += 1
            self._settle_quote(held, granted=True)
            if not held.returned:
                wait = now - held.ticket.joined
                self._samples[kind].waits.appendleft((held.predicted, wait / 1000))
                sums[f"wait:{bucket(wait / 1000)}"] += 1
                sums["wait_ms"] += wait
            self._enter(held, State.GRANTED, policy.grant)
            expires = now + _ms(policy.grant)
            held.ticket = replace(held.ticket, grant=secrets.token_hex(20), grant_expires=expires)
            given.append(held.ticket.id)
        return given

    async def redeem(self, ticket_id: str, account: str, nonce: str, worker: str) -> Ticket:
        held = self._own(ticket_id, account)
        if held.ticket.state is State.EXPIRED:
            raise GrantExpired
        if held.ticket.state is not State.GRANTED or held.ticket.grant != nonce:
            raise GrantUsed
        if held.until <= self._now():
            raise GrantExpired
        self._enter(held, State.RUNNING, self._policy.lease)
        held.worker, held.started, held.absent = worker, self._now(), False
        self._sums[held.ticket.kind][State.RUNNING] += 1
        return held.ticket

    async def renew(self, ticket_id: str, worker: str) -> bool:
        held = self._running(ticket_id, worker)
        if held is not None:
            held.until = self._now() + _ms(self._policy.lease)
        return held is not None

    async def report(self, ticket_id: str, worker: str, progress: Progress) -> bool:
        held = self._running(ticket_id, worker)
        if held is not None:
            held.until = self._now() + _ms(self._policy.lease)
            held.ticket = replace(held.ticket, progress=progress)
        return held is not None

    async def finish(self, ticket_id: str, worker: str, outcome: Outcome) -> bool:
        held = self._running(ticket_id, worker)
        if held is None:
            return False
        self._move_clock(held, _ms(debt(outcome.gpu_seconds, self._policy.phi)) - _ms(held.ticket.debt))
        if outcome.code is None:
            self._samples[held.ticket.kind].services.appendleft(_ms(outcome.gpu_seconds) / 1000)
        self._conclude(held, outcome)
        return True

    async def remember(self, ticket: Ticket, outcome: Outcome) -> bool:
        policy, now, held = self._policy, self._now(), self._get(ticket.id)
        used = _ms(debt(outcome.gpu_seconds, policy.phi))
        if held is None:
            if self._over(ticket):
                return False
            self._clocks[ticket.account] = max(float(now), self._clocks.get(ticket.account, 0.0)) + used
            held = self._held[ticket.id] = _Held(ticket, now, returned=True, entered=now)
        elif held.ticket.state not in (State.WAITING, State.GRANTED, State.PARKED):
            return False
        else:
            self._move_clock(held, used - _ms(held.ticket.debt))
        self._conclude(held, outcome)
        return True

    async def release(self, ticket_id: str, worker: str, used: float) -> bool:
        held = self._running(ticket_id, worker)
        if held is not None:
            self._move_clock(held, _ms(debt(used, self._policy.phi)))
            self._give_back(held)
        return held is not None

    async def cancel(self, ticket_id: str, account: str) -> None:
        held = self._own(ticket_id, account)
        if held.ticket.state.terminal:
            return
        if held.ticket.state is not State.RUNNING:
            self._move_clock(held, -_ms(held.ticket.debt))
        self._close(held, State.CANCELED)

    async def sweep(self) -> Swept:
        now = self._now()
        due = [held for held in self._held.values() if held.until <= now]
        parked = [held for held in due if held.ticket.state is State.WAITING]
        expired = [held for held in due if held.ticket.state is State.GRANTED]
        lost = [held for held in due if held.ticket.state is State.RUNNING]
        forgotten = [held for held in due if held.ticket.state is State.PARKED]
        for held in parked:
            self._park(held)
        for held in expired:
            self._sums[held.ticket.kind]["no_shows"] += 1
            held.ticket = replace(held.ticket, attempts=held.ticket.attempts + 1)
            if held.ticket.attempts >= self._policy.max_attempts:
                self._close(held, State.EXPIRED)
            else:
                self._park(held)
                held.absent, held.until = True, now + _ms(self._policy.presence)
        for held in lost:
            self._give_back(held)
        for held in forgotten:
            if not held.absent:
                self._move_clock(held, -_ms(held.ticket.debt))
            self._close(held, State.EXPIRED)
        self._workers = {name: offer for name, offer in self._workers.items() if offer[2] > now}
        return Swept(len(parked), len(expired), len(lost), len(forgotten))

    async def enlist(self, worker: str, kind: Kind, slots: int, alive: float) -> None:
        self._workers[worker] = (kind, slots, self._now() + _ms(alive))

    async def retire(self, worker: str) -> None:
        self._workers.pop(worker, None)

    async def line(self, kind: Kind) -> Line:
        return eta.line(self._load(kind))

    async def tally(self, kind: Kind) -> Tally:
        return tally(kind, self._sums[kind])

    async def quota(self, account: str) -> Quota:
        policy = self._policy
        ahead = max(0.0, (self._clocks.get(account, 0.0) - self._now()) / 1000)
        return Quota(
            available_seconds=max(0.0, policy.horizon - ahead) * policy.phi,
            horizon_seconds=policy.horizon * policy.phi,
            refill_seconds=ahead,
            open_tickets=len(self._of(account)),
            max_tickets=policy.max_tickets_per_account,
        )

    async def erase(self, account: str, issued_until: int, *, forgive: bool) -> int:
        if await self.denied(account, issued_until):
            return 0
        mine = self._of(account)
        for held in mine:
            await self.cancel(held.ticket.id, account)
        self._held = {name: held for name, held in self._held.items() if held.ticket.account != account}
        self._keys = {key: value for key, value in self._keys.items() if key[0] != account}
        if forgive:
            self._clocks.pop(account, None)
        self._erased[account] = self._now() + _ms(self._policy.life)
        self._denied[account] = (issued_until, self._now() + _ms(self._policy.denial))
        return len(mine)

    async def denied(self, account: str, issued_at: int) -> bool:
        until, lapses = self._denied.get(account, (0, 0))
        return lapses > self._now() and issued_at <= until

    async def ping(self) -> None: ...

    async def close(self) -> None: ...

    def _now(self) -> int:
        return self._clock()

    def _get(self, ticket_id: str) -> _Held | None:
        held = self._held.get(ticket_id)
        if held is not None and held.ticket.state.terminal and held.until <= self._now():
            del self._held[ticket_id]
            return None
        return held

    def _own(self, ticket_id: str, account: str) -> _Held:
        held = self._get(ticket_id)
        if held is None or held.ticket.account != account:
            raise TicketNotFound
        return held

    def _running(self, ticket_id: str, worker: str) -> _Held | None:
        held = self._get(ticket_id)
        return held if held and held.ticket.state is State.RUNNING and held.worker == worker else None

    def _of(self, account: str) -> list[_Held]:
        return [held for held in self._held.values() if held.ticket.account == account and held.ticket.state in _OPEN]

    def _in(self, kind: Kind, state: State) -> list[_Held]:
        return [held for held in self._held.values() if held.ticket.kind is kind and held.ticket.state is state]

    def _line(self, kind: Kind) -> list[_Held]:
        return sorted(self._in(kind, State.WAITING), key=lambda held: (held.ticket.score, held.ticket.id))

    def _rank(self, held: _Held) -> int | None:
        if held.ticket.state is not State.WAITING:
            return None
        return [other.ticket.id for other in self._line(held.ticket.kind)].index(held.ticket.id)

    def _place(self, held: _Held) -> Place:
        return eta.place(held.ticket, self._rank(held), self._load(held.ticket.kind))

    def _enter(self, held: _Held, state: State, seconds: float) -> None:
        held.ticket = replace(held.ticket, state=state, grant=None, grant_expires=None)
        held.until = self._now() + _ms(seconds)

    def _park(self, held: _Held) -> None:
        self._settle_quote(held, granted=False)
        self._sums[held.ticket.kind][State.PARKED] += 1
        self._enter(held, State.PARKED, self._policy.parked)
        held.ticket = replace(held.ticket, progress=None)
        held.returned, held.worker = True, None

    def _give_back(self, held: _Held) -> None:
        held.ticket = replace(held.ticket, attempts=held.ticket.attempts + 1)
        if held.ticket.attempts >= self._policy.max_attempts:
            self._move_clock(held, -_ms(held.ticket.debt))
            self._close(held, State.ABORTED)
        else:
            self._park(held)

    def _settle_quote(self, held: _Held, *, granted: bool) -> None:
        if held.quoted is None:
            return
        late = self._now() - held.ticket.joined > held.quoted
        held.quoted = None
        self._sums[held.ticket.kind]["quoted"] += granted or late
        self._sums[held.ticket.kind]["covered"] += granted and not late

    def _close(self, held: _Held, state: State) -> None:
        self._settle_quote(held, granted=False)
        self._sums[held.ticket.kind][state] += 1
        self._enter(held, state, self._policy.tombstone)
        held.ticket = replace(held.ticket, progress=None)

    def _conclude(self, held: _Held, outcome: Outcome) -> None:
        outcome = replace(outcome, gpu_seconds=_ms(outcome.gpu_seconds) / 1000)
        held.ticket = replace(held.ticket, outcome=outcome)
        self._close(held, State.SUCCEEDED if outcome.code is None else State.FAILED)

    def _over(self, ticket: Ticket) -> bool:
        """Whether a sealed ticket is too old, or was made before its account was erased."""
        end = ticket.joined + _ms(self._policy.life)
        return self._now() > end or end <= self._erased.get(ticket.account, 0)

    def _move_clock(self, held: _Held, milliseconds: float) -> None:
        account, now = held.ticket.account, self._now()
        # A clock that has lapsed owes nothing and gets nothing.
        if self._clocks.get(account, 0.0) > now:
            self._clocks[account] += milliseconds

    def _slots(self, kind: Kind) -> tuple[int, int]:
        now = self._now()
        alive = [slots for of, slots, until in self._workers.values() if of is kind and until > now]
        return sum(alive), len(alive)

    def _load(self, kind: Kind) -> Load:
        now = self._now()
        waiting, granted = self._in(kind, State.WAITING), self._in(kind, State.GRANTED)
        running = self._in(kind, State.RUNNING)
        slots, workers = self._slots(kind)
        rest = [max(0, held.started + _ms(held.ticket.estimate) - now) / 1000 for held in running]
        return Load(
            kind=kind,
            now=now,
            waiting=len(waiting),
            work=sum(_ms(held.ticket.estimate) for held in waiting) / 1000,
            granted=len(granted),
            running=len(running),
            slots=slots,
            workers=workers,
            residuals=(*rest, *(held.ticket.estimate for held in granted)),
            waits=tuple(self._samples[kind].waits),
            services=tuple(self._samples[kind].services),
            oldest=(now - min((held.entered for held in waiting), default=now)) / 1000,
        )
