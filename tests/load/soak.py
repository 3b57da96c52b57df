"""The soak: a service at nine tenths of what it can do, for half an hour, held against what `nanoswap plan` says of it.

``./dev run python -m tests.load.soak [MINUTES] [SHARE]``. First people who come again at once find out how many a
second this machine can serve with the service, the crowd and the mix of this very test; then come SHARE (0.9) of that.
What people waited is held against a plan of the same arrivals with the same work, memory against itself, quoted waits
against real ones. Ends with 1 where a bound is missed.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from nanoswap.queue.redis_room import RedisRoom
from nanoswap.queue.room import Policy
from nanoswap.queue.simulation import IMAGE, VIDEO, Arrival, Fleet, simulate
from nanoswap.queue.ticket import Kind
from nanoswap.queue.workload import read_log
from tests.load.target import Target, held, target

CLIPS, SCALE, FRAMES = 0.08, 3.0, 192
#: People who are away most of the time, so that together they come as a Poisson process; and people who never are.
USERS, CLOSED = 400, 26
SATURATED_SECONDS = 120.0
#: As the service is started here: one replica for each kind, and a core for each, so that no clip stands still.
FLEET = Fleet(image=(1,) * 24, video=(1,) * 24, shared=False, image_slots=1, video_jobs=1, video_slots=2)
KIND = {"image": IMAGE, "video": VIDEO}


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the answer. ``bound``: what was promised, in words."""

    name: str
    value: str
    bound: str
    holds: bool


def send(
    struck: Target, folder: Path, *, users: int, rate: float, seconds: float
) -> tuple[list[dict[str, Any]], list[int]]:
    """Journeys in the order of their beginning, and the memory of the service every ten seconds."""
    tokens, journeys = folder / "tokens", folder / "journeys"
    people = int(min(rate, 4.0) * seconds * 1.5) + USERS
    tokens.write_text("\n".join(struck.auth.token() for _ in range(people)))
    journeys.unlink(missing_ok=True)
    environment = os.environ | {
        "NANOSWAP_TOKENS": str(tokens),
        "NANOSWAP_JOURNEYS": str(journeys),
        "NANOSWAP_RATE": str(rate),
        "NANOSWAP_CLIPS": str(CLIPS),
        "NANOSWAP_SCALE": str(SCALE),
        "NANOSWAP_FRAMES": str(FRAMES),
    }
    file = Path(__file__).with_name("locustfile.py")
    words = ["-f", str(file), "--headless", "--host", struck.url, "-u", str(users), "-r", str(users)]
    words += ["-t", f"{round(seconds)}s", "--stop-timeout", "300", "--only-summary", "--exit-code-on-error", "0"]
    memory = []
    with subprocess.Popen([sys.executable, "-m", "locust", *words], env=environment) as crowd:
        while crowd.poll() is None:
            memory.append(held(struck.root))
            time.sleep(10.0)
    found = [json.loads(line) for line in journeys.read_text().splitlines()]
    return sorted(found, key=lambda one: one["at"]), memory


def capacity(struck: Target, folder: Path) -> float:
    """People a second whom the service serves with a line that is never empty."""
    journeys, _ = send(struck, folder, users=CLOSED, rate=1000.0, seconds=SATURATED_SECONDS)
    wrong = [one["problem"] for one in journeys if one["problem"]]
    assert not wrong, wrong[:3]
    # The first seconds warm up.
    begin, end = journeys[0]["at"] + 20, journeys[0]["at"] + SATURATED_SECONDS
    ended = [one["at"] + one["total"] for one in journeys]
    return sum(begin < at <= end for at in ended) / (end - begin)


def planned(journeys: Sequence[dict[str, Any]], folder: Path) -> dict[str, float]:
    """Kind -> seconds at p95 beside the work itself, by the plan's simulation of the same arrivals."""
    log = folder / "arrivals.csv"
    rows = [f"{one['at']:.3f},{one['kind']},{one['gpu_seconds']:.3f}" for one in journeys if "gpu_seconds" in one]
    log.write_text("\n".join(["at,kind,gpu_seconds", *rows]) + "\n")
    arrivals: list[Arrival] = read_log(log)
    waits = simulate(arrivals, Policy(), FLEET)
    waits.settle()
    found = {}
    for kind, group in KIND.items():
        quantile = waits.quantiles(group, list(range(24)), [0.95])
        assert quantile is not None, kind
        found[kind] = quantile[0]
    return found


def p95(values: Sequence[float]) -> float:
    """The smallest value that nineteen of twenty don't exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.95))]


async def tallied(struck: Target) -> tuple[int, int]:
    """Quoted waits that held, and all of which it is known: what the service's own metrics say."""
    room = RedisRoom(struck.redis.url, Policy())
    sums = [await room.tally(kind) for kind in Kind]
    await room.close()
    return sum(one.covered for one in sums), sum(one.quoted for one in sums)


def covered(name: str, held: int, quoted: int) -> Figure:
    """How often the range that was told held."""
    share = held / max(1, quoted)
    return Figure(name, f"{share:.1%} of {quoted} who were told to wait", "85-95 %", 0.85 <= share <= 0.95)


def figures(journeys: Sequence[dict[str, Any]], memory: Sequence[int], plan: dict[str, float]) -> list[Figure]:
    """What is reported."""
    wrong = [one["problem"] for one in journeys if one["problem"] or "gpu_seconds" not in one]
    found = [Figure("failed", f"{len(wrong)} of {len(journeys)} {sorted(set(wrong))}", "none", not wrong)]
    for kind, seconds in plan.items():
        real = p95([one["total"] - one["gpu_seconds"] for one in journeys if one["kind"] == kind and "total" in one])
        text = f"{real:.2f} s, planned {seconds:.2f} s ({real / seconds - 1:+.0%})"
        found.append(Figure(f"{kind}, p95 of all but the work", text, "within 25 %", abs(real / seconds - 1) <= 0.25))
    quoted = [one["wait"] <= one["quoted"] for one in journeys if "quoted" in one and "wait" in one]
    found.append(covered("waits within the quoted p90", sum(quoted), len(quoted)))
    third = len(memory) // 3
    first, last = fmean(memory[third : 2 * third]), fmean(memory[2 * third :])
    text = f"{first / 2**20:.0f} MiB, then {last / 2**20:.0f} MiB"
    found.append(Figure("memory in the second and the last third", text, "at most 2 % more", last <= 1.02 * first))
    return found


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    share = float(sys.argv[2]) if len(sys.argv) > 2 else 0.9
    with tempfile.TemporaryDirectory() as name, target(NANOSWAP_GPU_LOCK="") as struck:
        most = capacity(struck, Path(name))
    print(f"capacity: {most:.3f} people a second; {share:.0%} of it for {minutes:g} minutes", flush=True)
    # A service of its own: what that crowd waited says nothing to this one.
    with tempfile.TemporaryDirectory() as name, target(NANOSWAP_GPU_LOCK="") as struck:
        folder = Path(name)
        journeys, memory = send(struck, folder, users=USERS, rate=most * share, seconds=60 * minutes)
        found = figures(journeys, memory, planned(journeys, folder))
        found.append(covered("the same by the service's metrics", *asyncio.run(tallied(struck))))
    busy = sum(one.get("gpu_seconds", 0.0) for one in journeys) / (journeys[-1]["at"] - journeys[0]["at"])
    print(f"busy: {busy:.0%} of the time somebody's work was going on")
    for one in found:
        print(f"{'holds' if one.holds else 'MISSED':<7} {one.name}: {one.value} ({one.bound})")
    return 0 if all(one.holds for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
