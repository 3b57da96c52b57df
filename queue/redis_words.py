"""Tickets and lines in the words of ``room.lua``: what it is told, and what it answers as values."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nanoswap.queue.eta import Given, Load
from nanoswap.queue.ticket import Declaration, Kind, Outcome, Progress, State, Ticket


def declared(declaration: Declaration | Ticket) -> dict[str, object]:
    """What was declared, by the names of its fields."""
    names = ("bytes", "width", "height", "frames", "consent")
    return {name: getattr(declaration, name) for name in names}


def known(ticket: Ticket) -> list[object]:
    """What a ticket that comes back into the store is made of, besides what its rules need."""
    return flat(declared(ticket) | {"joined": ticket.joined, "attempts": ticket.attempts})


def flat(fields: Mapping[str, object]) -> list[object]:
    """Names and values in turn."""
    return [word for pair in fields.items() for word in pair]


def view(ticket_id: str, seen: Sequence[Any]) -> tuple[Ticket, int | None]:
    """A ticket, and its rank while it waits."""
    words, rank = seen
    fields = dict(zip(words[::2], words[1::2], strict=True))
    return ticket_of(ticket_id, fields), None if int(rank) < 0 else int(rank)


def ticket_of(ticket_id: str, fields: Mapping[str, str]) -> Ticket:
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


def load(kind: Kind, answer: Sequence[Any], ahead: int) -> Load:
    """What the line's estimates stand on."""
    now, waiting, work, granted, running, slots, workers, turns, waits, services, oldest, jobs, ended, told = answer
    return Load(
        kind=kind,
        now=int(now),
        waiting=int(waiting),
        work=int(work) / 1000,
        granted=int(granted),
        running=int(running),
        slots=int(slots),
        workers=int(workers),
        turns=tuple(
            Given(int(estimate) / 1000, int(past) / 1000, worker) for estimate, past, worker in map(_words, turns)
        ),
        waits=tuple(waited for _, waited in _pairs(waits)),
        told=tuple(_pairs(told)),
        services=tuple(_pairs(services)),
        jobs=int(jobs),
        ended={worker: int(past) / 1000 for worker, past in map(_words, ended)},
        ahead=ahead,
        oldest=int(oldest) / 1000,
    )


def _pairs(words: Sequence[str]) -> Iterator[tuple[float, float]]:
    """Two times in ms a word, as seconds."""
    for first, second in map(_words, words):
        yield int(first) / 1000, int(second) / 1000


def _words(line: str) -> list[str]:
    return line.split(" ")
