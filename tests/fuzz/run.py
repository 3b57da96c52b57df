"""``./dev fuzz [minutes]``: hostile media, our parsers and the API in turn; a table, and 1 if anything was found.

Each part runs in a process of its own, twice, so that a crash ends that process alone and its memory can be watched
from outside: the resident size after a fifth of its time, after half of it and at the end. What is loaded, cached once
or collected as a corpus comes in the first half; a leak of so much per execution goes on in the second, which alone is
judged.
"""

import json
import re
import secrets
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.tally import Tally

PARSERS = ("container", "upload", "boundary", "options", "token", "address")
ROUNDS = 2
#: Growth in the second half beyond this is a leak: a corpus that libFuzzer collects and allocators' slack stay below.
GROWTH_MB = 50.0


@dataclass(slots=True)
class Row:
    """One part of a round. Sizes in MB."""

    name: str
    seed: int
    executions: int = 0
    crashes: list[str] = field(default_factory=list)
    start: float = 0.0
    half: float = 0.0
    end: float = 0.0

    @property
    def bad(self) -> bool:
        return bool(self.crashes) or self.executions == 0 or self.end - self.half > GROWTH_MB


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    third = minutes * 60 / 3 / ROUNDS
    parts = [("media", third), *((f"parser {name}", third / len(PARSERS)) for name in PARSERS), ("api", third)]
    rows = [_run(name, seconds, secrets.randbelow(2**31)) for _ in range(ROUNDS) for name, seconds in parts]
    print("part              seed        executions  crashes  RSS at 1/5  at 1/2  at the end")
    for row in rows:
        print(
            f"{row.name:16s}  {row.seed:10d}  {row.executions:10d}  {len(row.crashes):7d}"
            f"  {row.start:7.0f} MB {row.half:4.0f} MB {row.end:8.0f} MB{'  <-' if row.bad else ''}"
        )
    for row in rows:
        for crash in row.crashes:
            print(f"\n{row.name}, seed {row.seed}: {crash}")
    return int(any(row.bad for row in rows))


def _run(name: str, seconds: float, seed: int) -> Row:
    row, whole = Row(name, seed), max(2, round(seconds))
    kind, _, target = name.partition(" ")
    if kind == "parser":
        command = [sys.executable, "-m", "tests.fuzz.parsers", target, str(whole), str(seed)]
    else:
        command = [sys.executable, "-m", "tests.fuzz.run", "--part", kind, str(whole), str(seed)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    sizes = _watch(process, row)
    said = "".join(sizes[1])
    row.start, row.half, row.end = stages(sizes[0])
    if kind == "parser":
        found = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
        row.executions = int(found.group(1)) if found else 0
    else:
        for line in said.splitlines():
            if line.startswith('{"done"'):
                told = json.loads(line)
                row.executions, row.crashes = told["done"], [f"{a}\n{b}" for a, b in told["failures"].items()]
    if process.returncode:
        row.crashes.append(f"ended with {process.returncode}\n{said[-2000:]}")
    return row


def _watch(process: "subprocess.Popen[str]", row: Row) -> tuple[list[float], list[str]]:
    """Resident sizes, twice a second, and what the process said."""
    import threading

    assert process.stdout is not None
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.extend(process.stdout or ()))
    reader.start()
    sizes: list[float] = []
    status = Path(f"/proc/{process.pid}/statm")
    while process.poll() is None:
        if status.exists():
            sizes.append(int(status.read_text().split()[1]) * 4096 / 1e6)
        time.sleep(0.5)
    reader.join()
    return sizes, said


def stages(sizes: list[float]) -> tuple[float, float, float]:
    """The size after a fifth, after half and at the end, each the median of some moments."""
    early, half = max(1, len(sizes) // 5), max(1, len(sizes) // 2)
    moments = (sizes[early : early + 4], sizes[half : half + 4], sizes[-6:-1])
    early_size, half_size, end_size = (statistics.median(few or [0.0]) for few in moments)
    return early_size, half_size, end_size


def part(kind: str, seconds: float, seed: int) -> None:
    """One part in this process; the last line that it prints is its result."""
    budget = Tally(seconds=seconds)
    if kind == "media":
        from tests.fuzz.media import media

        media(budget, seed)
    else:
        from tests.fuzz.api import api

        api(budget, seed)
    print(json.dumps({"done": budget.done, "failures": budget.failures}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        part(sys.argv[2], float(sys.argv[3]), int(sys.argv[4]))
    else:
        sys.exit(main())
