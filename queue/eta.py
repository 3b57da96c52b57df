"""How long until a turn: replay the line, then correct by how well such replays have done lately.

The replay hands the jobs ahead, one by one, to whichever slot is free first. Its error is then measured: for the last
tickets we know what was predicted when they joined and how long they really waited, and the quantiles of that ratio
turn the one number into a range that is right as often as it says (split conformal prediction).
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from nanoswap.queue.room import Line, Spread
from nanoswap.queue.ticket import Eta, Kind, Place, Ticket

#: The replay follows the line this far; beyond it the remaining work is spread evenly over the slots.
REPLAY = 2000
#: Added to both sides of the ratio: waits of a fraction of a second would make it meaningless.
OFFSET = 1.0
#: With fewer samples than this, the range is the default one.
MIN_SAMPLES = 20
DEFAULT_RATIOS = (1.0, 1.6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """A line at one moment, as the store knows it. Times in seconds, ``now`` in ms since the epoch."""

    kind: Kind
    now: int
    waiting: int
    work: float
    granted: int
    running: int
    slots: int
    workers: int
    #: Remaining seconds of every turn that is running or granted.
    residuals: tuple[float, ...]
    #: (predicted, actual) waits of the last tickets.
    waits: tuple[tuple[float, float], ...]
    services: tuple[float, ...]
    #: Time since the first of those who wait came into line, or back into it; 0 when nobody waits.
    oldest: float = 0.0

    @property
    def mean(self) -> float:
        """Mean estimate of those who wait, else the mean service time, else one second."""
        if self.waiting:
            return self.work / self.waiting
        return sum(self.services) / len(self.services) if self.services else 1.0


def replay(rank: int, mean: float, residuals: Sequence[float], slots: int) -> float:
    """Seconds until a slot is free for somebody with ``rank`` jobs of ``mean`` seconds ahead; ``slots`` > 0."""
    busy = sorted(residuals)[:]
    free = [0.0] * max(0, slots - len(busy))
    # More turns than slots: the later ones start when an earlier one ends.
    ends = free + busy[:slots]
    heapq.heapify(ends)
    for residual in busy[slots:]:
        heapq.heappush(ends, heapq.heappop(ends) + residual)
    for _ in range(min(rank, REPLAY)):
        heapq.heappush(ends, heapq.heappop(ends) + mean)
    return ends[0] + max(0, rank - REPLAY) * mean / slots


def ratios(waits: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The 0.5 and 0.9 quantiles of actual over predicted waits."""
    if len(waits) < MIN_SAMPLES:
        return DEFAULT_RATIOS
    found = sorted((actual + OFFSET) / (predicted + OFFSET) for predicted, actual in waits)
    return _quantile(found, 0.5), _quantile(found, 0.9)


def predict(load: Load, rank: int) -> float | None:
    """The uncorrected wait in seconds behind ``rank`` people; None while no worker is there."""
    return replay(rank, load.mean, load.residuals, load.slots) if load.slots else None


def eta(load: Load, rank: int) -> Eta | None:
    """The wait behind ``rank`` people as a range; None while no worker is there."""
    predicted = predict(load, rank)
    if predicted is None:
        return None
    p50, p90 = (max(0.0, (predicted + OFFSET) * ratio - OFFSET) for ratio in ratios(load.waits))
    return Eta(p50, max(p50, p90))


def place(ticket: Ticket, rank: int | None, load: Load) -> Place:
    """A ticket's place. The work ahead is the rank times the mean estimate of the line."""
    if rank is None:
        return Place(ticket, None, None, None)
    return Place(ticket, rank + 1, rank * load.mean, eta(load, rank))


def line(load: Load) -> Line:
    """The line as anybody may see it."""
    return Line(
        kind=load.kind,
        now=load.now,
        waiting=load.waiting,
        work_seconds=load.work,
        oldest_seconds=load.oldest,
        granted=load.granted,
        running=load.running,
        slots=load.slots,
        workers=load.workers,
        eta=eta(load, load.waiting),
        wait=spread([actual for _, actual in load.waits]),
        service=spread(load.services),
    )


def spread(values: Sequence[float]) -> Spread | None:
    """Median and 0.95 quantile; None of nothing."""
    ordered = sorted(values)
    return Spread(_quantile(ordered, 0.5), _quantile(ordered, 0.95)) if ordered else None


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all are not above."""
    index = -(-len(ordered) * round(share * 1000) // 1000) - 1
    return ordered[max(0, min(len(ordered) - 1, index))]
