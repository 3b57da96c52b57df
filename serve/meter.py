"""What one process counts, and how it comes into the sums of all: a few whole numbers, every few seconds.

Counting is an addition under a lock, from any thread; sending never keeps anybody waiting. A batch that could not be
sent is sent again with the same number, so it is added once; what is counted meanwhile waits for the next.
"""

import asyncio
import logging
import secrets
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from nanoswap.queue.room import RoomUnavailable
from nanoswap.queue.sums import Sums, SumStore
from nanoswap.serve.background import background
from nanoswap.serve.metrics import BATCH, OTHER, Family

log = logging.getLogger(__name__)

PUBLISH_SECONDS = 5.0
#: Sums of what a histogram has seen are kept in thousandths.
THOUSANDTHS = 1000


def sum_name(family: Family, *parts: str) -> str:
    """The name of one sum in the store: the metric, the values of its labels, and the bucket or ``sum``."""
    return "|".join((family.name, *parts))


class Meter:
    """Counts for one process. ``store`` None: counted, kept by nobody."""

    def __init__(self, store: SumStore | None = None) -> None:
        self._store = store
        # Random: it tells processes apart and says nothing of the machine.
        self._process = secrets.token_urlsafe(9)
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()
        self._sending: dict[str, int] | None = None
        self._turn = 0

    def count(self, family: Family, *values: str, amount: float = 1) -> None:
        """Add to a counter. ``values``: of its labels in order; one that isn't listed becomes ``other``."""
        with self._lock:
            self._open[sum_name(family, *_listed(family, values))] += round(amount * family.scale)

    def observe(self, family: Family, *values: str, amount: float) -> None:
        """Add one to a histogram's bucket, and ``amount`` to its sum."""
        labels = _listed(family, values)
        bucket = sum(amount > bound for bound in family.bounds)
        with self._lock:
            self._open[sum_name(family, *labels, str(bucket))] += 1
            self._open[sum_name(family, *labels, "sum")] += round(amount * THOUSANDTHS)

    def batches(self, kind: str) -> Callable[[str, int], None]:
        """What an engine tells how many rows shared a forward or a step (`Batching.told`)."""
        return lambda what, rows: self.observe(BATCH, kind, what, amount=rows)

    async def read(self) -> Sums:
        """The sums of all processes. Raises RoomUnavailable."""
        return Sums({}, None) if self._store is None else await self._store.read()

    async def publish(self, keys_overdue: float | None = None) -> None:
        """Send what has been counted. Raises RoomUnavailable, and nothing is lost."""
        if self._store is None:
            return
        if self._sending is None:
            with self._lock:
                self._sending, self._open = dict(self._open), Counter()
            self._turn += 1
        await self._store.add(self._process, self._turn, self._sending, keys_overdue)
        self._sending = None

    @asynccontextmanager
    async def running(self, keys_overdue: Callable[[], float | None]) -> AsyncIterator[None]:
        """Publish every PUBLISH_SECONDS while the block runs and once behind it; close the store then.
        ``keys_overdue``: for how many seconds this process could not renew its signing keys."""

        if self._store is None:
            yield
            return

        async def beat() -> None:
            away = False
            while True:
                try:
                    await self.publish(keys_overdue())
                    away = False
                except RoomUnavailable:
                    if not away:
                        # Once, not each time: the file of a replica's log has no end.
                        log.warning("counts not published: the store is away")
                    away = True
                await asyncio.sleep(PUBLISH_SECONDS)

        try:
            async with background(beat(), "meter"):
                yield
        finally:
            with suppress(RoomUnavailable):
                # The batch that the cancel may have cut off, and what has been counted since.
                if self._sending is not None:
                    await self.publish()
                await self.publish()
            await self._store.close()


def _listed(family: Family, values: tuple[str, ...]) -> tuple[str, ...]:
    """Raises ValueError for another number of values than the family has labels: our own mistake."""
    sets = family.labels.values()
    return tuple(value if value in known else OTHER for value, known in zip(values, sets, strict=True))
