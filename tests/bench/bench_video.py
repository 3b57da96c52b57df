"""How much of the machine a video swap takes: against the least that is possible, and against frames in files.

CPU time is of the process, user and system, all threads; every figure is the least of some interleaved rounds, OpenCV
on one thread. The clips and the engine that does nothing are in `footage.py`, the rivals in `rivals.py`. Throughput
is compared twice: by the wall, both sides free to use two cores; and by CPU time, both held to one core, where what
the stages cost besides can't hide behind the encoder. Times realtime on two free cores is reckoned as the lesser of
what two cores give for the CPU time of a frame and what the slowest stage, which is one thread, allows; the
wall-clock figure beside it is of this run, on whatever else the machine was doing. What is not a comparison runs with
the allocator set as the service sets it.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import cv2

from nanoswap.pipelines.engine import Engine
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.pipelines.process import prepare_process
from nanoswap.serve.volatility import FREED_MEMORY
from tests.bench import rivals
from tests.bench.footage import FPS, FULL_HD, HD, Idle, Size, clip, opened, swapped, two_seconds

ROUNDS = 2
SECONDS = 10
VERYFAST, ULTRAFAST = Encoder(preset="veryfast"), Encoder(preset="ultrafast")
STAGES = {"decode": "decode", "track": "track", "paint": "paint", "MainThread": "encode"}


def least(
    *jobs: Callable[[], object], rounds: int = ROUNDS, clock: Callable[[], float] = time.process_time
) -> list[float]:
    """Seconds of each by the clock, the least of some rounds in turn."""
    best = [float("inf")] * len(jobs)
    for _ in range(rounds):
        for index, job in enumerate(jobs):
            started = clock()
            job()
            best[index] = min(best[index], clock() - started)
    return best


def shares() -> None:
    print(
        f"An engine that does nothing, {SECONDS} s. Frames a second by the wall, each side with decoding in a thread of"
    )
    print("of its own; and CPU ms a frame, each side held to one core. A rate is the clip's:\n")
    print(f"{'':<28}{'Mbit/s':>7}{'decode+encode':>15}{'whole path':>12}{'share':>7}{'CPU':>7}{'CPU':>7}{'share':>7}")
    for size, hand, encoder in product((HD, FULL_HD), (False, True), (VERYFAST, ULTRAFAST)):
        data = clip(size, SECONDS, hand)
        frames = SECONDS * FPS
        bare, ours = (frames / best for best in least(*pair(size, data, encoder, ahead=True), clock=time.perf_counter))
        with one_core():
            least_cpu, cpu = (1000 / frames * best for best in least(*pair(size, data, encoder, ahead=False)))
        held = "in hand" if hand else "on a stand"
        name = f"{size.name} {held:<11}{encoder.preset}"
        print(
            f"{name:<28}{len(data) * 8e-6 / SECONDS:>7.1f}{bare:>15.0f}{ours:>12.0f}{ours / bare:>7.0%}"
            f"{least_cpu:>7.1f}{cpu:>7.1f}{least_cpu / cpu:>7.0%}",
            flush=True,
        )


@contextmanager
def one_core() -> Iterator[None]:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def pair(size: Size, data: bytes, encoder: Encoder, *, ahead: bool) -> tuple[Callable[[], int], Callable[[], int]]:
    return lambda: rivals.ceiling(data, encoder, ahead=ahead), lambda: swapped(Idle(size), data, encoder)


def against_files() -> None:
    data, engine = two_seconds(HD), MeshEngine()

    def files(kind: str) -> int:
        with tempfile.TemporaryDirectory() as folder:
            return rivals.through_files(data, engine, VERYFAST, Path(folder), kind)

    ways = lambda: swapped(engine, data, VERYFAST), lambda: files("png"), lambda: files("jpg")
    ours, png, jpg = least(*ways, rounds=1)
    scale = 1000 / len_frames(data)
    print("\nFrames in files (the older way of FaceFusion), mesh engine, 720p veryfast, 2 s, CPU ms a frame:\n")
    print(f"{'':<18}{'CPU ms':>8}{'ratio':>8}")
    print(f"{'ours':<18}{ours * scale:>8.1f}{1:>7.1f}x")
    for name, took in (("as PNG", png), ("as JPEG", jpg)):
        print(f"{name:<18}{took * scale:>8.1f}{took / ours:>7.1f}x", flush=True)


def len_frames(data: bytes) -> int:
    job = opened(Idle(HD), data, ULTRAFAST)
    job.close()
    return job.frames


class Clocks:
    """CPU time of the stages, each of which is a thread, read whenever ten frames are done."""

    def __init__(self) -> None:
        self._marks: list[tuple[int, dict[str, float]]] = []

    def __call__(self, stage: str, done: int, total: int) -> None:
        if stage != "swap":
            return
        clocks = {
            STAGES[thread.name]: time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
            for thread in threading.enumerate()
            if thread.name in STAGES and thread.ident is not None
        }
        if len(clocks) == len(STAGES):  # the first stages end before the last frame is out
            self._marks.append((done, clocks))

    def per_frame(self) -> dict[str, float]:
        """CPU ms of each stage, between the first mark and the last."""
        (since, before), (until, after) = self._marks[1], self._marks[-1]
        return {stage: 1000 * (after[stage] - before[stage]) / (until - since) for stage in STAGES.values()}


def end_to_end(engine: Engine) -> None:
    print(f"\nMesh engine, {SECONDS} s, CPU ms a frame by stage, and times realtime at {FPS} frames a second:\n")
    names = list(STAGES.values())
    print(f"{'':<18}" + "".join(f"{name:>8}" for name in names) + f"{'all':>8}{'two free cores':>16}{'this run':>10}")
    for size, encoder in ((HD, VERYFAST), (FULL_HD, ULTRAFAST)):
        stages, whole, wall = staged(engine, clip(size, SECONDS), encoder)
        pace = min(2000 / whole, 1000 / max(stages.values())) / FPS
        cells = "".join(f"{stages[name]:>8.1f}" for name in names)
        name = f"{size.name} {encoder.preset}"
        print(f"{name:<18}{cells}{whole:>8.1f}{pace:>15.2f}x{SECONDS / wall:>9.2f}x", flush=True)


def staged(engine: Engine, data: bytes, encoder: Encoder) -> tuple[dict[str, float], float, float]:
    """CPU ms of a frame by stage; and of the whole job, its opening included; and the job's seconds by the wall."""
    best: tuple[dict[str, float], float, float] | None = None
    for _ in range(2):
        clocks, cpu, wall = Clocks(), time.process_time(), time.perf_counter()
        job = opened(engine, data, encoder, clocks)
        for _part in job:
            pass
        job.close()
        took = (time.process_time() - cpu) * 1000 / job.frames
        if best is None or took < best[1]:
            best = clocks.per_frame(), took, time.perf_counter() - wall
    assert best is not None
    return best


def first_byte(engine: Engine) -> None:
    print("\nTo the first part that plays (a whole moof and mdat), from the call of open_swap, mesh engine, ms:\n")
    print(f"{'':<18}{'opened':>8}{'wall':>8}{'CPU':>8}")
    for size, encoder in ((HD, VERYFAST), (HD, ULTRAFAST), (FULL_HD, VERYFAST), (FULL_HD, ULTRAFAST)):
        tries = [until_plays(engine, clip(size, SECONDS), encoder) for _ in range(3)]
        ready, wall, cpu = min(tries, key=lambda took: took[1])
        name = f"{size.name} {encoder.preset}"
        print(f"{name:<18}{ready * 1000:>8.0f}{wall * 1000:>8.0f}{cpu * 1000:>8.0f}", flush=True)


def until_plays(engine: Engine, data: bytes, encoder: Encoder) -> tuple[float, float, float]:
    """Seconds until opened, and until it plays: by the wall, of the CPU."""
    cpu, wall = time.process_time(), time.perf_counter()
    job = opened(engine, data, encoder)
    ready = time.perf_counter() - wall
    got = b""
    for part in job:
        got += part
        if plays(got):
            break
    took = ready, time.perf_counter() - wall, time.process_time() - cpu
    job.close()
    return took


def plays(data: bytes) -> bool:
    """Is there a whole `moof` and a whole `mdat` behind it?"""
    at, kinds = 0, []
    while at + 8 <= len(data):
        at, kind = at + int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        if at <= len(data):
            kinds.append(kind)
    return b"moof" in kinds and b"mdat" in kinds[kinds.index(b"moof") :]


def main() -> None:
    cv2.setNumThreads(1)
    if sys.argv[1:] == ["service"]:
        prepare_process()
        engine = MeshEngine()
        end_to_end(engine)
        first_byte(engine)
        return
    shares()
    against_files()
    command = [sys.executable, "-m", "tests.bench.bench_video", "service"]
    subprocess.run(command, env=os.environ | FREED_MEMORY, check=True)


if __name__ == "__main__":
    main()
