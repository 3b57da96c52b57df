"""Who comes, when, and with how much work: a day from its profile, or from a log that says nothing of anybody.

People come as a Poisson process whose rate changes by the hour; each is an account of its own. A few are bursts: one
account that sends several clips at once. The work of a picture or a clip is lognormal, cut off at both ends; what a
clip is estimated to cost before it is seen misses by a lognormal factor. The same seed gives the same day.
"""

import csv
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Final

from nanoswap.queue.score import milliseconds
from nanoswap.queue.simulation import BURST, HOUR, IMAGE, VIDEO, Arrival

_STEPS: Final = 4096
COLUMNS: Final = ("at", "kind", "gpu_seconds")


class LogError(ValueError):
    """A log of arrivals that can't be read; says where and why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """GPU seconds of one kind: lognormal, cut off. ``spread`` is the standard deviation of the logarithm."""

    median: float
    spread: float
    least: float
    most: float

    def table(self) -> list[int]:
        """Milliseconds at the middle of each of ``_STEPS`` equal shares, in order."""
        normal = NormalDist(math.log(self.median), self.spread) if self.spread else None
        middles = ((step + 0.5) / _STEPS for step in range(_STEPS))
        drawn = [math.exp(normal.inv_cdf(share)) if normal else self.median for share in middles]
        return [milliseconds(min(self.most, max(self.least, seconds))) for seconds in drawn]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A day. ``jobs`` of it come by ``hours``, 24 weights from midnight UTC; bursts come on top."""

    jobs: float
    hours: tuple[float, ...]
    video_share: float
    #: Share of those who come that are bursts, and the clips that each sends at once.
    burst_share: float
    burst_jobs: int
    image: Work
    video: Work
    #: Pictures are estimated at this many GPU seconds, clips at their work times a lognormal factor of this spread.
    image_estimate: float
    video_error: float

    def arrivals(self, days: int, seed: int) -> Iterator[Arrival]:
        """``days`` such days, one after the other, in order of time."""
        draw, normal = random.Random(seed).random, random.Random(seed + 1).gauss
        image, video = self.image.table(), self.video.table()
        total, log, exp = sum(self.hours), math.log, math.exp
        video_from, burst_from = 1 - self.video_share, 1 - self.burst_share
        account = 0
        for hour in range(24 * days):
            mean = self.jobs * self.hours[hour % 24] / total
            if not mean:
                continue
            begin, end, gap = float(hour * HOUR), (hour + 1) * HOUR, -HOUR / mean
            at = begin + gap * log(1 - draw())
            while at < end:
                account += 1
                if self.burst_share and draw() >= burst_from:
                    for _ in range(self.burst_jobs):
                        work = video[int(draw() * _STEPS)]
                        yield int(at), account, BURST, round(work / 1000 * exp(normal(0.0, self.video_error)), 1), work
                elif draw() < video_from:
                    yield int(at), account, IMAGE, self.image_estimate, image[int(draw() * _STEPS)]
                else:
                    work = video[int(draw() * _STEPS)]
                    yield int(at), account, VIDEO, round(work / 1000 * exp(normal(0.0, self.video_error)), 1), work
                at += gap * log(1 - draw())


def read_log(path: Path) -> list[Arrival]:
    """Arrivals of a CSV file with the columns ``at`` (seconds since the epoch, or since a midnight UTC), ``kind``
    (image or video) and ``gpu_seconds``; optionally ``estimate`` (GPU seconds, else what it used) and ``account`` (any
    word that stands for one account in this log, else everybody is another). Raises LogError, OSError."""
    accounts: dict[str, int] = {}
    found: list[Arrival] = []
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if missing := [name for name in COLUMNS if name not in (rows.fieldnames or ())]:
            raise LogError(f"{path}: no column {missing[0]}; needed are {', '.join(COLUMNS)}")
        for row in rows:
            try:
                seconds, used = float(row["at"]), float(row["gpu_seconds"])
                estimate = float(row.get("estimate") or used)
                group = {"image": IMAGE, "video": VIDEO}[row["kind"]]
            except (TypeError, ValueError, KeyError):
                raise LogError(f"{path}, line {rows.line_num}: at, kind or a number is wrong") from None
            if not (0 <= seconds < 1e11 and 0 < used < 1e6 and 0 < estimate < 1e6):
                raise LogError(f"{path}, line {rows.line_num}: a number is out of range")
            word = row.get("account") or f"\n{rows.line_num}"
            account = accounts.setdefault(word, len(accounts))
            found.append((milliseconds(seconds), account, group, estimate, milliseconds(used)))
    if not found:
        raise LogError(f"{path}: no arrivals")
    return sorted(found)
