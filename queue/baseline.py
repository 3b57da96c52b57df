"""The same day first in, first out: one line for both kinds, no quotas, every GPU takes whoever came first.

It is what a plan is held against, because it is what a service without a waiting room does.
"""

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush, heapreplace

from nanoswap.queue.simulation import HOUR, IMAGE, Arrival, Fleet, Waits


def first_in_first_out(arrivals: Iterable[Arrival], fleet: Fleet, waits: Waits) -> Iterator[Arrival]:
    """Pass ``arrivals`` on and note in ``waits`` what they would have waited. Where a worker runs several turns at
    once, each takes its share of the GPU: here they run one after the other at that share's length."""
    gpus = fleet.image if fleet.shared else tuple(map(sum, zip(fleet.image, fleet.video, strict=True)))
    ends: list[int] = []
    hour, samples = -1, waits.waits
    for arrival in arrivals:
        now, _, group, _, work = arrival
        while hour < now // HOUR:
            hour = now // HOUR if hour < 0 else hour + 1
            while len(ends) < gpus[hour % 24]:
                heappush(ends, now)
            while len(ends) > gpus[hour % 24]:
                heappop(ends)
        start = max(now, ends[0])
        heapreplace(ends, start + work // (fleet.image_slots if group == IMAGE else fleet.video_jobs))
        samples[group * 24 + now // HOUR % 24].append(start - now)
        yield arrival
