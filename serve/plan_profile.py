"""What ``nanoswap plan`` is asked: a TOML file with a day's profile, the GPUs, their price and what is aimed at.

`examples/weekend.toml` has every field with its unit. An unknown or missing field is an error, not a default: a plan
made of a misspelt number is worse than none.
"""

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanoswap.queue.simulation import Fleet
from nanoswap.queue.sizing import Target
from nanoswap.queue.workload import Profile, Work
from nanoswap.serve.environment import SettingsError


class ProfileError(SettingsError):
    """The profile of a plan can't be read; says which field and what it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One plan. ``peak``: the first hour UTC and the one after the last."""

    profile: Profile
    days: int
    seed: int
    peak: tuple[int, int]
    fleet: Fleet
    price: float
    currency: str
    target: Target


def read_question(path: Path) -> Question:
    """Raises ProfileError."""
    try:
        tables = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror or 'not readable'}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: {error}") from None
    file = _Table(str(path), tables)
    day, image, video, gpus = (file.table(name) for name in ("day", "image", "video", "gpus"))
    price, target = file.table("price"), file.table("target")
    if shared := "shared" in gpus.values:
        fleet_gpus = [gpus.by_hour("shared")] * 2
    else:
        fleet_gpus = [gpus.by_hour("image"), gpus.by_hour("video")]
    question = Question(
        profile=Profile(
            jobs=day.number("jobs", 1, 1e9),
            hours=day.numbers("hours", 24),
            video_share=day.number("video_share", 0, 1),
            burst_share=day.number("burst_share", 0, 1),
            burst_jobs=day.whole("burst_jobs", 1, 1000),
            image=_work(image),
            video=_work(video),
            image_estimate=image.number("estimate", 0.001, 1e5),
            video_error=video.number("estimate_error", 0, 2),
        ),
        days=day.whole("days", 1, 366),
        seed=day.whole("seed", 0, 2**32),
        peak=_peak(day),
        fleet=Fleet(
            image=fleet_gpus[0],
            video=fleet_gpus[1],
            shared=shared,
            image_slots=image.whole("slots", 1, 64),
            video_jobs=video.whole("jobs", 1, 64),
            video_slots=video.whole("slots", 1, 64),
            chunk=gpus.number("chunk", 0, 60) if shared else 0.0,
        ),
        price=price.number("gpu_hour", 0, 1e6),
        currency=price.word("currency"),
        target=Target(target.number("image_p95", 0, 1e6), target.number("video_p95", 0, 1e6)),
    )
    if question.fleet.video_slots < question.fleet.video_jobs:
        raise ProfileError(f"{path}: video.slots must be at least video.jobs")
    for table in (day, image, video, gpus, price, target, file):
        table.end()
    return question


def _work(table: "_Table") -> Work:
    names = {"median": 0.001, "spread": 0.0, "least": 0.001, "most": 0.001}
    return Work(**{name: table.number(name, least, 1e5) for name, least in names.items()})


def _peak(day: "_Table") -> tuple[int, int]:
    first, after = day.numbers("peak", 2)
    if not (0 <= first < after <= 24 and first == int(first) and after == int(after)):
        raise day.wrong("peak", "the first hour and the one after the last, of 0 to 24")
    return int(first), int(after)


class _Table:
    """A table of the file, whose fields are taken one by one."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self._name, self.values = name, values
        self._taken: set[str] = set()

    def wrong(self, name: str, needs: str) -> ProfileError:
        return ProfileError(f"{self._name}: {name} must be {needs}")

    def _take(self, name: str, needs: str) -> Any:
        self._taken.add(name)
        if name not in self.values:
            raise self.wrong(name, f"given: {needs}")
        return self.values[name]

    def table(self, name: str) -> "_Table":
        values = self._take(name, "a table")
        if not isinstance(values, dict):
            raise self.wrong(name, "a table")
        return _Table(f"{self._name}, [{name}]", values)

    def number(self, name: str, least: float, most: float) -> float:
        needs = f"a number from {least:g} to {most:g}"
        value = self._take(name, needs)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise self.wrong(name, needs)
        return float(value)

    def whole(self, name: str, least: int, most: int) -> int:
        value = self.number(name, least, most)
        if value != int(value):
            raise self.wrong(name, "a whole number")
        return int(value)

    def numbers(self, name: str, count: int) -> tuple[float, ...]:
        needs = f"{count} numbers, 0 or more, not all 0"
        found = self._take(name, needs)
        good = isinstance(found, list) and len(found) == count and any(found)
        if not good or not all(type(one) in (int, float) and 0 <= one < 1e9 for one in found):
            raise self.wrong(name, needs)
        return tuple(float(one) for one in found)

    def by_hour(self, name: str) -> tuple[int, ...]:
        needs = "a whole number of GPUs from 1 to 100000, or 24 of them, by hour UTC"
        found = self._take(name, needs)
        found = found if isinstance(found, list) else [found] * 24
        if len(found) != 24 or not all(type(one) is int and 1 <= one <= 100_000 for one in found):
            raise self.wrong(name, needs)
        return tuple(found)

    def word(self, name: str) -> str:
        found = self._take(name, "a word")
        if not isinstance(found, str) or not found.isprintable() or not 0 < len(found) <= 16:
            raise self.wrong(name, "a word")
        return found

    def end(self) -> None:
        if unknown := sorted(set(self.values) - self._taken):
            raise ProfileError(f"{self._name}: {unknown[0]} is not known")
