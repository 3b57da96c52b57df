"""The gateway's view of the line: one look per tick for everybody who is watching, instead of one per person.

All open event streams and long polls of a gateway share one background loop. Each tick it renews the presence of
every watched ticket in one round trip, asks the room to hand out free turns, and wakes those whose place changed.
A tick costs the store one pipelined call however many people are watching.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from nanoswap.queue.room import Line, RoomError, WaitingRoom
from nanoswap.queue.ticket import Kind, Place
from nanoswap.serve.background import background

log = logging.getLogger(__name__)

TICK_SECONDS = 0.4
SWEEP_SECONDS = 2.0
#: A waiting person gets a fresh estimate this often even when nothing else changed.
REFRESH_SECONDS = 5.0


def fingerprint(place: Place) -> tuple[object, ...]:
    """What makes a snapshot worth sending: everything but the estimates, which drift all the time."""
    ticket = place.ticket
    return (ticket.state, place.position, ticket.grant, ticket.progress, ticket.outcome, ticket.attempts)


@dataclass(slots=True)
class Watch:
    """One ticket that at least one request is watching."""

    place: Place | None
    watchers: int = 0
    version: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Board:
    """Watches tickets of one room. Use as ``async with board.running():``."""

    def __init__(self, room: WaitingRoom, kinds: tuple[Kind, ...]) -> None:
        self._room = room
        self._kinds = kinds
        self._watched: dict[str, Watch] = {}
        self._lines: dict[Kind, tuple[float, Line]] = {}
        self._swept = 0.0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the loop as long as the block lasts."""
        async with background(self._run(), "board"):
            yield

    @property
    def streams(self) -> int:
        """How many requests are watching."""
        return Counter({key: watch.watchers for key, watch in self._watched.items()}).total()

    async def line(self, kind: Kind) -> Line:
        """The line of one kind, at most a second old. Raises RoomUnavailable."""
        now = time.monotonic()
        cached = self._lines.get(kind)
        if cached is None or now - cached[0] > 1.0:
            cached = (now, await self._room.line(kind))
            self._lines[kind] = cached
        return cached[1]

    async def changes(self, place: Place) -> AsyncGenerator[Place, None]:
        """Yield the place whenever it changes or its estimate is due, starting with ``place``, until it is final.

        A ticket that the room has forgotten ends the iteration.
        """
        ticket_id = place.ticket.id
        watch = self._watched.setdefault(ticket_id, Watch(place))
        watch.watchers += 1
        try:
            yield place
            seen, shown = fingerprint(place), time.monotonic()
            while not place.ticket.state.terminal:
                # Taken before looking: a change after the look sets this very event.
                changed = watch.changed
                if watch.place is None:
                    return
                due = shown + REFRESH_SECONDS - time.monotonic()
                if fingerprint(watch.place) != seen or due <= 0:
                    place = watch.place
                    seen, shown = fingerprint(place), time.monotonic()
                    yield place
                    continue
                with suppress(TimeoutError):
                    async with asyncio.timeout(due):
                        await changed.wait()
        finally:
            watch.watchers -= 1
            if watch.watchers == 0 and self._watched.get(ticket_id) is watch:
                del self._watched[ticket_id]

    async def nudge(self, kind: Kind) -> None:
        """Hand out free turns of one kind now rather than at the next tick."""
        await self._room.grant(kind)

    async def _run(self) -> None:
        while True:
            try:
                await self._tick()
            except RoomError as error:
                # The store is away: people keep their streams and their sealed tickets, and we keep looking.
                log.warning("waiting room unreachable: %s", type(error).__name__)
                await asyncio.sleep(1.0)
            await asyncio.sleep(TICK_SECONDS)

    async def _tick(self) -> None:
        for kind in self._kinds:
            await self._room.grant(kind)
        if time.monotonic() - self._swept > SWEEP_SECONDS:
            self._swept = time.monotonic()
            await self._room.sweep()
        ids = list(self._watched)
        if not ids:
            return
        for ticket_id, place in zip(ids, await self._room.beat(ids), strict=True):
            watch = self._watched.get(ticket_id)
            if watch is None:
                continue
            before, watch.place = watch.place, place
            if before is None or place is None or fingerprint(before) != fingerprint(place):
                watch.changed.set()
                watch.changed = asyncio.Event()
