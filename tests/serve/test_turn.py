"""How a turn's end reaches the room, also when the store is away at that moment."""

import pytest

from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy, RoomUnavailable
from nanoswap.queue.ticket import Declaration, Kind, Outcome, State, Ticket
from nanoswap.serve import turn as module
from nanoswap.serve.turn import turn

DONE = Outcome(code=None, bytes=9, sha256="ab" * 32, gpu_seconds=1.5)


class Flaky(MemoryRoom):
    """Away for so many calls that end a turn."""

    away = 0
    asked = 0

    async def finish(self, ticket_id: str, worker: str, outcome: Outcome) -> bool:
        self.asked += 1
        if self.asked <= self.away:
            raise RoomUnavailable
        return await super().finish(ticket_id, worker, outcome)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_PAUSE", 0.001)


async def redeemed(room: MemoryRoom) -> Ticket:
    await room.enlist("w", Kind.IMAGE, 1, 3600.0)
    wanted = Declaration(kind=Kind.IMAGE, bytes=1, width=1, height=1, frames=1, consent="likeness-3")
    joined = (await room.join("ann", wanted, 2.0, idempotency_key=None)).place.ticket
    await room.grant(Kind.IMAGE)
    return await room.redeem(joined.id, "ann", (await room.place(joined.id, "ann")).ticket.grant or "", "w")


async def test_a_delivered_result_is_told_until_the_store_hears_it() -> None:
    room = Flaky(Policy())
    room.away = 3
    ticket = await redeemed(room)
    async with turn(room, ticket, "w") as mine:
        mine.outcome = DONE
    assert room.asked == 4
    assert (await room.place(ticket.id, "ann")).ticket.state is State.SUCCEEDED


async def test_a_store_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLE_SECONDS", 0.05)
    room = Flaky(Policy())
    room.away = 10**9
    ticket = await redeemed(room)
    async with turn(room, ticket, "w") as mine:
        mine.outcome = DONE
    assert room.asked > 1


async def test_a_store_that_was_emptied_is_told_of_a_ticket_that_it_has_forgotten() -> None:
    ticket = await redeemed(MemoryRoom(Policy()))
    empty = MemoryRoom(Policy())
    async with turn(empty, ticket, "w", period=1000.0) as mine:
        mine.outcome = DONE
    assert (await empty.place(ticket.id, "ann")).ticket.state is State.SUCCEEDED


async def test_what_was_not_delivered_is_told_once() -> None:
    room = Flaky(Policy())
    room.away = 10**9
    ticket = await redeemed(room)
    with pytest.raises(ValueError, match="broken"):
        async with turn(room, ticket, "w"):
            raise ValueError("broken")
    # It is given back; were that not heard, the lease would lapse to the same end.
    assert room.asked == 0
    assert (await room.place(ticket.id, "ann")).ticket.state is State.PARKED
