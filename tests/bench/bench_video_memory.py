"""The memory of one video job: growth of the peak of resident memory over what the process had just before it.

Each job runs in a process of its own, which is given the clip and has it, the libraries and the engine in memory
before the growth is measured; so the clip's own bytes are in the base, not in the growth. Its allocator is set as
the service sets it. The result is counted and dropped part by part. Ten minutes are the packets of two seconds
again and again.
"""

import os
import resource
import subprocess
import sys
from dataclasses import dataclass

from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.pipelines.process import prepare_process
from nanoswap.serve.volatility import FREED_MEMORY
from tests.bench.footage import FULL_HD, HD, Idle, Size, clip, swapped

LIMIT = 220e6


@dataclass(frozen=True)
class Case:
    size: Size
    seconds: int
    preset: str
    engine: str

    @property
    def name(self) -> str:
        return f"{self.size.name} {self.preset}, {self.engine}, {self.seconds} s"


CASES = (
    Case(FULL_HD, 10, "veryfast", "mesh"),
    Case(FULL_HD, 10, "ultrafast", "mesh"),
    Case(HD, 10, "veryfast", "mesh"),
    Case(HD, 10, "ultrafast", "idle"),
    Case(HD, 600, "ultrafast", "idle"),
)


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def peak() -> int:
    """VmHWM, in bytes."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def measured(case: Case) -> None:
    """In the process of the job: reads the clip, prints base and growth."""
    data = sys.stdin.buffer.read()
    prepare_process()
    engine = MeshEngine() if case.engine == "mesh" else Idle(case.size)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = resident()
    swapped(engine, data, Encoder(preset=case.preset))
    print(before, peak() - before)


def run(case: Case) -> tuple[int, int, int]:
    """Bytes of the clip, of the base, of the growth."""
    data = clip(case.size, case.seconds)
    command = [sys.executable, "-m", "tests.bench.bench_video_memory", str(CASES.index(case))]
    child = subprocess.run(command, input=data, stdout=subprocess.PIPE, env=os.environ | FREED_MEMORY, check=True)
    base, growth = map(int, child.stdout.split())
    return len(data), base, growth


def main() -> None:
    print(f"MB{'':<38}{'clip':>7}{'base':>7}{'growth':>8}")
    growth, peaks = {}, {}
    for case in CASES:
        size, base, growth[case] = run(case)
        peaks[case] = base - size + growth[case]
        print(f"{case.name:<40}{size / 1e6:>7.0f}{base / 1e6:>7.0f}{growth[case] / 1e6:>8.0f}", flush=True)
    worst = max(growth[case] for case in CASES if case.size is FULL_HD)
    print(f"\nworst of 1080p: {worst / 1e6:.0f} MB of {LIMIT / 1e6:.0f}")
    short, long = CASES[-2:]
    print(
        f"peak without the clip's own bytes, ten minutes over ten seconds: {peaks[long] / peaks[short]:.2f}; ", end=""
    )
    print(f"growth: {growth[long] / growth[short]:.2f}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measured(CASES[int(sys.argv[1])])
    else:
        main()
