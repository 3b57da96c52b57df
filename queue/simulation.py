"""A day in the waiting room, without the day: what would people wait, on these GPUs, with these arrivals?

The rules are the product's own. ``boost``, ``debt``, the rounding and every number of ``Policy`` are imported, and what
is done with them at join, grant and finish is what ``room.lua`` does; `tests/queue/test_simulation.py` plays random
days here and in the in-memory room and demands the same turns at the same moments, so a plan can't drift from the
service. What only crashes and absences need (parking, leases, seals) is left out: everybody stays, every turn ends.

Each kind has its line, its slots and its workers, as in the service. What is added is the machine: a worker runs
``jobs`` turns at once and begins the others that it was granted ahead in their order. Where one GPU serves
both kinds, a picture waits for the end of the clip's chunk and the clip stands still while the picture is worked on
(``serve/shared_gpu.py``). Uploads take no time. Times are whole milliseconds from the start of a day, UTC.
"""

import random
from array import array
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from heapq import heappop, heappush
from itertools import count
from typing import Final

from nanoswap.queue.room import Policy
from nanoswap.queue.score import boost, debt, milliseconds

#: What is counted apart: pictures, clips, and clips of accounts that send many at once. Numbers, for speed.
IMAGE, VIDEO, BURST = 0, 1, 2
GROUPS: Final = ("image", "video", "burst")
HOUR: Final = 3_600_000

#: When (ms), whose, which group, the estimate (GPU seconds), the work that it is (ms).
Arrival = tuple[int, int, int, float, int]
#: Called with the moment, "join", "full", "quota", "tickets", "grant" or "finish", and the arrival.
Watch = Callable[[int, str, Arrival], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """GPUs by hour of the day, 24 numbers for each kind. ``shared``: the two are the same GPUs."""

    image: tuple[int, ...]
    video: tuple[int, ...]
    shared: bool
    #: Turns that a worker runs at once, and what it offers to the room (`NANOSWAP_IMAGE_SLOTS` is both).
    image_slots: int = 1
    video_jobs: int = 1
    video_slots: int = 2
    #: Seconds that a clip works between two looks for pictures.
    chunk: float = 2.0


class Waits:
    """What came of it: waits in ms, from asking first to the start of the work, at [group * 24 + hour of asking]."""

    def __init__(self) -> None:
        self.waits: list[array[int]] = [array("I") for _ in range(len(GROUPS) * 24)]
        #: Work in ms of pictures and of clips, at [kind * 24 + hour in which it began].
        self.used = [0] * 48
        #: Refusals by reason. Who is refused for a full line is lost, the others ask again.
        self.refused = {"full": 0, "quota": 0, "tickets": 0}

    def settle(self) -> None:
        """Sort each hour once: any number of hours together is then merged, not sorted again."""
        self.waits = [array("I", sorted(waits)) for waits in self.waits]

    def quantiles(self, group: int, hours: Iterable[int], shares: Iterable[float]) -> list[float] | None:
        """Seconds that this share of the group waited at most; None when nobody came."""
        found = sorted(wait for hour in hours for wait in self.waits[group * 24 + hour])
        return [found[min(len(found) - 1, int(share * len(found)))] / 1000 for share in shares] if found else None

    def count(self, group: int, hours: Iterable[int]) -> int:
        """How many of the group came in these hours and were served."""
        return sum(len(self.waits[group * 24 + hour]) for hour in hours)


class Lines:
    """The waiting room's rules for those who are present: see ``room.lua``, join, grant and finish."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        self._horizon = milliseconds(policy.horizon)
        self._head_start = cache(lambda estimate: milliseconds(boost(estimate, policy.boost_gamma, policy.boost_cap)))
        self._debt = cache(lambda seconds: milliseconds(debt(seconds, policy.phi)))
        self._clocks: dict[int, int] = {}
        self._sweep_at = 100_000
        self._open: dict[int, int] = {}
        self._joined = 0
        self.waiting: tuple[list[tuple[int, int, Arrival]], ...] = ([], [])

    def join(self, now: int, arrival: Arrival) -> str:
        """Take a place: "join", or why not ("tickets", "full", "quota")."""
        _, account, group, estimate, _ = arrival
        line, taken = self.waiting[group != IMAGE], self._open.get(account, 0)
        if taken >= self._policy.max_tickets_per_account:
            return "tickets"
        if len(line) >= self._policy.max_waiting:
            return "full"
        tat = self._clocks.get(account, 0)
        if tat < now:
            tat = now
        if tat - now > self._horizon:
            return "quota"
        self._clocks[account] = tat + self._debt(estimate)
        self._open[account] = taken + 1
        self._joined += 1
        heappush(line, (tat - self._head_start(estimate), self._joined, arrival))
        if len(self._clocks) > self._sweep_at:
            self._clocks = {one: reading for one, reading in self._clocks.items() if reading > now}
            self._sweep_at = 100_000 + 2 * len(self._clocks)
        return "join"

    def excess(self, now: int, account: int) -> int:
        """Milliseconds until this account may ask again: what Retry-After says."""
        return self._clocks[account] - now - self._horizon

    def finish(self, now: int, arrival: Arrival, used: int) -> None:
        """End a turn and settle the account's clock to the ``used`` ms."""
        account = arrival[1]
        if (taken := self._open[account]) > 1:
            self._open[account] = taken - 1
        else:
            del self._open[account]
        if (reading := self._clocks.get(account, 0)) > now:
            self._clocks[account] = reading + self._debt(used / 1000) - self._debt(arrival[3])


class _Pool:
    """The workers of one kind. A turn goes to one of those that hold the fewest, one after the other, as the edge's
    least-connections rule sends it; there it waits behind what that worker runs."""

    def __init__(self, jobs: int, turns: int, most: int) -> None:
        #: Per worker, turns that run at once and turns that the room grants it.
        self._jobs, self._turns = jobs, turns
        self._workers = 0
        self._held = [0] * most
        #: Workers by the number of turns that they hold, each in the order in which they came to it.
        self._levels: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(turns + 1)]
        self._staged: list[deque[Arrival]] = [deque() for _ in range(most)]
        #: Turns that the room may still grant; below 0 after workers went.
        self.room = 0

    def resize(self, workers: int) -> None:
        """From now on the first ``workers`` take turns; others end what they hold."""
        self.room += (workers - self._workers) * self._turns
        for worker in range(self._workers, workers):
            self._levels[self._held[worker]][worker] = None
        for worker in range(workers, self._workers):
            del self._levels[self._held[worker]][worker]
        self._workers = workers

    def take(self, arrival: Arrival) -> int:
        """Give a turn to a worker; returns which, or -1 when it runs as many as it can."""
        self.room -= 1
        held = 0
        while not self._levels[held]:
            held += 1
        worker, _ = self._levels[held].popitem(last=False)
        self._levels[held + 1][worker] = None
        self._held[worker] = held + 1
        if held < self._jobs:
            return worker
        self._staged[worker].append(arrival)
        return -1

    def leave(self, worker: int) -> Arrival | None:
        """End a turn; returns the one that this worker begins now."""
        self.room += 1
        held = self._held[worker]
        self._held[worker] = held - 1
        if worker < self._workers:
            del self._levels[held][worker]
            self._levels[held - 1][worker] = None
        staged = self._staged[worker]
        return staged.popleft() if staged else None


def simulate(
    arrivals: Iterable[Arrival], policy: Policy, fleet: Fleet, *, seed: int = 0, watch: Watch | None = None
) -> Waits:
    """Play ``arrivals``, in order of time, until the last is served. ``seed``: where in its chunk a clip is met."""
    most, turns, shared = max(*fleet.image, *fleet.video), 1 + policy.ahead, fleet.shared
    pools = (
        _Pool(fleet.image_slots, fleet.image_slots * turns, most),
        _Pool(fleet.video_jobs, fleet.video_slots * turns, most),
    )
    lines, waits, draw = Lines(policy), Waits(), random.Random(seed).random
    samples, used, chunk = waits.waits, waits.used, milliseconds(fleet.chunk)
    # Per GPU: clips in work, until when they stand still for pictures, and how long they have, that included.
    clips, still_until, stood = [0] * most, [0] * most, [0] * most
    # (when, order, worker or -1, arrival, when it began, what `stood` was then)
    events: list[tuple[int, int, int, Arrival, int, int]] = []
    again: defaultdict[int, deque[Arrival]] = defaultdict(deque)
    order = count()

    def ask(now: int, arrival: Arrival) -> None:
        said = lines.join(now, arrival)
        if watch:
            watch(now, said, arrival)
        if said == "join":
            grant(now, arrival[2] != IMAGE)
            return
        waits.refused[said] += 1
        if said == "tickets":
            again[arrival[1]].append(arrival)
        elif said == "quota":
            heappush(events, (now + lines.excess(now, arrival[1]), next(order), -1, arrival, now, 0))

    def grant(now: int, kind: int) -> None:
        pool, line = pools[kind], lines.waiting[kind]
        while line and pool.room > 0:
            arrival = heappop(line)[2]
            if watch:
                watch(now, "grant", arrival)
            if (worker := pool.take(arrival)) >= 0:
                begin(now, worker, arrival)

    def begin(now: int, gpu: int, arrival: Arrival) -> None:
        asked, _, group, _, work = arrival
        start, mark = now, 0
        if shared:
            still = still_until[gpu]
            if group != IMAGE:
                clips[gpu] += 1
                mark = stood[gpu] if still <= now else stood[gpu] - still + now
            else:
                if clips[gpu] and still <= now:
                    start = now + int(draw() * chunk)
                if start + work > still:
                    # Also where no clip is there: one may begin meanwhile.
                    stood[gpu] += start + work - (start if start > still else still)
                    still_until[gpu] = start + work
        samples[group * 24 + asked // HOUR % 24].append(start - asked)
        used[(group != IMAGE) * 24 + start // HOUR % 24] += work
        heappush(events, (start + work, next(order), gpu, arrival, now, mark))

    def happen() -> None:
        now, _, gpu, arrival, began, mark = heappop(events)
        if gpu < 0:
            ask(now, arrival)
            return
        kind = arrival[2] != IMAGE
        if kind and shared:
            if stood[gpu] > mark:
                # It stood still meanwhile: it ends later by that.
                heappush(events, (now + stood[gpu] - mark, next(order), gpu, arrival, began, stood[gpu]))
                return
            clips[gpu] -= 1
        following = pools[kind].leave(gpu)
        lines.finish(now, arrival, now - began)
        if watch:
            watch(now, "finish", arrival)
        if following:
            begin(now, gpu, following)
        grant(now, kind)
        if again:
            if waiting := again.get(arrival[1]):
                ask(now, waiting.popleft())
            elif waiting is not None:
                del again[arrival[1]]

    def resize(hour: int) -> None:
        for kind, gpus in enumerate((fleet.image, fleet.video)):
            pools[kind].resize(gpus[hour % 24])
            grant(hour * HOUR, kind)

    hour = -1
    for arrival in arrivals:
        now = arrival[0]
        if hour < 0:
            hour = now // HOUR
            resize(hour)
        while now >= (turn := (hour + 1) * HOUR):
            while events and events[0][0] <= turn:
                happen()
            hour += 1
            resize(hour)
        while events and events[0][0] <= now:
            happen()
        ask(now, arrival)
    while events or any(lines.waiting):
        if events and events[0][0] <= (hour + 1) * HOUR:
            happen()
        else:
            hour += 1
            resize(hour)
    return waits
