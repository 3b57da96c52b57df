"""A place in line, as plain values.

A ticket says what was declared and how it stands. It never holds media, a name, an address or an e-mail: the account is
a keyed hash, and the consent is the id of a statement.
"""

import secrets
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is swapped. Each kind has a line of its own."""

    IMAGE = "image"
    VIDEO = "video"


class State(StrEnum):
    """Where a ticket is in its life."""

    WAITING = "waiting"
    GRANTED = "granted"
    RUNNING = "running"
    #: Not heard of for a while: out of line, place kept, back in line when heard again.
    PARKED = "parked"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: Ended by the person.
    CANCELED = "canceled"
    #: A grant that nobody came for, or a parked ticket that nobody came back to.
    EXPIRED = "expired"
    #: Ended by us, after too many interrupted turns.
    ABORTED = "aborted"

    @property
    def terminal(self) -> bool:
        """True when nothing more will happen."""
        return self in _TERMINAL


_TERMINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELED, State.EXPIRED, State.ABORTED})


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running swap is: ``done`` of ``total`` steps of ``stage``."""

    stage: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a turn ended. ``code`` is None for success, else the stable code of the problem."""

    code: str | None
    bytes: int
    sha256: str
    gpu_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """What a person says, before waiting, that they will upload. ``consent``: id of the statement they agreed to."""

    kind: Kind
    bytes: int
    width: int
    height: int
    frames: int
    consent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """One ticket. Times are milliseconds since the epoch, on the store's clock; costs are GPU seconds."""

    id: str
    #: HMAC of the account, hexadecimal.
    account: str
    kind: Kind
    state: State
    estimate: float
    #: What the account's clock was charged for this ticket, in seconds of waiting.
    debt: float
    #: Place in line: lower is earlier. Fixed when the ticket is made.
    score: int
    joined: int
    bytes: int
    width: int
    height: int
    frames: int
    consent: str
    #: Turns that were interrupted so far.
    attempts: int = 0
    #: One-time permission to upload, while granted.
    grant: str | None = None
    grant_expires: int | None = None
    progress: Progress | None = None
    outcome: Outcome | None = None


@dataclass(frozen=True, slots=True)
class Eta:
    """Seconds until the turn begins: half, and nine tenths, of the people like you wait no longer. ``replayed``: what
    they were made of, before any correction; None when a turn is free."""

    p50: float
    p90: float
    replayed: float | None


@dataclass(frozen=True, slots=True)
class Place:
    """A ticket and where it stands. ``position`` counts from 1 and is None unless waiting; ``ahead`` is GPU seconds."""

    ticket: Ticket
    position: int | None
    ahead: float | None
    eta: Eta | None


def new_ticket_id() -> str:
    """``t_`` and 128 random bits: it can't be guessed and says nothing."""
    return f"t_{secrets.token_urlsafe(16)}"
