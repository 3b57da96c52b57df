"""A crowd: people who come at random, everyone with an account of their own, and go when they have their result."""

import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.load.accounts import AuthService
from tests.load.journey import Journey, travel

#: Seconds after which somebody gives up.
PATIENCE = 240.0


@dataclass(frozen=True, slots=True)
class Media:
    """What people bring, by kind: files, each with the number that is on it."""

    pictures: Sequence[tuple[int, bytes]]
    clips: Sequence[tuple[int, bytes]]


@dataclass(slots=True)
class Crowd:
    """``rate``: people a second, a Poisson process. ``clips``: the share that brings one."""

    url: str
    auth: AuthService
    media: Media
    rate: float
    clips: float
    seed: int = 1
    journeys: list[Journey] = field(default_factory=list)
    _tasks: set[asyncio.Task[Journey]] = field(default_factory=set)
    _coming: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Let people come."""
        self._coming = asyncio.create_task(self._come(), name="crowd")

    async def end(self) -> None:
        """Nobody new; wait for those who are here."""
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.gather(self._coming, return_exceptions=True)
        while self._tasks:
            await asyncio.gather(*self._tasks)

    def one(self, kind: str) -> asyncio.Task[Journey]:
        """Somebody comes now."""
        pool = self.media.clips if kind == "video" else self.media.pictures
        number, target = pool[len(self.journeys) % len(pool)]
        journey = Journey(number=number, kind=kind, began=time.monotonic())
        self.journeys.append(journey)
        task = asyncio.create_task(travel(self.url, self.auth.token(), journey, target, PATIENCE))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _come(self) -> None:
        chance = random.Random(self.seed)
        due = time.monotonic()
        while True:
            # By the clock, not by pauses: a slow loop must not make the crowd thinner.
            due += chance.expovariate(self.rate)
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            self.one("video" if chance.random() < self.clips else "image")
