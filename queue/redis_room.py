"""The waiting room on Redis or Valkey: arguments in, ``room.lua`` decides, plain values out.

One script holds every operation (`redis_script.py`). Keys share one hash tag. Only the 6.2 subset is used, so that any
distribution's server will do.
"""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from typing import Any

from nanoswap.queue import eta, redis_words
from nanoswap.queue.eta import Load
from nanoswap.queue.redis_script import PREFIX, RedisScript
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
from nanoswap.queue.tally import WAIT_BOUNDS, Tally, tally
from nanoswap.queue.ticket import Declaration, Kind, Outcome, Place, Progress, Ticket, new_ticket_id

_KINDS = tuple(kind.value for kind in Kind)


class RedisRoom:
    """The room at ``url`` (redis://, rediss://, unix://). ``clock`` gives ms since the epoch; tests bring their own."""

    def __init__(
        self, url: str, policy: Policy, *, clock: Callable[[], int] | None = None, prefix: str = PREFIX
    ) -> None:
        self._policy = policy
        self._script = RedisScript(url, "room.lua", clock=clock, prefix=prefix, seconds=3.0)

    async def join(
        self, account: str, declaration: Declaration, estimate: float, *, idempotency_key: str | None
    ) -> Joined:
        policy, kind = self._policy, declaration.kind
        load = await self._load(kind)
        key = "" if idempotency_key is None else hashlib.sha256(idempotency_key.encode()).hexdigest()
        digest = hashlib.sha256(repr(declaration).encode()).hexdigest()[:32]
        answer = await self._call(
            "join",
            new_ticket_id(),
            kind.value,
            account,
            _ms(estimate),
            _ms(debt(estimate, policy.phi)),
            _ms(boost(estimate, policy.boost_gamma, policy.boost_cap)),
            key,
            digest,
            policy.max_tickets_per_account,
            policy.max_waiting,
            _ms(policy.horizon),
            _ms(policy.presence),
            _ms(policy.idempotency),
            *redis_words.flat(redis_words.declared(declaration)),
        )
        match answer:
            case ["ok", ticket_id]:
                place = await self.place(ticket_id, account)
                if place.eta is not None and place.eta.replayed is not None:
                    await self._call("quote", ticket_id, _ms(place.eta.p90), _ms(place.eta.replayed))
                return Joined(place, False)
            case ["replay", ticket_id]:
                return Joined(await self.place(ticket_id, account), True)
            case ["mismatch"]:
                raise IdempotencyMismatch
            case ["full"]:
                raise QueueFull(load.mean / max(1, load.jobs))
            case ["quota", excess]:
                raise QuotaExceeded(int(excess) / 1000)
            case _:
                raise TooManyTickets(eta.first_end(load, max(0, int(answer[1])), policy.grant))

    async def place(self, ticket_id: str, account: str) -> Place:
        seen = await self._call("view", ticket_id)
        if not seen:
            raise TicketNotFound
        ticket, rank = redis_words.view(ticket_id, seen)
        if ticket.account != account:
            raise TicketNotFound
        return eta.place(ticket, rank, await self._load(ticket.kind))

    async def beat(self, ticket_ids: Sequence[str]) -> list[Place | None]:
        if not ticket_ids:
            return []
        now = self._script.now
        calls = [("beat", now, ticket_id, _ms(self._policy.presence)) for ticket_id in ticket_ids]
        loads = [("load", now, kind) for kind in _KINDS]
        answers = await self._script.calls([*calls, *loads])
        found = zip(map(Kind, _KINDS), answers[len(calls) :], strict=True)
        lines = {kind: redis_words.load(kind, answer, self._policy.ahead) for kind, answer in found}
        places: list[Place | None] = []
        for ticket_id, seen in zip(ticket_ids, answers, strict=False):
            if not seen:
                places.append(None)
                continue
            ticket, rank = redis_words.view(ticket_id, seen)
            places.append(eta.place(ticket, rank, lines[ticket.kind]))
        return places

    async def restore(self, ticket: Ticket, account: str) -> Place:
        if ticket.account != account:
            raise TicketNotFound
        policy = self._policy
        start = boost(ticket.estimate, policy.boost_gamma, policy.boost_cap)
        answer = await self._call(
            "restore",
            ticket.id,
            account,
            ticket.kind.value,
            _ms(ticket.estimate),
            _ms(ticket.debt),
            ticket.score,
            _ms(policy.presence),
            policy.max_tickets_per_account,
            ticket.score + _ms(start) + _ms(ticket.debt),
            ticket.joined + _ms(policy.life),
            _ms(policy.idempotency),
            *redis_words.known(ticket),
        )
        if answer == ["gone"]:
            raise TicketNotFound
        if answer[0] == "tickets":
            raise TooManyTickets(eta.first_end(await self._load(ticket.kind), 0, policy.grant))
        return await self.place(ticket.id, account)

    async def grant(self, kind: Kind) -> list[str]:
        policy = self._policy
        nonce_seed = secrets.token_hex(16)
        rest = (_ms(policy.parked), *map(_ms, WAIT_BOUNDS))
        return list(await self._call("grant", kind.value, _ms(policy.grant), policy.ahead, nonce_seed, *rest))

    async def redeem(self, ticket_id: str, account: str, nonce: str, worker: str) -> Ticket:
        answer = await self._call("redeem", ticket_id, account, nonce, worker, _ms(self._policy.lease))
        match answer:
            case ["ok", seen]:
                return redis_words.view(ticket_id, seen)[0]
            case ["expired"]:
                raise GrantExpired
            case ["used"]:
                raise GrantUsed
            case _:
                raise TicketNotFound

    async def renew(self, ticket_id: str, worker: str) -> bool:
        return bool(await self._call("renew", ticket_id, worker, _ms(self._policy.lease)))

    async def report(self, ticket_id: str, worker: str, progress: Progress) -> bool:
        lease = _ms(self._policy.lease)
        step = (progress.stage, progress.done, progress.total)
        return bool(await self._call("renew", ticket_id, worker, lease, *step))

    async def finish(self, ticket_id: str, worker: str, outcome: Outcome) -> bool:
        return bool(await self._call("finish", ticket_id, worker, *self._ended(outcome)))

    async def remember(self, ticket: Ticket, outcome: Outcome) -> bool:
        policy = self._policy
        done = await self._call(
            "remember",
            ticket.id,
            ticket.account,
            ticket.kind.value,
            _ms(ticket.estimate),
            _ms(ticket.debt),
            ticket.score,
            *self._ended(outcome),
            ticket.joined + _ms(policy.life),
            _ms(policy.idempotency),
            *redis_words.known(ticket),
        )
        return bool(done)

    def _ended(self, outcome: Outcome) -> tuple[object, ...]:
        """What is written down of a turn that ended, and for how long."""
        used, policy = outcome.gpu_seconds, self._policy
        charge = _ms(debt(used, policy.phi))
        return charge, _ms(used), outcome.code or "", outcome.bytes, outcome.sha256, _ms(policy.tombstone)

    async def release(self, ticket_id: str, worker: str, used: float) -> bool:
        policy = self._policy
        charge = _ms(debt(used, policy.phi))
        rest = (_ms(policy.parked), policy.max_attempts, _ms(policy.tombstone))
        return bool(await self._call("release", ticket_id, worker, charge, *rest))

    async def cancel(self, ticket_id: str, account: str) -> None:
        if not await self._call("cancel", ticket_id, account, _ms(self._policy.tombstone)):
            raise TicketNotFound

    async def sweep(self) -> Swept:
        policy = self._policy
        rest = (_ms(policy.parked), policy.max_attempts, _ms(policy.tombstone), _ms(policy.presence))
        return Swept(*map(int, await self._call("sweep", 500, *rest, *_KINDS)))

    async def enlist(self, worker: str, kind: Kind, slots: int, alive: float, *, jobs: int | None = None) -> None:
        await self._call("enlist", worker, kind.value, slots, _ms(alive), slots if jobs is None else jobs)

    async def retire(self, worker: str) -> None:
        await self._call("retire", worker, *_KINDS)

    async def line(self, kind: Kind) -> Line:
        return eta.line(await self._load(kind))

    async def tally(self, kind: Kind) -> Tally:
        words = await self._call("tally", kind.value)
        return tally(kind, dict(zip(words[::2], map(int, words[1::2]), strict=True)))

    async def quota(self, account: str) -> Quota:
        now, tat, open_tickets = map(int, await self._call("quota", account))
        ahead = max(0.0, (tat - now) / 1000)
        policy = self._policy
        return Quota(
            available_seconds=max(0.0, policy.horizon - ahead) * policy.phi,
            horizon_seconds=policy.horizon * policy.phi,
            refill_seconds=ahead,
            open_tickets=open_tickets,
            max_tickets=policy.max_tickets_per_account,
        )

    async def erase(self, account: str, issued_until: int, *, forgive: bool) -> int:
        policy = self._policy
        rest = (_ms(policy.tombstone), _ms(policy.life), issued_until, _ms(policy.denial), int(forgive))
        return int(await self._call("erase", account, *rest))

    async def denied(self, account: str, issued_at: int) -> bool:
        return bool(await self._call("denied", account, issued_at))

    async def ping(self) -> None:
        await self._script.reach(self._script.redis.ping)

    async def close(self) -> None:
        await self._script.close()

    async def _load(self, kind: Kind) -> Load:
        return redis_words.load(kind, await self._call("load", kind.value), self._policy.ahead)

    async def _call(self, operation: str, *arguments: object) -> Any:
        return await self._script.call([operation, self._script.now, *arguments])
