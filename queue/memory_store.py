"""What the in-memory room knows of its tickets, and the moves that several of its operations share.

`memory_room.py` has the operations. Nothing here is shared between processes.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from nanoswap.queue import eta
from nanoswap.queue.eta import Given, Load
from nanoswap.queue.room import Policy, TicketNotFound
from nanoswap.queue.score import milliseconds as _ms
from nanoswap.queue.ticket import Kind, Outcome, Place, State, Ticket

SAMPLES = 400
_OPEN = frozenset(state for state in State if not state.terminal)


@dataclass(slots=True)
class Held:
    """A ticket and what the room knows of it besides. ``until``: end of presence, grant, lease or parking, in ms."""

    ticket: Ticket
    until: float
    #: What the person was told at the join, ms, and what it was made of, s; None when a turn was free, or once it is
    #: known whether it held.
    quoted: tuple[int, float] | None = None
    #: Came back from parking or a seal: its wait says nothing about the line.
    returned: bool = False
    #: Didn't come for its last turn.
    absent: bool = False
    worker: str | None = None
    started: int = 0
    #: Since when it has been in line without a break, in ms.
    entered: int = 0


@dataclass(slots=True)
class Samples:
    waits: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    told: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=SAMPLES))
    services: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=SAMPLES))


@dataclass(frozen=True, slots=True)
class Offer:
    """A worker's: turns at once, those of them that it works on at once, and until when it stands, ms."""

    kind: Kind
    slots: int
    jobs: int
    until: float


class MemoryStore:
    """All of one room. ``clock`` gives ms since the epoch."""

    def __init__(self, policy: Policy, clock: Callable[[], int]) -> None:
        self._policy = policy
        self._clock = clock
        self.held: dict[str, Held] = {}
        #: account -> reading of its clock, ms
        self.clocks: dict[str, float] = {}
        self.workers: dict[str, Offer] = {}
        #: worker -> when a turn of it last ended, ms
        self.ended: dict[str, int] = {}
        self.keys: dict[tuple[str, str], tuple[str, str, float]] = {}
        self.erased: dict[str, int] = {}
        #: account -> tokens issued until then (s) are refused, and until when (ms) that is known
        self.denied: dict[str, tuple[int, int]] = {}
        self.samples = {kind: Samples() for kind in Kind}
        self.sums: dict[Kind, Counter[str]] = {kind: Counter() for kind in Kind}

    def now(self) -> int:
        """Milliseconds since the epoch."""
        return self._clock()

    def get(self, ticket_id: str) -> Held | None:
        """The ticket, unless it ended too long ago."""
        held = self.held.get(ticket_id)
        if held is not None and held.ticket.state.terminal and held.until <= self.now():
            del self.held[ticket_id]
            return None
        return held

    def own(self, ticket_id: str, account: str) -> Held:
        """The same for its owner; TicketNotFound for others."""
        held = self.get(ticket_id)
        if held is None or held.ticket.account != account:
            raise TicketNotFound
        return held

    def running(self, ticket_id: str, worker: str) -> Held | None:
        """The ticket, if this worker has its turn."""
        held = self.get(ticket_id)
        return held if held and held.ticket.state is State.RUNNING and held.worker == worker else None

    def of(self, account: str) -> list[Held]:
        """An account's tickets that haven't ended."""
        return [held for held in self.held.values() if held.ticket.account == account and held.ticket.state in _OPEN]

    def those(self, kind: Kind, state: State) -> list[Held]:
        """All of a kind in a state."""
        return [held for held in self.held.values() if held.ticket.kind is kind and held.ticket.state is state]

    def line(self, kind: Kind) -> list[Held]:
        """Who waits, in order."""
        return sorted(self.those(kind, State.WAITING), key=lambda held: (held.ticket.score, held.ticket.id))

    def rank(self, held: Held) -> int | None:
        """People before it; None unless it waits."""
        if held.ticket.state is not State.WAITING:
            return None
        return [other.ticket.id for other in self.line(held.ticket.kind)].index(held.ticket.id)

    def place(self, held: Held) -> Place:
        """Where it stands."""
        return eta.place(held.ticket, self.rank(held), self.load(held.ticket.kind))

    def enter(self, held: Held, state: State, seconds: float) -> None:
        """Another state, for ``seconds`` at most."""
        held.ticket = replace(held.ticket, state=state, grant=None, grant_expires=None)
        held.until = self.now() + _ms(seconds)

    def park(self, held: Held) -> None:
        """Out of line, place kept."""
        self.settle_quote(held, begun=False)
        self.sums[held.ticket.kind][State.PARKED] += 1
        self.free_worker(held)
        self.enter(held, State.PARKED, self._policy.parked)
        held.ticket = replace(held.ticket, progress=None)
        held.returned, held.worker = True, None

    def give_back(self, held: Held) -> None:
        """An interrupted turn: the place is kept, unless it has been interrupted too often."""
        held.ticket = replace(held.ticket, attempts=held.ticket.attempts + 1)
        if held.ticket.attempts >= self._policy.max_attempts:
            self.move_clock(held, -_ms(held.ticket.debt))
            self.close(held, State.ABORTED)
        else:
            self.park(held)

    def settle_quote(self, held: Held, *, begun: bool) -> None:
        """Note whether what the person was told at the join held. Who had a turn and didn't come says nothing."""
        if held.quoted is None:
            return
        late = self.now() - held.ticket.joined > held.quoted[0]
        held.quoted = None
        if begun or held.ticket.state is not State.GRANTED:
            self.sums[held.ticket.kind]["quoted"] += begun or late
            self.sums[held.ticket.kind]["covered"] += begun and not late

    def close(self, held: Held, state: State) -> None:
        """Ended, and remembered as that for a while."""
        self.settle_quote(held, begun=False)
        self.sums[held.ticket.kind][state] += 1
        self.free_worker(held)
        self.enter(held, state, self._policy.tombstone)
        held.ticket = replace(held.ticket, progress=None)

    def conclude(self, held: Held, outcome: Outcome) -> None:
        """A turn that ended in order, well or by a problem."""
        outcome = replace(outcome, gpu_seconds=_ms(outcome.gpu_seconds) / 1000)
        held.ticket = replace(held.ticket, outcome=outcome)
        self.close(held, State.SUCCEEDED if outcome.code is None else State.FAILED)

    def over(self, ticket: Ticket) -> bool:
        """Whether a sealed ticket is too old, or was made before its account was erased."""
        end = ticket.joined + _ms(self._policy.life)
        return self.now() > end or end <= self.erased.get(ticket.account, 0)

    def move_clock(self, held: Held, milliseconds: float) -> None:
        """Charge an account, or pay back."""
        account, now = held.ticket.account, self.now()
        # A clock that has lapsed owes nothing and gets nothing.
        if self.clocks.get(account, 0.0) > now:
            self.clocks[account] += milliseconds

    def offers(self, kind: Kind) -> dict[str, Offer]:
        """What those workers offer who are alive."""
        now = self.now()
        return {name: offer for name, offer in self.workers.items() if offer.kind is kind and offer.until > now}

    def free_worker(self, held: Held) -> None:
        """Its turn ends: the worker begins the next one that it has, unless this one was itself waiting there."""
        if held.worker is None or (offer := self.workers.get(held.worker)) is None:
            return
        running = self.those(held.ticket.kind, State.RUNNING)
        before = sum(other.worker == held.worker and other.started < held.started for other in running)
        if before < offer.jobs:
            self.ended[held.worker] = self.now()

    def load(self, kind: Kind) -> Load:
        """What the line's estimates stand on."""
        now = self.now()
        waiting, granted = self.those(kind, State.WAITING), self.those(kind, State.GRANTED)
        running = self.those(kind, State.RUNNING)
        offers = self.offers(kind)
        return Load(
            kind=kind,
            now=now,
            waiting=len(waiting),
            work=sum(_ms(held.ticket.estimate) for held in waiting) / 1000,
            granted=len(granted),
            running=len(running),
            slots=sum(offer.slots for offer in offers.values()),
            workers=len(offers),
            jobs=sum(offer.jobs for offer in offers.values()),
            ended={name: (now - self.ended[name]) / 1000 for name in offers if name in self.ended},
            turns=(
                *(Given(held.ticket.estimate, (now - held.started) / 1000, held.worker or "") for held in running),
                *(Given(held.ticket.estimate, 0.0, "") for held in granted),
            ),
            waits=tuple(self.samples[kind].waits),
            told=tuple(self.samples[kind].told),
            services=tuple(self.samples[kind].services),
            ahead=self._policy.ahead,
            oldest=(now - min((held.entered for held in waiting), default=now)) / 1000,
        )
