"""The fewest GPUs by hour of the day with which nine tenths and a half of the people wait no longer than they may.

Found by trying: from the work that each hour brings, GPUs are added where the simulated day misses its target, and
then taken away, one hour after the other, where it still meets it without. The target holds in every hour by itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from nanoswap.queue.room import Policy
from nanoswap.queue.simulation import HOUR, IMAGE, VIDEO, Arrival, Fleet, Waits, simulate

_ROUNDS: Final = 100


@dataclass(frozen=True, slots=True)
class Target:
    """Seconds that the 0.95 quantile of the waits may reach."""

    image: float
    video: float


def misses(waits: Waits, target: Target) -> tuple[list[int], list[int]]:
    """Hours of the day in which pictures, and in which clips, wait longer than they may. Bursts don't count."""

    def late(group: int, bound: float) -> list[int]:
        found = ((hour, waits.quantiles(group, [hour], [0.95])) for hour in range(24))
        return [hour for hour, quantile in found if quantile and quantile[0] > bound]

    return late(IMAGE, target.image), late(VIDEO, target.video)


def fewest(arrivals: Sequence[Arrival], policy: Policy, fleet: Fleet, target: Target) -> Fleet | None:
    """``fleet`` with as few GPUs by hour as meet the target; None when it isn't met with any that was tried."""
    days = max(1, -(-(arrivals[-1][0] - arrivals[0][0]) // (24 * HOUR)))
    image, video = _offered(arrivals, fleet, days)
    for _ in range(_ROUNDS):
        late = misses(simulate(arrivals, policy, _with(fleet, image, video)), target)
        if not any(late):
            break
        for hour in late[0]:
            image[hour] += 1
        for hour in set(late[0] + late[1]) if fleet.shared else late[1]:
            video[hour] += 1
        if fleet.shared:
            image = video
    else:
        return None
    for gpus in (video,) if fleet.shared else (image, video):
        for hour in sorted(range(24), key=lambda one: -gpus[one]):
            while gpus[hour] > 1:
                gpus[hour] -= 1
                if any(misses(simulate(arrivals, policy, _with(fleet, image, video)), target)):
                    gpus[hour] += 1
                    break
    return _with(fleet, image, video)


def _offered(arrivals: Sequence[Arrival], fleet: Fleet, days: int) -> tuple[list[int], list[int]]:
    """GPUs that the work of each hour would keep busy, rounded up: one list for both kinds where they share."""
    work = [[0.0] * 24, [0.0] * 24]
    for at, _, group, _, spent in arrivals:
        jobs = fleet.image_slots if group == IMAGE else fleet.video_jobs
        work[0 if fleet.shared else group != IMAGE][at // HOUR % 24] += spent / jobs / days
    image, video = ([max(1, math.ceil(spent / HOUR)) for spent in by_hour] for by_hour in work)
    return (image, image) if fleet.shared else (image, video)


def _with(fleet: Fleet, image: list[int], video: list[int]) -> Fleet:
    return replace(fleet, image=tuple(image), video=tuple(video))
