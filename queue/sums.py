"""Where the processes of the service add up what they have counted: names of sums and whole numbers, nothing else.

A process sends what it has counted since it last did, under a number of its own that grows by one. A store carries a
number out once, so that a call that was cut off can be sent again and is not counted twice; and nothing is taken away
when a process ends, as it would be if each kept a sum of its own.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

#: A process that wasn't heard of for longer is gone: its signing keys are nobody's any more.
HEARD_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Sums:
    """``numbers``: name -> sum. ``keys_overdue``: for how many seconds some process could not renew its signing keys,
    about 0 where all could; None where nobody has tried."""

    numbers: Mapping[str, int]
    keys_overdue: float | None


class SumStore(Protocol):
    """Belongs to one event loop; close it. Both methods raise RoomUnavailable when the store is away."""

    async def add(self, process: str, turn: int, numbers: Mapping[str, int], keys_overdue: float | None) -> None:
        """Add ``numbers``, unless this ``turn`` of ``process`` or a later one has been. Turns begin at 1."""

    async def read(self) -> Sums: ...

    async def close(self) -> None: ...


class MemorySums:
    """The sums of one process. ``clock`` gives seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._numbers: Counter[str] = Counter()
        self._turns: dict[str, int] = {}
        #: process -> when it was heard of, since when it can't renew its keys
        self._heard: dict[str, tuple[float, float | None]] = {}

    async def add(self, process: str, turn: int, numbers: Mapping[str, int], keys_overdue: float | None) -> None:
        now = self._clock()
        self._heard[process] = (now, None if keys_overdue is None else now - keys_overdue)
        if turn > self._turns.get(process, 0):
            self._turns[process] = turn
            self._numbers.update(numbers)

    async def read(self) -> Sums:
        now = self._clock()
        since = [at for heard, at in self._heard.values() if at is not None and now - heard < HEARD_SECONDS]
        return Sums(dict(self._numbers), now - min(since) if since else None)

    async def close(self) -> None: ...
