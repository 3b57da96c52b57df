"""The waiting room on Redis or Valkey: arguments in, ``room.lua`` decides, plain values out.

One script holds every operation (`redis_script.py`). Keys share one hash tag. Only the 6.2 subset is used, so that any
distribution's server will do.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nanoswap.queue import eta
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
from nanoswap.queue.ticket import Declaration, Kind, Outcome, Place, Progress, State, Ticket, new_ticket_id

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
        declared = _declared(declaration)
        key = "" if idempotency_key is None else hashlib.sha256(idempotency_key.encode()).hexdigest()
        digest = hashlib.sha256(repr(declaration).encode()).hexdigest()[:32]
        predicted = eta.predict(load, load.waiting)
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
            _ms(predicted or 0.0),
            *_flat(declared),
        )
        match answer:
            case ["ok", ticket_id]:
                place = await self.place(ticket_id, account)
                if place.eta is not None:
                    await self._call("quote", ticket_id, _ms(place.eta.p90))
                return Joined(place, False)
            case ["replay", ticket_id]:
                return Joined(await self.place(ticket_id, account), True)
            case ["mismatch"]:
                raise IdempotencyMismatch
            case ["full"]:
                raise QueueFull(load.mean / max(1, load.slots))
            case ["quota", excess]:
                raise QuotaExceeded(int(excess) / 1000)
            case _:
                raise TooManyTickets(self._first_end(load, int(answer[1])))

    async def place(self, ticket_id: str, account: str) -> Place:
        seen = await self._call("view", ticket_id)
        if not seen:
            raise TicketNotFound
        ticket, rank = _view(ticket_id, seen)
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
        lines = {
            Kind(kind): _load(Kind(kind), answer) for kind, answer in zip(_KINDS, answers[len(calls) :], strict=True)
        }
        places: list[Place | None] = []
        for ticket_id, seen in zip(ticket_ids, answers, strict=False):
            if not seen:
                places.append(None)
                continue
            ticket, rank = _view(ticket_id, seen)
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
            *_known(ticket),
        )
        if answer == ["gone"]:
            raise TicketNotFound
        if answer[0] == "tickets":
            raise TooManyTickets(self._first_end(await self._load(ticket.kind), -1))
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
                return _view(ticket_id, seen)[0]
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
            *_known(ticket),
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

    async def enlist(self, worker: str, kind: Kind, slots: int, alive: float) -> None:
        await self._call("enlist", worker, kind.value, slots, _ms(alive))

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
        return _load(kind, await self._call("load", kind.value))

    def _first_end(self, load: Load, rank: int) -> float:
        """Seconds until one of an account's tickets should have ended: its wait, if it waits, and its turn."""
        return (eta.predict(load, max(0, rank)) or self._policy.grant) + load.mean

    async def _call(self, operation: str, *arguments: object) -> Any:
        return await self._script.call([operation, self._script.now, *arguments])


def _declared(declaration: Declaration | Ticket) -> dict[str, object]:
    names = ("bytes", "width", "height", "frames", "consent")
    return {name: getattr(declaration, name) for name in names}


def _known(ticket: Ticket) -> list[object]:
    """What a ticket that comes back into the store is made of, besides what its rules need."""
    return _flat(_declared(ticket) | {"joined": ticket.joined, "attempts": ticket.attempts, "predicted": 0})


def _flat(fields: Mapping[str, object]) -> list[object]:
    return [word for pair in fields.items() for word in pair]


def _view(ticket_id: str, seen: Sequence[Any]) -> tuple[Ticket, int | None]:
    words, rank = seen
    fields = dict(zip(words[::2], words[1::2], strict=True))
    return parse(ticket_id, fields), None if int(rank) < 0 else int(rank)


def parse(ticket_id: str, fields: Mapping[str, str]) -> Ticket:
    """The ticket of its hash in the store."""
    state = State(fields["state"])
    progress = None
    if "stage" in fields:
        progress = Progress(fields["stage"], int(fields["done"]), int(fields["total"]))
    outcome = None
    if "gpu_ms" in fields:
        outcome = Outcome(
            code=fields["code"] or None,
            bytes=int(fields["out_bytes"]),
            sha256=fields["sha256"],
            gpu_seconds=int(fields["gpu_ms"]) / 1000,
        )
    expires = fields.get("nonce_expires")
    return Ticket(
        id=ticket_id,
        account=fields["acc"],
        kind=Kind(fields["kind"]),
        state=state,
        estimate=int(fields["est"]) / 1000,
        debt=int(fields["debt"]) / 1000,
        score=int(fields["score"]),
        joined=int(fields["joined"]),
        bytes=int(fields["bytes"]),
        width=int(fields["width"]),
        height=int(fields["height"]),
        frames=int(fields["frames"]),
        consent=fields["consent"],
        attempts=int(fields["attempts"]),
        grant=fields.get("nonce"),
        grant_expires=None if expires is None else int(expires),
        progress=progress,
        outcome=outcome,
    )


def _load(kind: Kind, answer: Sequence[Any]) -> Load:
    now, waiting, work, granted, running, slots, workers, residuals, waits, services, oldest = answer
    pairs = (sample.split(" ") for sample in waits)
    return Load(
        kind=kind,
        now=int(now),
        waiting=int(waiting),
        work=int(work) / 1000,
        granted=int(granted),
        running=int(running),
        slots=int(slots),
        workers=int(workers),
        residuals=tuple(int(residual) / 1000 for residual in residuals),
        waits=tuple((int(predicted) / 1000, int(actual) / 1000) for predicted, actual in pairs),
        services=tuple(int(service) / 1000 for service in services),
        oldest=int(oldest) / 1000,
    )
