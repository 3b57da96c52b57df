"""The waiting room: who is next, and what keeps it fair.

Two stores implement this protocol, one on Redis for every process of the service to share and one in memory; the same
property test drives both. Every change of state is atomic. No process leads: anyone may hand out free turns or sweep,
so a crash of any of them costs nobody a place.

    RoomError
    ├── RoomUnavailable       the store can't be reached
    ├── TicketNotFound        no such ticket for this account
    ├── Refused               no place in line now; ``retry_after`` says when
    │   ├── QueueFull
    │   ├── QuotaExceeded
    │   └── TooManyTickets
    ├── IdempotencyMismatch   the key was used for another declaration
    ├── GrantUsed
    └── GrantExpired
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from nanoswap.queue.tally import Tally
from nanoswap.queue.ticket import Declaration, Eta, Kind, Outcome, Place, Progress, Ticket


class RoomError(Exception):
    """The waiting room could not do this."""

    def __init__(self) -> None:
        super().__init__((type(self).__doc__ or "").strip())


class RoomUnavailable(RoomError):
    """The waiting room can't be reached."""


class TicketNotFound(RoomError):
    """There is no such ticket for this account."""


class Refused(RoomError):
    """There is no place in line now."""

    def __init__(self, retry_after: float) -> None:
        super().__init__()
        #: Seconds until another try may succeed.
        self.retry_after = retry_after


class QueueFull(Refused):
    """The line is full."""


class QuotaExceeded(Refused):
    """This account's fair share is used up for now."""


class TooManyTickets(Refused):
    """This account already has its number of places in line."""


class IdempotencyMismatch(RoomError):
    """This key was used for another request."""


class GrantUsed(RoomError):
    """This grant has been used, or was never given."""


class GrantExpired(RoomError):
    """This grant has expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The rules of the room. Times are seconds."""

    #: Share of one GPU that an account may use under contention; a turn is charged estimate/phi.
    phi: float = 0.1
    #: An account whose clock runs further ahead than this is refused until it has fallen back.
    horizon: float = 1200.0
    max_tickets_per_account: int = 2
    max_waiting: int = 10_000
    #: Unheard of for longer: parked.
    presence: float = 45.0
    #: Parked for longer: expired.
    parked: float = 600.0
    #: A grant must be redeemed within this, else it counts as an attempt, and the ticket is parked for ``presence``.
    grant: float = 15.0
    #: A running turn must be renewed within this.
    lease: float = 20.0
    #: Turns granted per slot beyond those that can run, so that uploads overlap with work.
    ahead: int = 1
    #: Decay of the head start of short jobs, per second (gamma of arXiv 2404.08826), and its largest value.
    boost_gamma: float = 0.02
    boost_cap: float = 120.0
    max_attempts: int = 3
    idempotency: float = 86_400.0
    #: A sealed ticket can be restored this long after it was made.
    life: float = 10_800.0
    #: Ended tickets are remembered this long: at least ``life``, or an ended one could be restored from its seal.
    tombstone: float = 10_800.0
    #: Access tokens from before an account was erased are refused this long: the longest that one lives, and leeway.
    denial: float = 86_460.0


@dataclass(frozen=True, slots=True)
class Joined:
    """A place in line; ``replayed`` when it was made by an earlier request with the same key."""

    place: Place
    replayed: bool


@dataclass(frozen=True, slots=True)
class Swept:
    """What one sweep found: people unheard of, grants that nobody came for, turns lost by their worker, parked tickets
    forgotten."""

    parked: int
    expired: int
    lost: int
    forgotten: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Seconds, over the last tickets."""

    p50: float
    p95: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line as a whole. ``now`` is milliseconds since the epoch."""

    kind: Kind
    now: int
    waiting: int
    #: Sum of the estimates of all who wait, GPU seconds, scaled by how long turns took lately.
    work_seconds: float
    #: Seconds since the first of those who wait came into line, or back into it; 0 when nobody waits.
    oldest_seconds: float
    granted: int
    running: int
    slots: int
    workers: int
    #: For somebody who would join now with a typical job; None without workers.
    eta: Eta | None
    wait: Spread | None
    service: Spread | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """An account's fair share. Costs are GPU seconds, ``refill_seconds`` is time until it is whole again."""

    available_seconds: float
    horizon_seconds: float
    refill_seconds: float
    open_tickets: int
    max_tickets: int


class WaitingRoom(Protocol):
    """The room. Every method raises RoomUnavailable when the store can't be reached."""

    async def join(
        self, account: str, declaration: Declaration, estimate: float, *, idempotency_key: str | None
    ) -> Joined:
        """Take a place. Raises QueueFull, QuotaExceeded, TooManyTickets, IdempotencyMismatch."""

    async def place(self, ticket_id: str, account: str) -> Place:
        """Where a ticket stands. Changes nothing. Raises TicketNotFound, also for a foreign account."""

    async def beat(self, ticket_ids: Sequence[str]) -> list[Place | None]:
        """Note that these people are present: keeps them in line, brings parked ones back at their old place.

        One round trip however many they are; None for a ticket that the store doesn't know.
        """

    async def restore(self, ticket: Ticket, account: str) -> Place:
        """Put back a ticket that the store has forgotten, at its old place. Does nothing to one that it knows.

        ``ticket`` must come from a seal that was checked. Raises TicketNotFound for a foreign account.
        """

    async def grant(self, kind: Kind) -> list[str]:
        """Hand out free turns in order of score; returns the tickets that got one. Never more than there are slots."""

    async def redeem(self, ticket_id: str, account: str, nonce: str, worker: str) -> Ticket:
        """Burn a grant and begin the turn: succeeds once. Raises GrantUsed, GrantExpired, TicketNotFound."""

    async def renew(self, ticket_id: str, worker: str) -> bool:
        """Keep a running turn. False when it was canceled or lost: stop working on it."""

    async def report(self, ticket_id: str, worker: str, progress: Progress) -> bool:
        """Renew and note the progress. False as for ``renew``."""

    async def finish(self, ticket_id: str, worker: str, outcome: Outcome) -> bool:
        """End a turn and settle the account's debt to what was really used. False when it wasn't this worker's."""

    async def remember(self, ticket: Ticket, outcome: Outcome) -> bool:
        """Write down how a turn ended of which ``finish`` knew nothing; ``ticket`` as it was redeemed. The store was
        emptied meanwhile, or took the worker for lost and put the ticket back in line; its owner shall be told what
        became of it, and it isn't done again. False when it has ended, runs once more, is too old, or its account was
        erased."""

    async def release(self, ticket_id: str, worker: str, used: float) -> bool:
        """Give an interrupted turn back: parked at its old place, aborted after ``max_attempts``.

        ``used``: GPU seconds that it took all the same; the account is charged for them, or leaving early and coming
        back would be free work.
        """

    async def cancel(self, ticket_id: str, account: str) -> None:
        """End a ticket for its owner, in any state; what wasn't used is refunded. Raises TicketNotFound."""

    async def sweep(self) -> Swept:
        """Park the absent, expire unused grants, give back the turns of dead workers, forget the long parked."""

    async def enlist(self, worker: str, kind: Kind, slots: int, alive: float, *, jobs: int | None = None) -> None:
        """Offer ``slots`` for the next ``alive`` seconds. ``jobs``: turns that the worker works on at once, others wait
        for those; all of them where nothing is said."""

    async def retire(self, worker: str) -> None:
        """Take a worker's slots back."""

    async def line(self, kind: Kind) -> Line:
        """The line as a whole."""

    async def tally(self, kind: Kind) -> Tally:
        """What the line has seen since the store was empty."""

    async def quota(self, account: str) -> Quota:
        """An account's fair share."""

    async def erase(self, account: str, issued_until: int, *, forgive: bool) -> int:
        """Remove everything that is kept of an account, at once; returns how many tickets that ended.

        ``forgive``: its debt too. Without it the debt stays until it is worked off, less what ``cancel`` would give
        back for its tickets: an account that lives on would otherwise get a whole share with every erasure.

        Access tokens issued until ``issued_until`` (seconds since the epoch) are refused from then on, and sealed
        tickets from before can't be restored; the notes of both lapse by themselves. Whoever runs a swap of the account
        hears it as a cancel. Erasing up to a moment that was erased already does nothing and returns 0.
        """

    async def denied(self, account: str, issued_at: int) -> bool:
        """Whether an access token of that time (seconds since the epoch) is from before the account was erased."""

    async def ping(self) -> None:
        """Reach the store."""

    async def close(self) -> None:
        """Release connections."""
