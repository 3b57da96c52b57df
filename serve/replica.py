"""What one GPU process is to the waiting room: a name, a number of slots, and a heartbeat.

The room grants no more turns than there are live slots. A process that dies stops beating, and its slots are gone
within ``ALIVE_SECONDS``; one that stops in order takes them back at once, and works off the turns that it has.
"""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress

from fastapi import FastAPI

from nanoswap.queue.room import RoomError, WaitingRoom
from nanoswap.queue.session import Sessions
from nanoswap.queue.ticket import Kind
from nanoswap.serve.background import background
from nanoswap.serve.drain import draining

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.5
ALIVE_SECONDS = 5.0


def new_worker_name() -> str:
    """A random name: it identifies a process to the room and says nothing about the machine."""
    return f"w_{secrets.token_urlsafe(9)}"


@asynccontextmanager
async def enlisted(
    room: WaitingRoom, worker: str, kind: Kind, slots: int, jobs: int | None = None
) -> AsyncIterator[None]:
    """Offer ``slots`` to the room, ``jobs`` of them worked on at once, as long as the block runs and the replica isn't
    draining."""

    async def beat() -> None:
        while not draining():
            try:
                await room.enlist(worker, kind, slots, ALIVE_SECONDS, jobs=jobs)
            except RoomError as error:
                log.warning("slots not offered: %s", type(error).__name__)
            await asyncio.sleep(BEAT_SECONDS)
        # Turns for slots that take nobody in would all go to the replicas that stay.
        with suppress(RoomError):
            await room.retire(worker)

    try:
        async with background(beat(), "enlisted"):
            yield
    finally:
        with suppress(RoomError):
            await room.retire(worker)


def lifespan(
    room: WaitingRoom, sessions: Sessions, worker: str, kind: Kind, slots: int, jobs: int | None = None
) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    """The life of a replica's application: enlisted while it runs; ``room`` and ``sessions`` are closed behind it."""

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async with enlisted(room, worker, kind, slots, jobs):
            yield
        await sessions.close()
        await room.close()

    return life
