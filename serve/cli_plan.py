"""``nanoswap plan --profile FILE``: what people will wait on these GPUs, hour by hour, and what it costs.

The day is simulated with the waiting room's own rules, and beside it the same day first in, first out. The answer is a
table on standard output and a chart in a file; docs/capacity.md says how to read them and what is left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from nanoswap.queue.baseline import first_in_first_out
from nanoswap.queue.room import Policy
from nanoswap.queue.simulation import BURST, HOUR, IMAGE, VIDEO, Arrival, Waits, simulate
from nanoswap.queue.sizing import fewest
from nanoswap.queue.workload import LogError, read_log
from nanoswap.serve.environment import SettingsError
from nanoswap.serve.plan_chart import chart
from nanoswap.serve.plan_profile import Question, read_question

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_SHARES = (0.5, 0.95, 0.99)
Quantiles = list[list[list[float] | None]]


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    text = "what people will wait on given GPUs, hour by hour, and what it costs"
    parser = commands.add_parser("plan", help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument("--profile", required=True, metavar="FILE", help="the day in TOML, as examples/weekend.toml")
    parser.add_argument("--log", metavar="CSV", help="arrivals that happened, instead of the profile's")
    parser.add_argument("--jobs", type=int, metavar="N", help="jobs a day, instead of the profile's")
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs for both kinds, instead of the profile's")
    parser.add_argument("--size", action="store_true", help="find the fewest GPUs by hour that meet the target")
    parser.add_argument("-o", "--out", default="plan.svg", metavar="SVG", help="where the chart goes (plan.svg)")
    parser.add_argument("--json", action="store_true", help="answer as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Raises `SettingsError`."""
    question, out = read_question(Path(arguments.profile)), Path(arguments.out)
    if not out.parent.is_dir():
        raise SettingsError(f"{out.parent} is not a folder")
    if arguments.jobs is not None:
        if arguments.jobs < 1:
            raise SettingsError("--jobs must be 1 or more")
        question = replace(question, profile=replace(question.profile, jobs=arguments.jobs))
    if arguments.gpus is not None:
        if not 1 <= arguments.gpus <= 100_000:
            raise SettingsError("--gpus must be from 1 to 100000")
        gpus = (arguments.gpus,) * 24
        question = replace(question, fleet=replace(question.fleet, image=gpus, video=gpus, shared=True))
    log = _log(Path(arguments.log)) if arguments.log else None
    if arguments.size:
        every = log or list(question.profile.arrivals(question.days, question.seed))
        fleet = fewest(every, Policy(), question.fleet, question.target) if every else None
        if fleet is None:
            raise SettingsError("no number of GPUs that was tried meets the target in every hour")
        question = replace(question, fleet=fleet)
    answer = plan(question, log)
    lines = {
        "pictures": [_p95(row.image) for row in answer.hours],
        "clips": [_p95(row.video) for row in answer.hours],
        "first in, first out": [_p95(row.fifo_image) for row in answer.hours],
    }
    try:
        out.write_text(chart("Waits by hour, 0.95 quantile", lines, question.peak), "utf-8")
    except OSError as error:
        raise SettingsError(f"{out} can't be written: {error.strerror or 'unknown reason'}") from None
    print(json.dumps(asdict(answer) | {"chart": str(out)}) if arguments.json else f"{table(question, answer)}\n{out}")
    return 0


def _log(path: Path) -> list[Arrival]:
    try:
        return read_log(path)
    except LogError as error:
        raise SettingsError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {getattr(error, 'strerror', None) or 'not readable as UTF-8'}") from None


@dataclass(frozen=True, slots=True)
class Row:
    """Some hours of the day. Waits are seconds at p50, p95 and p99, None when nobody came; ``jobs`` is a day's mean,
    ``busy`` the share of the GPUs' time that the work begun in these hours takes, ``fifo_`` first in, first out."""

    jobs: float
    gpus: float
    busy: float
    image: list[float] | None
    video: list[float] | None
    burst: list[float] | None
    fifo_image: list[float] | None
    fifo_video: list[float] | None


@dataclass(frozen=True, slots=True)
class Answer:
    """A plan: 24 hours, the peak and the whole day; refusals and cost a day; whether the peak meets the target."""

    hours: list[Row]
    peak: Row
    day: Row
    days: int
    refused: dict[str, float]
    gpu_hours: float
    cost: float
    image_met: bool
    video_met: bool


def plan(question: Question, log: list[Arrival] | None = None) -> Answer:
    """Simulate the days of a question, or of a log of whole days, with the room's rules and first in, first out."""
    fleet, seed = question.fleet, question.seed
    days = question.days if log is None else log[-1][0] // (24 * HOUR) - log[0][0] // (24 * HOUR) + 1
    rows = [*([hour] for hour in range(24)), list(range(*question.peak)), list(range(24))]
    # Beside each other: the day of a big service takes a minute either way. The other process draws the same day anew.
    with ProcessPoolExecutor(1, get_context("spawn")) as beside:
        promised = beside.submit(_first_in_first_out, question, days, log, rows)
        waits = simulate(_arrivals(question, days, log), Policy(), fleet, seed=seed)
        ours = _quantiles(waits, (IMAGE, VIDEO, BURST), rows)
        fifo = promised.result()
    gpus = [images if fleet.shared else images + clips for images, clips in zip(fleet.image, fleet.video, strict=True)]
    jobs_at_once = (fleet.image_slots, fleet.video_jobs)

    def row(hours: list[int], groups: list[list[float] | None], before: list[list[float] | None]) -> Row:
        worked = sum(waits.used[kind * 24 + hour] / jobs_at_once[kind] for kind in (0, 1) for hour in hours)
        image, video, burst = groups
        return Row(
            jobs=sum(waits.count(group, hours) for group in (IMAGE, VIDEO, BURST)) / days,
            gpus=sum(gpus[hour] for hour in hours) / len(hours),
            busy=worked / (sum(gpus[hour] for hour in hours) * HOUR * days),
            image=image,
            video=video,
            burst=burst,
            fifo_image=before[0],
            fifo_video=before[1],
        )

    *by_hour, peak, day = map(row, rows, ours, fifo)
    return Answer(
        hours=by_hour,
        peak=peak,
        day=day,
        days=days,
        refused={reason: count / days for reason, count in waits.refused.items()},
        gpu_hours=sum(gpus),
        cost=sum(gpus) * question.price,
        image_met=peak.image is None or peak.image[1] <= question.target.image,
        video_met=peak.video is None or peak.video[1] <= question.target.video,
    )


def _arrivals(question: Question, days: int, log: list[Arrival] | None) -> Iterable[Arrival]:
    return question.profile.arrivals(days, question.seed) if log is None else log


def _first_in_first_out(question: Question, days: int, log: list[Arrival] | None, rows: list[list[int]]) -> Quantiles:
    waits = Waits()
    for _ in first_in_first_out(_arrivals(question, days, log), question.fleet, waits):
        pass
    return _quantiles(waits, (IMAGE, VIDEO), rows)


def _quantiles(waits: Waits, groups: tuple[int, ...], rows: list[list[int]]) -> Quantiles:
    """For each row of hours, for each group: p50, p95, p99 in seconds; None where nobody came."""
    waits.settle()
    return [[waits.quantiles(group, hours, _SHARES) for group in groups] for hours in rows]


def table(question: Question, answer: Answer) -> str:
    """The answer as Markdown, with what it rests on above it and whether it is enough below."""
    first, after = question.peak
    rows = [(f"{hour:02}", row) for hour, row in enumerate(answer.hours)]
    rows += [(f"**{first}-{after}**", answer.peak), ("**day**", answer.day)]
    lines = [
        "seconds of waiting at p50 / p95 / p99; FIFO: the same day on the same GPUs, first in, first out",
        f"days simulated: {answer.days}; GPUs "
        + ("shared by both kinds" if question.fleet.shared else "of their own for each kind"),
        "",
        "| hour UTC | jobs | GPUs | busy | pictures | clips | pictures, FIFO | clips, FIFO |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, row in rows:
        cells = (f"{row.jobs:.0f}", f"{row.gpus:.6g}", f"{row.busy * 100:.0f} %")
        figures = (_figures(one) for one in (row.image, row.video, row.fifo_image, row.fifo_video))
        lines.append(f"| {' | '.join((name, *cells, *figures))} |")
    target = question.target
    lines += [
        "",
        f"accounts that send many clips at once wait for theirs: {_figures(answer.day.burst)} (not in the table)",
        f"refused a day: {', '.join(f'{reason} {count:.0f}' for reason, count in answer.refused.items())};"
        " who is refused for a full line is lost, the others ask again",
        f"cost a day: {answer.gpu_hours} GPU hours, {answer.cost:.2f} {question.currency}",
        _verdict("pictures", answer.peak.image, target.image, answer.image_met),
        _verdict("clips", answer.peak.video, target.video, answer.video_met),
    ]
    return "\n".join(lines)


def _p95(waits: list[float] | None) -> float | None:
    return None if waits is None else waits[1]


def _figures(waits: list[float] | None) -> str:
    return "-" if waits is None else " / ".join(f"{wait:.1f}" if wait < 100 else f"{wait:.0f}" for wait in waits)


def _verdict(name: str, waits: list[float] | None, target: float, met: bool) -> str:
    found = "nobody came" if waits is None else f"{waits[1]:.1f} s"
    return f"target for {name} at the peak, p95 {target:g} s: {'met' if met else 'MISSED'}, {found}"
