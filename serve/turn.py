"""One turn at the GPU, from the burnt grant to the settled account.

The lease is renewed while the turn lasts. When renewing fails (the person canceled, or we were away so long that the
turn was given to somebody else) or the person's connection breaks, the cancel token stops the pixel work at its next
step. However the turn ends, the room hears exactly once: delivered, failed by the media, or given back.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.queue.room import RoomError, WaitingRoom
from nanoswap.queue.ticket import Outcome, Progress, Ticket
from nanoswap.serve.background import background
from nanoswap.serve.books import Books
from nanoswap.serve.metrics import OTHER, STAGES
from nanoswap.serve.problems import as_problem
from nanoswap.serve.turn_record import DELIVERED, GIVEN_BACK, TurnRecord, rounded_up

log = logging.getLogger(__name__)

#: How long, and how often, a delivered result is reported to a store that is away. In seconds.
SETTLE_SECONDS, SETTLE_PAUSE = 20.0, 0.5

#: Problems that are nobody's fault but the connection's or ours: the place in line is given back.
_OUR_SIDE = frozenset({"incomplete", "lost_turn", "internal", "room_unavailable"})
#: Problems of a declaration that wasn't true: the declared cost is kept.
_FALSE_DECLARATION = frozenset({"larger_than_declared", "too_slow"})


@dataclass(slots=True)
class Stages:
    """Which stage of a turn is on, and the seconds of those that were. One at a time is on; it may come back."""

    spent: dict[str, float] = field(default_factory=dict)
    _on: str = STAGES[0]
    _since: float = field(default_factory=time.perf_counter)

    def enter(self, stage: str) -> None:
        """From any thread, but by one at a time."""
        now = time.perf_counter()
        self.spent[self._on] = self.spent.get(self._on, 0.0) + now - self._since
        self._on, self._since = stage, now


@dataclass(slots=True)
class Turn:
    """A running turn. ``used`` is GPU seconds, ``allowed`` the most of them; ``outcome`` is set once the result has
    been delivered."""

    ticket: Ticket
    cancel: CancelToken
    progress: Progress | None = None
    used: float = 0.0
    allowed: float | None = None
    outcome: Outcome | None = None
    stages: Stages = field(default_factory=Stages)
    _reported: Progress | None = field(default=None, repr=False)

    def report(self, stage: str, done: int, total: int) -> None:
        """Note how far the work is. Called from the worker thread; nobody waits for anything here."""
        self.progress = Progress(stage, done, total)
        self.stages.enter(stage)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the seconds of the block as used, whether it succeeds or not. In the worker thread.

        Only they are held against what is allowed: a person who reads slowly is not a file that takes long.
        """
        started = time.perf_counter()
        self.cancel.allow(None if self.allowed is None else self.allowed - self.used)
        try:
            yield
        finally:
            self.cancel.allow(None)
            self.used += time.perf_counter() - started

    async def keep(self, room: WaitingRoom, worker: str, period: float) -> None:
        """Renew the lease and publish progress every ``period`` seconds; cancel the work when the turn is lost."""
        while True:
            try:
                if self.progress is not self._reported and self.progress is not None:
                    self._reported = self.progress
                    held = await room.report(self.ticket.id, worker, self.progress)
                else:
                    held = await room.renew(self.ticket.id, worker)
                if not held:
                    self.cancel.cancel()
                    return
            except RoomError as error:
                # The lease outlives a short absence of the store; the work goes on.
                log.warning("lease not renewed: %s", type(error).__name__)
            await asyncio.sleep(period)


@asynccontextmanager
async def turn(
    room: WaitingRoom,
    ticket: Ticket,
    worker: str,
    *,
    allowed: float | None = None,
    period: float = 0.5,
    books: Books | None = None,
) -> AsyncIterator[Turn]:
    """Hold the turn of a redeemed ticket while the block runs, and settle it when the block ends. ``allowed``: seconds
    of work. ``books``: hear how it ended."""
    held = Turn(ticket, CancelToken(), allowed=allowed)
    async with background(held.keep(room, worker, period), "lease"):
        try:
            yield held
        except BaseException as error:
            held.cancel.cancel()
            _write_down(books, held, error)
            await _settle(room, worker, held, error)
            raise
        else:
            _write_down(books, held, None)
            await _settle(room, worker, held, None)


def _fault(error: BaseException | None) -> str | None:
    """The code of a failure that the person's media or declaration caused; None when the place is to be given back."""
    if not isinstance(error, Exception):
        return None
    code = as_problem(error).code
    return None if code in _OUR_SIDE else code


def _write_down(books: Books | None, held: Turn, error: BaseException | None) -> None:
    if books is None:
        return
    held.stages.enter(OTHER)
    done = held.outcome
    record = TurnRecord(
        kind=held.ticket.kind,
        code=DELIVERED if done is not None else _fault(error) or GIVEN_BACK,
        gpu_seconds=held.used,
        stages=dict(held.stages.spent),
        declared_bytes=rounded_up(held.ticket.bytes),
        result_bytes=rounded_up(0 if done is None else done.bytes),
    )
    books.write(record, error)


async def _settle(room: WaitingRoom, worker: str, held: Turn, error: BaseException | None) -> None:
    """Tell the room how the turn ended. Never raises: the answer to the person matters more. Who has a result must not
    be sent back to the line because the store was away at that moment, so that is told again until SETTLE_SECONDS
    have passed."""
    until = time.monotonic() + (0.0 if held.outcome is None else SETTLE_SECONDS)
    while not await _settled(room, worker, held, error) and time.monotonic() < until:
        await asyncio.sleep(SETTLE_PAUSE)


async def _settled(room: WaitingRoom, worker: str, held: Turn, error: BaseException | None) -> bool:
    """Try to; whether the room has heard it."""
    ticket = held.ticket
    try:
        if held.outcome is not None:
            if not await room.finish(ticket.id, worker, held.outcome):
                await room.remember(ticket, held.outcome)
        elif (code := _fault(error)) is not None:
            used = ticket.estimate if code in _FALSE_DECLARATION else held.used
            await room.finish(ticket.id, worker, Outcome(code=code, bytes=0, sha256="", gpu_seconds=used))
        else:
            await room.release(ticket.id, worker, held.used)
        await room.grant(ticket.kind)
    except RoomError as failure:
        log.warning("turn not settled, its lease will lapse: %s", type(failure).__name__)
        return False
    return True
