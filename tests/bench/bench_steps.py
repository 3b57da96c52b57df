"""Batching by the step against one picture at a time and against batches that stay together: how long people wait.

Two parts. The first is a model and no measurement: a machine that does one call after the other, of the lengths that
the FLOPs of the real networks give, with thousands of people who come by a Poisson process. Who shares a step is said
by `choose`, which is what serves. The second part runs: the flagship's engine on a processor, with stand-ins of its
weights and pictures of 64 and 128 px, threads in the place of people, and each picture compared with what the other two
ways made of it. More than one level of difference is an error. Loads are parts of what one picture at a time can bear:
above 1 its line has no end, and how long people wait there says how long the run was.

A batch that stays together is put together anew as soon as the machine is free; or after up to 100 ms for company, as
servers of networks can be set. In the rivals' favour: their pictures leave one by one as they are decoded, and no
bound is set to how many they choose from (ours has `admitted`).
"""

import logging
import statistics
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.denoiser import Denoising
from nanoswap.pipelines.engine import Request, Rgb
from nanoswap.pipelines.engines import load_engine
from nanoswap.pipelines.manifest import Manifest
from nanoswap.pipelines.model_store import ModelStore
from nanoswap.pipelines.step_batch import StepBatcher
from nanoswap.pipelines.style import Style
from tests.bench.step_model import COMPILED, EAGER, PEOPLE, RATE, RUNTIME, SEED, Outcome, simulated
from tests.clips import portrait
from tests.stand_ins.write import write

ENGINES = ("instantid", "instantid-quality")
LOADS = (0.5, 0.9, 1.2, 1.5)
# Of the part that runs: people and loads of each engine.
REAL = {"instantid": (50, (0.7, 1.5)), "instantid-quality": (30, (1.5,))}
SMALL = 0.25  # of the picture's size: then the face is one for 64 px


class Static:
    """In the place of `StepBatcher`: whoever leads takes what waits of one size, up to `most`, to its end."""

    def __init__(
        self, step: Callable[[Sequence[Denoising]], None], finish: Callable[[Denoising], Rgb], most: int
    ) -> None:
        self._step, self._finish, self._most = step, finish, most
        self._changed = threading.Condition()
        self._waiting: list[Denoising] = []
        self._led = False

    def run(self, begins: Sequence[Callable[[], Denoising]], cancel: CancelToken) -> list[Rgb]:
        jobs = [begin() for begin in begins]
        with self._changed:
            self._waiting += jobs
        while batch := self._turn(jobs):
            try:
                while not batch[0].done:
                    self._step(batch)
            finally:
                with self._changed:
                    self._led = False
                    self._changed.notify_all()
        return [self._finish(job) for job in jobs]

    def _turn(self, jobs: Sequence[Denoising]) -> list[Denoising]:
        with self._changed:
            self._changed.wait_for(lambda: not self._led)
            if all(job.done for job in jobs):
                return []
            self._led = True
            batch = [job for job in self._waiting if job.bucket == self._waiting[0].bucket][: self._most]
            self._waiting = [job for job in self._waiting if job not in batch]
            return batch


def seconds(call: Callable[..., object], *arguments: Any) -> float:
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


class Real:
    """The engine, and the astronaut in two sizes, who gets the admiral's face by a seed of each one's own."""

    def __init__(self, models: Path, name: str) -> None:
        manifest = Manifest.read(models / "models.toml")
        self.engine: Any = load_engine(name, manifest, ModelStore(models, manifest), RUNTIME, Style())
        self.step = self.engine._nets.denoiser.step
        giver = portrait("hopper")
        self._source = self.engine.prepare(giver, self.engine.detect(giver)[0])
        large = portrait("astronaut")
        targets = [large, cv2.resize(large, None, fx=SMALL, fy=SMALL, interpolation=cv2.INTER_AREA)]
        self._pairs = [(rgb, self.engine.detect(rgb)[0]) for rgb in targets]

    def swap(self, number: int, which: int) -> np.ndarray:
        rgb, face = self._pairs[which]
        made = rgb.copy()
        self.engine.swap([(made, face)], self._source, Request(CancelToken(), number))
        return made

    def floor(self) -> str:
        """What a step costs by the size of the batch: the least of three, ms."""
        parts = []
        for rgb, face in self._pairs:
            taken = []
            for count in (1, 2, 4, 8):
                crop = self.engine._cut(rgb, face)
                jobs = [self.engine._begin(crop, face, self._source, seed) for seed in range(count)]
                taken.append(min(seconds(self.step, jobs) for _ in range(3)))
            parts.append(f"{len(crop.pixels)} px " + ", ".join(f"{one * 1000:.0f}" for one in taken))
        return "ms of a step of 1, 2, 4, 8: " + "; ".join(parts)

    def alone(self) -> float:
        """Seconds of one, with nobody else there; mean of both sizes, the median of each."""
        return statistics.fmean(
            statistics.median(seconds(self.swap, seed, which) for seed in range(5)) for which in (0, 1)
        )

    def run(self, steps: Any, comes: Sequence[float], which: Sequence[int]) -> tuple[Outcome, list[np.ndarray]]:
        """steps: takes a function that makes a step, and is put in the place of the engine's own."""
        batches: list[int] = []

        def counted(jobs: Sequence[Denoising]) -> None:
            batches.append(len(jobs))
            self.step(jobs)

        self.engine._steps = steps(counted, self.engine._finish)
        started = time.perf_counter() + 0.1

        def person(number: int) -> tuple[float, np.ndarray]:
            time.sleep(max(0.0, started + comes[number] - time.perf_counter()))
            made = self.swap(number, which[number])
            return time.perf_counter() - started - comes[number], made

        with ThreadPoolExecutor(len(comes)) as pool:
            done = list(pool.map(person, range(len(comes))))
        ends = max(come + waited for come, (waited, _) in zip(comes, done, strict=True))
        return Outcome([waited for waited, _ in done], ends - comes[0], batches), [made for _, made in done]


def served(real: Real, people: int, load: float) -> tuple[dict[str, Outcome], int]:
    """Outcomes, and the most that a picture is apart from what another way made of it, of 255 levels."""
    rng = np.random.default_rng(SEED)
    comes = rng.exponential(real.alone() / load, people).cumsum().tolist()
    which = rng.integers(0, 2, people).tolist()
    most, admitted = RUNTIME.step_batch, RUNTIME.admitted
    ways: dict[str, Any] = {
        "by the step": lambda *made: StepBatcher(*made, most=most, admitted=admitted),
        "one at a time": lambda *made: StepBatcher(*made, most=1, admitted=1),
        "batches that stay": lambda *made: Static(*made, most),
    }
    made = {way: real.run(steps, comes, which) for way, steps in ways.items()}
    first, *others = (pictures for _, pictures in made.values())
    apart = max(int(np.abs(a.astype(int) - b).max()) for other in others for a, b in zip(first, other, strict=True))
    if len({picture.tobytes() for picture in first}) < people:
        raise RuntimeError("two seeds gave one picture: that pictures are equal would prove nothing")
    return {way: outcome for way, (outcome, _) in made.items()}, apart


def table(title: str, outcomes: dict[str, Outcome]) -> None:
    """Ratios: ours over theirs for pictures a second, theirs over ours for the times. Above 1 ours is better."""
    columns = f"{'pictures/s':>11}{'p50 ms':>9}{'p95 ms':>10}{'in a step':>11}{'ours is better: rate, p50, p95':>34}"
    print(f"{title:<40}{columns}")
    ours: tuple[float, ...] = ()
    for way, outcome in outcomes.items():
        cuts = statistics.quantiles(outcome.waited, n=20)
        figures = len(outcome.waited) / outcome.whole, statistics.median(outcome.waited), cuts[18]
        ours = ours or figures
        ratios = ours[0] / figures[0], figures[1] / ours[1], figures[2] / ours[2]
        print(f"{way:<40}{figures[0]:>11.2f}{figures[1] * 1000:>9.0f}{figures[2] * 1000:>10.0f}", end="")
        print(f"{statistics.fmean(outcome.batches):>11.2f}", end="")
        print(f"{', '.join(f'{ratio:.2f} x' for ratio in ratios):>34}" if figures != ours else "", flush=True)


def main() -> int:
    logging.disable(logging.WARNING)
    disable_progress_bar()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    print(
        f"A model, no measurement: {RATE:.0f} TFLOP/s, {PEOPLE} people, up to {RUNTIME.step_batch} in a step. The floor"
    )
    print(f"of a step, which does not grow with it, is {COMPILED * 1000:.0f} ms where nothing else is said.")
    recipes = {name: entry.recipe for name, entry in Manifest.read().engines.items() if entry.recipe}
    for name in ENGINES:
        sizes = recipes[name].sizes
        for load in LOADS:
            table(f"{name}, load {load}", simulated(recipes[name], COMPILED, load, sizes))
        for size in sizes:
            table(f"{name}, load 0.9, {size} px only", simulated(recipes[name], COMPILED, 0.9, [size]))
        for floor in (0.0, EAGER):
            table(f"{name}, load 0.9, floor {floor * 1000:.0f} ms", simulated(recipes[name], floor, 0.9, sizes))
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        print(f"\nRun: stand-in networks, torch {torch.__version__}, one thread a call")
        for name, (people, loads) in REAL.items():
            real = Real(Path(folder), name)
            print(f"{name}, {real.floor()}")
            for load in loads:
                outcomes, apart = served(real, people, load)
                table(f"{name}, {people} people, load {load}", outcomes)
                print(f"pictures of the three ways differ by at most {apart} of 255")
                failed |= apart > 1
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
