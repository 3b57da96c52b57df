"""How long until a turn: replay the line, then correct by how well such replays have done lately.

The replay hands the jobs ahead, one by one, to whoever is free first to work on one; their estimates are scaled by how
long turns took lately. Its error is then measured: for the last who were told to wait and began their turn we know what
was predicted when they joined and how long they really waited, and the quantiles of that ratio turn the one number into
a range that is right as often as it says (split conformal prediction). Who found a turn free says nothing about the
error: with them among the samples, those who do wait were told too little.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, repeat
from statistics import fmean

from nanoswap.queue.room import Line, Spread
from nanoswap.queue.ticket import Eta, Kind, Place, Ticket

#: The replay follows the line this far; beyond it the remaining work is spread evenly over who works.
REPLAY = 2000
#: Added to both sides of the ratio: waits of a fraction of a second would make it meaningless.
OFFSET = 1.0
#: With fewer samples than this, the range is the default one.
MIN_SAMPLES = 20
DEFAULT_RATIOS = (1.0, 1.6)
#: Turns, the last ones, that say how long a turn takes: few, so that a machine that slows down is believed soon.
RECENT = 50


@dataclass(frozen=True, slots=True)
class Given:
    """A turn that was given out. ``past``: seconds since ``worker`` has had it; "" while nobody has come for it."""

    estimate: float
    past: float
    worker: str


@dataclass(frozen=True, kw_only=True)
class Load:
    """A line at one moment, as the store knows it. Times in seconds, ``now`` in ms since the epoch. What is made of the
    samples is made once, for all of the line."""

    kind: Kind
    now: int
    waiting: int
    work: float
    granted: int
    running: int
    slots: int
    workers: int
    #: Turns that are worked on at once, of all workers.
    jobs: int
    turns: tuple[Given, ...]
    #: Worker -> seconds since a turn of it ended.
    ended: Mapping[str, float]
    #: Waits of the last people until their turn was granted.
    waits: tuple[float, ...]
    #: (predicted, actual) until the turn began, of the last who were told to wait.
    told: tuple[tuple[float, float], ...]
    #: (estimated, used) GPU seconds of the last turns that went well, the last one first.
    services: tuple[tuple[float, float], ...]
    #: Turns that the room grants for each slot beyond those that run.
    ahead: int = 0
    #: Time since the first of those who wait came into line, or back into it; 0 when nobody waits.
    oldest: float = 0.0

    @cached_property
    def mean(self) -> float:
        """Seconds that one of those who wait will take, else one of the last turns, else one second."""
        if self.waiting:
            return self.work * self.scale / self.waiting
        return fmean(used for _, used in self.services) if self.services else 1.0

    @cached_property
    def scale(self) -> float:
        """What turns took lately over what they were estimated to: engine and machine are not known to an estimate.
        1 while few are known: the first turns of a cold engine must not call for a fleet."""
        lately = self.services[:RECENT]
        if len(lately) < MIN_SAMPLES:
            return 1.0
        return sum(used for _, used in lately) / sum(estimate for estimate, _ in lately) or 1.0

    @cached_property
    def residuals(self) -> list[float]:
        """Remaining seconds of the turns that were given out, those first that are worked on. A worker takes its turns
        in the order in which it got them, and begins the last of those when another one ends."""
        of: defaultdict[str, list[Given]] = defaultdict(list)
        for turn in sorted(self.turns, key=lambda turn: (-turn.past, turn.estimate)):
            of[turn.worker].append(turn)
        staged = [turn.estimate for turn in of.pop("", [])]
        begun, at_once = [], max(1, self.jobs // max(1, self.workers))
        for worker, turns in of.items():
            staged += [turn.estimate for turn in turns[at_once:]]
            past = [turn.past for turn in turns[:at_once]]
            if len(past) == at_once:
                past[-1] = min(past[-1], self.ended.get(worker, math.inf))
            begun += [max(0.0, turn.estimate * self.scale - since) for turn, since in zip(turns, past, strict=False)]
        return sorted(begun) + sorted(estimate * self.scale for estimate in staged)

    @cached_property
    def ratios(self) -> tuple[float, float]:
        """See `ratios`."""
        return ratios(self.told)


def replay(rank: int, mean: float, busy: Sequence[float], jobs: int, turns: int) -> float | None:
    """Seconds until the room gives a turn to somebody with ``rank`` jobs of ``mean`` seconds before them; None when one
    is free. ``busy``: remaining seconds of the turns that are given out, ``turns`` at most, in the order in which they
    begin; ``jobs`` > 0 of them are worked on at once."""
    endings = len(busy) + rank + 1 - turns
    if endings <= 0:
        return None
    line = chain(busy, repeat(mean, rank))
    ends = list(islice(line, jobs))
    heapq.heapify(ends)
    for _ in range(min(endings, REPLAY) - 1):
        heapq.heappush(ends, heapq.heappop(ends) + next(line, 0.0))
    return ends[0] + max(0, endings - REPLAY) * mean / jobs


def ratios(told: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The 0.5 and 0.9 quantiles of actual over predicted waits."""
    if len(told) < MIN_SAMPLES:
        return DEFAULT_RATIOS
    found = sorted((actual + OFFSET) / (predicted + OFFSET) for predicted, actual in told)
    return _quantile(found, 0.5), _quantile(found, 0.9)


def eta(load: Load, rank: int) -> Eta | None:
    """The wait behind ``rank`` people as a range; None while no worker is there."""
    if not load.slots:
        return None
    turns = load.slots * (1 + load.ahead)
    predicted = replay(rank, load.mean, load.residuals, min(turns, max(1, load.jobs)), turns)
    if predicted is None:
        return Eta(0.0, 0.0, None)
    p50, p90 = (max(0.0, (predicted + OFFSET) * ratio - OFFSET) for ratio in load.ratios)
    return Eta(p50, max(p50, p90), predicted)


def first_end(load: Load, rank: int, grant: float) -> float:
    """Seconds until a ticket behind ``rank`` people should have ended: its wait, at the worker too, and its turn.
    ``grant``: what a person has to come for a turn, where nothing better is known."""
    jobs = max(1, load.jobs)
    begins = replay(rank, load.mean, load.residuals, jobs, jobs) if load.slots else None
    return (grant if begins is None else begins) + load.mean


def place(ticket: Ticket, rank: int | None, load: Load) -> Place:
    """A ticket's place. The work ahead is the rank times what one of the line will take."""
    if rank is None:
        return Place(ticket, None, None, None)
    return Place(ticket, rank + 1, rank * load.mean, eta(load, rank))


def line(load: Load) -> Line:
    """The line as anybody may see it."""
    return Line(
        kind=load.kind,
        now=load.now,
        waiting=load.waiting,
        work_seconds=load.work * load.scale,
        oldest_seconds=load.oldest,
        granted=load.granted,
        running=load.running,
        slots=load.slots,
        workers=load.workers,
        eta=eta(load, load.waiting),
        wait=spread(load.waits),
        service=spread([used for _, used in load.services]),
    )


def spread(values: Sequence[float]) -> Spread | None:
    """Median and 0.95 quantile; None of nothing."""
    ordered = sorted(values)
    return Spread(_quantile(ordered, 0.5), _quantile(ordered, 0.95)) if ordered else None


def _quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of all are not above."""
    index = -(-len(ordered) * round(share * 1000) // 1000) - 1
    return ordered[max(0, min(len(ordered) - 1, index))]
