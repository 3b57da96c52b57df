"""The numbers as Prometheus reads them (https://prometheus.io/docs/instrumenting/exposition_formats/, text 0.0.4).

Every series is written from the lists of ``metrics.py``; the sums are only looked up. A name in the store that isn't
listed, whoever put it there, is read by nobody.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, product

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from nanoswap.queue.room import Line
from nanoswap.queue.sums import Sums
from nanoswap.queue.tally import Tally
from nanoswap.queue.ticket import State
from nanoswap.serve import metrics
from nanoswap.serve.meter import THOUSANDTHS, sum_name
from nanoswap.serve.metrics import Family

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What is known at one moment. ``proved``: when the last search for remnants ended (seconds since the epoch) and
    whether it found nothing; None where no report can be read."""

    lines: Sequence[Line]
    tallies: Sequence[Tally]
    sums: Sums
    proved: tuple[float, bool] | None


def exposition(reading: Reading) -> bytes:
    """The whole answer."""
    return generate_latest(_Collected(reading))


@dataclass(frozen=True, slots=True)
class _Collected:
    """What ``generate_latest`` takes for a registry."""

    reading: Reading

    def collect(self) -> Iterable[Metric]:
        yield from _of_lines(self.reading.lines)
        yield from _of_tallies(self.reading.tallies)
        if self.reading.proved is not None:
            ended, passed = self.reading.proved
            yield _plain(metrics.PROVE_TIME, {(): ended})
            yield _plain(metrics.PROVE_PASSED, {(): float(passed)})
        if self.reading.sums.keys_overdue is not None:
            yield _plain(metrics.KEYS_OVERDUE, {(): self.reading.sums.keys_overdue})
        for family in metrics.COUNTED:
            yield _counted(family, self.reading.sums)


def _of_lines(lines: Sequence[Line]) -> Iterator[Metric]:
    yield _plain(metrics.WAITING, {(line.kind,): line.waiting for line in lines})
    yield _plain(metrics.WORK, {(line.kind,): line.work_seconds for line in lines})
    yield _plain(metrics.SLOTS, {(line.kind,): line.slots for line in lines})
    yield _plain(metrics.RUNNING, {(line.kind,): line.running for line in lines})
    yield _plain(metrics.WORKERS, {(line.kind,): line.workers for line in lines})


def _of_tallies(tallies: Sequence[Tally]) -> Iterator[Metric]:
    waits = HistogramMetricFamily(metrics.WAIT.name, metrics.WAIT.help, labels=list(metrics.WAIT.labels))
    for one in tallies:
        waits.add_metric([one.kind], _cumulative(metrics.WAIT.bounds, one.waits), one.wait_seconds)
    yield waits
    yield _plain(metrics.ETA_QUOTED, {(one.kind,): one.quoted for one in tallies})
    yield _plain(metrics.ETA_COVERED, {(one.kind,): one.covered for one in tallies})
    yield _plain(metrics.GRANTS, {(one.kind,): one.tickets[State.GRANTED] for one in tallies})
    yield _plain(metrics.NO_SHOWS, {(one.kind,): one.no_shows for one in tallies})
    yield _plain(
        metrics.TICKETS, {(one.kind, state): number for one in tallies for state, number in one.tickets.items()}
    )


def _plain(family: Family, values: dict[tuple[str, ...], float]) -> Metric:
    made = GaugeMetricFamily if family.type == "gauge" else CounterMetricFamily
    metric = made(family.name, family.help, labels=list(family.labels))
    for labels, value in values.items():
        metric.add_metric(list(labels), value)
    return metric


def _counted(family: Family, sums: Sums) -> Metric:
    """A family of ``metrics.COUNTED`` with every value of its labels, or without what is 0 if it is sparse."""
    every = list(product(*family.labels.values()))
    if family.type == "counter":
        found = {labels: sums.numbers.get(sum_name(family, *labels), 0) / family.scale for labels in every}
        return _plain(family, {labels: value for labels, value in found.items() if value or not family.sparse})
    histogram = HistogramMetricFamily(family.name, family.help, labels=list(family.labels))
    for labels in every:
        counts = [sums.numbers.get(sum_name(family, *labels, str(index)), 0) for index in range(len(family.bounds) + 1)]
        total = sums.numbers.get(sum_name(family, *labels, "sum"), 0) / THOUSANDTHS
        histogram.add_metric(list(labels), _cumulative(family.bounds, counts), total)
    return histogram


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """(upper end, how many are at most that), as the format wants buckets."""
    ends = [*(str(bound) for bound in bounds), "+Inf"]
    return list(zip(ends, accumulate(counts), strict=True))
