"""The waiting room in memory: the same rules as ``room.lua``, in plain Python, for one process.

It exists to be compared. The property test drives it and the Redis room with the same steps, so a rule that is wrong
in one of them shows; and it is what the gateway's own tests stand on. Nothing here is shared between processes.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from nanoswap.queue import eta
from nanoswap.queue.memory_store import Held, MemoryStore, Offer
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


class MemoryRoom:
    """A waiting room for one process. ``clock`` gives ms since the epoch."""

    def __init__(self, policy: Policy, *, clock: Callable[[], int] | None = None) -> None:
        self._policy = policy
        self._store = MemoryStore(policy, clock or (lambda: int(time.time() * 1000)))

    async def join(
        self, account: str, declaration: Declaration, estimate: float, *, idempotency_key: str | None
    ) -> Joined:
        policy, kind, now = self._policy, declaration.kind, self._store.now()
        load = self._store.load(kind)
        digest = hashlib.sha256(repr(declaration).encode()).hexdigest()
        if idempotency_key is not None and (known := self._store.keys.get((account, idempotency_key))):
            ticket_id, known_digest, expires = known
            if expires > now:
                if known_digest != digest:
                    raise IdempotencyMismatch
                if ticket_id in self._store.held:
                    return Joined(self._store.place(self._store.held[ticket_id]), True)
        mine = self._store.of(account)
        if len(mine) >= policy.max_tickets_per_account:
            ranks = [rank for held in mine if (rank := self._store.rank(held)) is not None]
            raise TooManyTickets(eta.first_end(load, min(ranks, default=0), policy.grant))
        if load.waiting >= policy.max_waiting:
            raise QueueFull(load.mean / max(1, load.jobs))
        tat = max(float(now), self._store.clocks.get(account, 0.0))
        if tat - now > _ms(policy.horizon):
            raise QuotaExceeded((tat - now) / 1000 - policy.horizon)
        owed = _ms(debt(estimate, policy.phi))
        self._store.clocks[account] = tat + owed
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
        held = self._store.held[ticket.id] = Held(ticket, now + _ms(policy.presence), entered=now)
        if idempotency_key is not None:
            self._store.keys[account, idempotency_key] = (ticket.id, digest, now + _ms(policy.idempotency))
        self._store.sums[kind][State.WAITING] += 1
        place = self._store.place(held)
        if place.eta is not None and place.eta.replayed is not None:
            held.quoted = _ms(place.eta.p90), _ms(place.eta.replayed) / 1000
        return Joined(place, False)

    async def place(self, ticket_id: str, account: str) -> Place:
        return self._store.place(self._store.own(ticket_id, account))

    async def beat(self, ticket_ids: Sequence[str]) -> list[Place | None]:
        seen: list[tuple[Ticket, int | None] | None] = []
        for ticket_id in ticket_ids:
            held = self._store.get(ticket_id)
            if held is None:
                seen.append(None)
                continue
            if held.ticket.state is State.PARKED:
                held.entered = self._store.now()
            if held.ticket.state in (State.WAITING, State.PARKED):
                self._store.enter(held, State.WAITING, self._policy.presence)
            seen.append((held.ticket, self._store.rank(held)))
        # As in the store: ranks are those of each moment, the load is that of the end.
        loads = {kind: self._store.load(kind) for kind in Kind}
        return [None if one is None else eta.place(*one, loads[one[0].kind]) for one in seen]

    async def restore(self, ticket: Ticket, account: str) -> Place:
        policy, now = self._policy, self._store.now()
        if ticket.account != account:
            raise TicketNotFound
        if (known := self._store.get(ticket.id)) is not None:
            return self._store.place(known)
        if self._store.over(ticket):
            raise TicketNotFound
        if len(self._store.of(account)) >= policy.max_tickets_per_account:
            raise TooManyTickets(eta.first_end(self._store.load(ticket.kind), 0, policy.grant))
        start = _ms(boost(ticket.estimate, policy.boost_gamma, policy.boost_cap))
        reading = ticket.score + start + _ms(ticket.debt)
        self._store.clocks[account] = max(self._store.clocks.get(account, 0.0), float(reading))
        held = self._store.held[ticket.id] = Held(
            replace(ticket, state=State.WAITING), now + _ms(policy.presence), returned=True, entered=now
        )
        return self._store.place(held)

    async def grant(self, kind: Kind) -> list[str]:
        policy, now = self._policy, self._store.now()
        slots = sum(offer.slots for offer in self._store.offers(kind).values())
        taken = len(self._store.those(kind, State.GRANTED)) + len(self._store.those(kind, State.RUNNING))
        given: list[str] = []
        for held in self._store.line(kind):
            if slots * (1 + policy.ahead) - taken - len(given) <= 0:
                break
            if held.until <= now:
                self._store.park(held)
                continue
            sums = self._store.sums[kind]
            sums[State.GRANTED] += 1
            if not held.returned:
                wait = now - held.ticket.joined
                self._store.samples[kind].waits.appendleft(wait / 1000)
                sums[f"wait:{bucket(wait / 1000)}"] += 1
                sums["wait_ms"] += wait
            self._store.enter(held, State.GRANTED, policy.grant)
            expires = now + _ms(policy.grant)
            held.ticket = replace(held.ticket, grant=secrets.token_hex(20), grant_expires=expires)
            given.append(held.ticket.id)
        return given

    async def redeem(self, ticket_id: str, account: str, nonce: str, worker: str) -> Ticket:
        held = self._store.own(ticket_id, account)
        if held.ticket.state is State.EXPIRED:
            raise GrantExpired
        if held.ticket.state is not State.GRANTED or held.ticket.grant != nonce:
            raise GrantUsed
        if held.until <= self._store.now():
            raise GrantExpired
        if held.quoted is not None:
            wait = (self._store.now() - held.ticket.joined) / 1000
            self._store.samples[held.ticket.kind].told.appendleft((held.quoted[1], wait))
            self._store.settle_quote(held, begun=True)
        self._store.enter(held, State.RUNNING, self._policy.lease)
        held.worker, held.started, held.absent = worker, self._store.now(), False
        self._store.sums[held.ticket.kind][State.RUNNING] += 1
        return held.ticket

    async def renew(self, ticket_id: str, worker: str) -> bool:
        held = self._store.running(ticket_id, worker)
        if held is not None:
            held.until = self._store.now() + _ms(self._policy.lease)
        return held is not None

    async def report(self, ticket_id: str, worker: str, progress: Progress) -> bool:
        held = self._store.running(ticket_id, worker)
        if held is not None:
            held.until = self._store.now() + _ms(self._policy.lease)
            held.ticket = replace(held.ticket, progress=progress)
        return held is not None

    async def finish(self, ticket_id: str, worker: str, outcome: Outcome) -> bool:
        held = self._store.running(ticket_id, worker)
        if held is None:
            return False
        self._store.move_clock(held, _ms(debt(outcome.gpu_seconds, self._policy.phi)) - _ms(held.ticket.debt))
        if outcome.code is None:
            self._store.samples[held.ticket.kind].services.appendleft(
                (held.ticket.estimate, _ms(outcome.gpu_seconds) / 1000)
            )
        self._store.conclude(held, outcome)
        return True

    async def remember(self, ticket: Ticket, outcome: Outcome) -> bool:
        policy, now, held = self._policy, self._store.now(), self._store.get(ticket.id)
        used = _ms(debt(outcome.gpu_seconds, policy.phi))
        if held is None:
            if self._store.over(ticket):
                return False
            self._store.clocks[ticket.account] = max(float(now), self._store.clocks.get(ticket.account, 0.0)) + used
            held = self._store.held[ticket.id] = Held(ticket, now, returned=True, entered=now)
        elif held.ticket.state not in (State.WAITING, State.GRANTED, State.PARKED):
            return False
        else:
            self._store.move_clock(held, used - _ms(held.ticket.debt))
        self._store.conclude(held, outcome)
        return True

    async def release(self, ticket_id: str, worker: str, used: float) -> bool:
        held = self._store.running(ticket_id, worker)
        if held is not None:
            self._store.move_clock(held, _ms(debt(used, self._policy.phi)))
            self._store.give_back(held)
        return held is not None

    async def cancel(self, ticket_id: str, account: str) -> None:
        held = self._store.own(ticket_id, account)
        if held.ticket.state.terminal:
            return
        if held.ticket.state is not State.RUNNING:
            self._store.move_clock(held, -_ms(held.ticket.debt))
        self._store.close(held, State.CANCELED)

    async def sweep(self) -> Swept:
        now = self._store.now()
        due = [held for held in self._store.held.values() if held.until <= now]
        parked = [held for held in due if held.ticket.state is State.WAITING]
        expired = [held for held in due if held.ticket.state is State.GRANTED]
        lost = [held for held in due if held.ticket.state is State.RUNNING]
        forgotten = [held for held in due if held.ticket.state is State.PARKED]
        for held in parked:
            self._store.park(held)
        for held in expired:
            self._store.sums[held.ticket.kind]["no_shows"] += 1
            held.ticket = replace(held.ticket, attempts=held.ticket.attempts + 1)
            if held.ticket.attempts >= self._policy.max_attempts:
                self._store.close(held, State.EXPIRED)
            else:
                self._store.park(held)
                held.absent, held.until = True, now + _ms(self._policy.presence)
        for held in lost:
            self._store.give_back(held)
        for held in forgotten:
            if not held.absent:
                self._store.move_clock(held, -_ms(held.ticket.debt))
            self._store.close(held, State.EXPIRED)
        for worker in [name for name, offer in self._store.workers.items() if offer.until <= now]:
            await self.retire(worker)
        return Swept(len(parked), len(expired), len(lost), len(forgotten))

    async def enlist(self, worker: str, kind: Kind, slots: int, alive: float, *, jobs: int | None = None) -> None:
        offer = Offer(kind, slots, slots if jobs is None else jobs, self._store.now() + _ms(alive))
        self._store.workers[worker] = offer

    async def retire(self, worker: str) -> None:
        self._store.workers.pop(worker, None)
        self._store.ended.pop(worker, None)

    async def line(self, kind: Kind) -> Line:
        return eta.line(self._store.load(kind))

    async def tally(self, kind: Kind) -> Tally:
        return tally(kind, self._store.sums[kind])

    async def quota(self, account: str) -> Quota:
        policy = self._policy
        ahead = max(0.0, (self._store.clocks.get(account, 0.0) - self._store.now()) / 1000)
        return Quota(
            available_seconds=max(0.0, policy.horizon - ahead) * policy.phi,
            horizon_seconds=policy.horizon * policy.phi,
            refill_seconds=ahead,
            open_tickets=len(self._store.of(account)),
            max_tickets=policy.max_tickets_per_account,
        )

    async def erase(self, account: str, issued_until: int, *, forgive: bool) -> int:
        if await self.denied(account, issued_until):
            return 0
        mine = self._store.of(account)
        for held in mine:
            await self.cancel(held.ticket.id, account)
        self._store.held = {name: held for name, held in self._store.held.items() if held.ticket.account != account}
        self._store.keys = {key: value for key, value in self._store.keys.items() if key[0] != account}
        if forgive:
            self._store.clocks.pop(account, None)
        self._store.erased[account] = self._store.now() + _ms(self._policy.life)
        self._store.denied[account] = (issued_until, self._store.now() + _ms(self._policy.denial))
        return len(mine)

    async def denied(self, account: str, issued_at: int) -> bool:
        until, lapses = self._store.denied.get(account, (0, 0))
        return lapses > self._store.now() and issued_at <= until

    async def ping(self) -> None: ...

    async def close(self) -> None: ...
