"""The flagship's networks of full size on a GPU, with random weights: how long a picture takes, how much of the device
that is, and against diffusers' own pipeline.

Needs torch, diffusers with what it asks for, and numpy: ``python -m tests.bench.gpu_flagship`` where the package can be
imported. What is timed is the code that serves: `Denoiser`, `Autoencoder`, `StepBatcher`. A picture is bytes of a crop
in and bytes of a crop out: the face's tokens by the resampler, the autoencoder there, all steps of the schedule, the
autoencoder back. (The service's recipes leave some steps out by their strength; here none is left out.) Where OpenCV
and insightface can be imported, swaps by the service's own engine are measured as well, with cutting out and pasting
back. Nowhere in it are detection, the embedding of the source and the picture's own format: a target that is met here
is met by that part alone.

The ceiling is a square matrix product in bfloat16 in the same run. FLOPs are counted by torch on our own calls with
shapes alone. A compiled network takes long for each new shape, so a run can be cut: ``--sizes 512 --compile on``, then
``--sizes 1024 --batches 1 --compile on --no-swaps``, then ``--compile off``; and what would begin after ``--limit``
seconds is left out, and said to be.

``--device meta`` only counts weights against the published files, and FLOPs. ``--tiny`` runs all of it with tiny
networks on the processor, compiled by a backend that compiles nothing; its figures mean nothing.

Run on one H200: docs/performance.md has the figures, and says what was not run.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import diffusers
import numpy as np
import torch
from torch import _dynamo as dynamo

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.denoiser import Denoiser, Denoising
from nanoswap.pipelines.diffusion_files import quiet
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.step_batch import StepBatcher
from tests.bench.flagship_ours import RUNTIME, Lane, Ours, engine, flop, noise
from tests.bench.flagship_parts import DTYPE, FULL, PUBLISHED, TINY, Plan, Rival, build
from tests.bench.gpu_swap import MATRIX, ceiling, memory

SECONDS = 1.5  # of pictures per line, at least PICTURES of them
PICTURES = 3
SERVED = 8.0  # seconds in which people ask for swaps


class Bench:
    """One run. results: seconds of a picture alone, and swaps a second, by what they are of."""

    def __init__(self, plan: Plan, device: str, sizes: Sequence[int], limit: float) -> None:
        self._plan, self._device, self._limit = plan, device, limit
        self._started = time.monotonic()
        self.tiny = device != "cuda"
        self._compiler = "eager" if self.tiny else "inductor"
        self._flop = flop(plan, sizes)
        self._peak = ceiling(device, DTYPE, 64 if self.tiny else MATRIX)
        self._ours = Ours(plan, device, self._compiler)
        self.alone: dict[Lane, float] = {}
        self.rate: dict[Lane, float] = {}
        for size, each in self._flop.items():
            parts = f"step {each.step / 1e12:.3f}, encode {each.encode / 1e12:.3f}, decode {each.decode / 1e12:.3f}"
            print(f"{size} px, TFLOP a row: {parts}")
        print(f"bfloat16: ceiling {self._peak / 1e12:.2f} TFLOP/s, a matrix product")

    def run(self, lanes: Sequence[Lane], batches: Sequence[int], *, swaps: bool, rival: bool) -> None:
        """What the targets ask for comes first."""
        print(
            f"{'':<42}{'batch':>6}{'ms a step':>10}{'share':>8}{'ms in all':>11}{'ms a picture':>13}{'share':>8}"
            f"{'reserved MiB':>14}{'first s':>9}"
        )
        for compiled in (False, True):
            mine = [lane for lane in lanes if lane.compiled == compiled]
            for lane in mine:
                self.measure(lane, batches[0])
            if swaps and mine and not mine[0].guided:
                self.swaps(mine[0])
            for lane, batch in itertools.product(mine, batches[1:]):
                self.measure(lane, batch)
        if rival:
            self.rival(lanes)

    def late(self, what: object) -> bool:
        late = time.monotonic() - self._started > self._limit
        if late:
            print(f"{what}: not run, the time is up", flush=True)
        return late

    def _pictures(self, denoiser: Denoiser, batch: int) -> tuple[list[float], float]:
        """Seconds of each step, and of the whole."""
        started = time.perf_counter()
        jobs = [self._ours.begin(denoiser, seed) for seed in range(batch)]
        self._wait()
        steps = []
        while not jobs[0].done:
            before = time.perf_counter()
            denoiser.step(jobs)
            steps.append(time.perf_counter() - before)
        for job in jobs:
            self._ours.autoencoder.decode(job.latents)
        whole = time.perf_counter() - started
        if not all(bool(job.latents.isfinite().all()) for job in jobs):
            raise RuntimeError("what the networks made isn't finite, and times of that say nothing")
        return steps, whole

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()

    def measure(self, lane: Lane, batch: int) -> None:
        if self.late(f"{lane}, batch {batch}"):
            return
        if self._device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        denoiser, flop = self._ours.denoiser(lane), self._flop[lane.size]
        started = time.perf_counter()
        # A step is enough to have everything compiled.
        jobs = [self._ours.begin(denoiser, seed) for seed in range(batch)]
        denoiser.step(jobs)
        self._ours.autoencoder.decode(jobs[0].latents)
        first = time.perf_counter() - started
        steps: list[float] = []
        wholes: list[float] = []
        while len(wholes) < (1 if self.tiny else PICTURES) or (sum(wholes) < SECONDS and not self.tiny):
            each, whole = self._pictures(denoiser, batch)
            steps += each
            wholes.append(whole)
        step, whole = statistics.median(steps), statistics.median(wholes)
        of_step = batch * (2 if lane.guided else 1) * flop.step / step / self._peak
        of_whole = batch * flop.picture(lane.recipe) / whole / self._peak
        print(
            f"{lane!s:<42}{batch:>6}{step * 1e3:>10.2f}{of_step:>8.1%}{whole * 1e3:>11.1f}{whole / batch * 1e3:>13.1f}"
            f"{of_whole:>8.1%}{memory(self._device):>14}{first:>9.1f}",
            flush=True,
        )
        if batch == 1:
            self.alone[lane] = whole

    def swaps(self, lane: Lane) -> None:
        """People who ask for one swap after the other, as many as are admitted, and share steps."""
        if self.late(f"swaps a second, {lane}"):
            return
        denoiser = self._ours.denoiser(lane)
        for rows in denoiser.warm_rows(RUNTIME.step_batch):
            denoiser.step([self._ours.begin(denoiser, seed) for seed in range(rows)])
        batches: list[int] = []

        def step(jobs: Sequence[Denoising]) -> None:
            batches.append(len(jobs))
            denoiser.step(jobs)

        def finish(job: Denoising) -> Rgb:
            made = self._ours.autoencoder.decode(job.latents)
            job.wipe()
            return made

        batcher = StepBatcher(step, finish, most=RUNTIME.step_batch, admitted=RUNTIME.admitted)

        def swap(seed: int) -> None:
            batcher.run([lambda: self._ours.begin(denoiser, seed)], CancelToken())

        self.rate[lane] = self._served(swap, f"batcher, {lane}")
        print(f"{'':<6}{statistics.fmean(batches):.2f} pictures in a step on average", flush=True)
        try:
            whole = engine(self._ours, denoiser)
        except ImportError as missing:
            print(f"by the engine: not run, {missing}", flush=True)
            return
        self.rate[lane] = self._served(whole, f"engine with cutting out and pasting, {lane}")

    def _served(self, swap: Callable[[int], None], name: str) -> float:
        started = time.perf_counter()
        ends = started + (1.0 if self.tiny else SERVED)
        seeds = itertools.count()

        def person(_: int) -> list[float]:
            waited = []
            while (came := time.perf_counter()) < ends:
                swap(next(seeds))
                waited.append(time.perf_counter() - came)
            return waited

        with ThreadPoolExecutor(RUNTIME.admitted) as pool:
            waited = [each for mine in pool.map(person, range(RUNTIME.admitted)) for each in mine]
        # With the beginning and the end, where steps aren't full.
        rate = len(waited) / (time.perf_counter() - started)
        p50, p95 = np.percentile(waited, (50, 95)) * 1e3
        print(f"{name}: {rate:.2f} swaps/s, p50 {p50:.0f} ms, p95 {p95:.0f} ms, {len(waited)} swaps", flush=True)
        return rate

    def rival(self, lanes: Sequence[Lane]) -> None:
        """diffusers' pipeline in the same lanes, eager ones first; a batch of one."""
        lanes = [lane for lane in lanes if lane in self.alone and not self.late(f"rival, {lane}")]
        if not lanes:
            return
        rival = Rival(self._plan, self._device)
        compiled = False
        for lane in lanes:
            if lane.compiled and not compiled:
                rival.compile(self._compiler)
                compiled = True
            if self.late(f"rival, {lane}"):
                continue
            call = rival.of(lane.recipe, *noise(lane.size))
            self._timed(call)
            theirs = statistics.median(self._timed(call) for _ in range(1 if self.tiny else PICTURES))
            ours = self.alone[lane]
            print(
                f"diffusers' pipeline, {lane}: {theirs * 1e3:.1f} ms a picture, ours {ours * 1e3:.1f} ms:"
                f" {theirs / ours:.2f} x (above 1 ours is faster)",
                flush=True,
            )

    def _timed(self, call: Callable[[], object]) -> float:
        started = time.perf_counter()
        call()
        self._wait()
        return time.perf_counter() - started


def targets(bench: Bench, small: int, large: int, card: str) -> None:
    """Those of the project. Ours is the faster of eager and compiled."""

    def line(made: dict[Lane, float], size: int, guided: bool, what: str, met: Callable[[float], bool]) -> None:
        name = f"{size} px, {steps(size, guided, bench.tiny)} steps{' with guidance' if guided else ''}, {what}"
        mine = [lane for lane in made if (lane.size, lane.guided) == (size, guided)]
        if not mine:
            print(f"{name}: not run")
            return
        best = (max if made is bench.rate else min)(mine, key=made.__getitem__)
        how = "compiled" if best.compiled else "eager"
        print(f"{name}: {'met' if met(made[best]) else 'MISSED'}, {made[best]:.4f} {how}")

    print(f"\nTargets, which are for one H200, on {card}; the networks' part, without detection and pictures' formats")
    line(bench.alone, small, False, "within 0.1 s", lambda made: made <= 0.1)
    line(bench.rate, small, False, "20 swaps a second", lambda made: made >= 20)
    line(bench.alone, large, False, "within 0.25 s", lambda made: made <= 0.25)
    line(bench.alone, large, True, "within 1.6 s", lambda made: made <= 1.6)


def steps(size: int, guided: bool, tiny: bool) -> int:
    """Those of the targets."""
    if guided:
        return 6 if tiny else 30
    return 8 if size >= 1024 else 4


def weights() -> bool:
    """Whether the networks at full size have as many weights as the published ones."""
    nets = build(FULL, "meta")
    unet, net, vae = (
        sum(each.numel() for each in one.parameters()) for one in (nets.unet, nets.identity_net, nets.vae)
    )
    made = {"UNet": unet - nets.adapter, "IdentityNet": net, "VAE": vae, "adapter": nets.adapter}
    for name, number in made.items():
        said = "as published" if number == PUBLISHED[name] else f"PUBLISHED ARE {PUBLISHED[name]:,}"
        print(f"{name}: {number:,} weights, {said}")
    return made == PUBLISHED


def main() -> int:
    parser = argparse.ArgumentParser(description="the flagship's networks on a GPU")
    parser.add_argument("--device", choices=("cuda", "meta"), default="cuda", help="meta: count, and measure nothing")
    parser.add_argument("--tiny", action="store_true", help="tiny networks on the processor; figures mean nothing")
    parser.add_argument("--sizes", type=int, nargs="+", help="px, ascending multiples of 64; default 512 768 1024")
    parser.add_argument("--batches", type=int, nargs="+", help="ascending; default 1 2 4 8")
    parser.add_argument("--compile", choices=("off", "on", "both"), default="both")
    parser.add_argument("--guided", choices=("off", "on", "both"), default="both")
    parser.add_argument("--no-swaps", action="store_true", help="leave out the swaps a second, at the least size")
    parser.add_argument("--rival", action="store_true", help="diffusers' own pipeline as well, a batch of one")
    parser.add_argument("--limit", type=float, default=420, help="seconds after which nothing more is begun")
    said = parser.parse_args()
    quiet()
    warnings.simplefilter("ignore")
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}")
    sizes = said.sizes or ([64] if said.tiny else [512, 768, 1024])
    if said.device == "meta":
        right = weights()
        for size, each in flop(FULL, sizes).items():
            print(f"{size} px: {each}")
        return 0 if right else 1
    if not said.tiny and not torch.cuda.is_available():
        print("no CUDA device: not run")
        return 0
    if said.tiny:
        card = "a processor with tiny networks: figures mean nothing"
        print(card)
        torch.set_num_threads(1)
    else:
        card = torch.cuda.get_device_name()
        print(f"{card}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    # A graph for each size and number of rows, of ours and of the rival's.
    settings: Any = dynamo.config
    settings.recompile_limit = 64
    modes = {"off": (False,), "on": (True,), "both": (False, True)}
    lanes = [
        Lane(size, steps(size, guided, said.tiny), guided, compiled)
        for compiled in modes[said.compile]
        for guided in modes[said.guided]
        for size in sizes
    ]
    bench = Bench(TINY if said.tiny else FULL, "cpu" if said.tiny else "cuda", sizes, said.limit)
    batches = said.batches or ([1, 2] if said.tiny else [1, 2, 4, 8])
    try:
        bench.run(lanes, batches, swaps=not said.no_swaps, rival=said.rival)
    finally:
        small, large = (sizes[0], sizes[-1]) if said.tiny else (512, 1024)
        targets(bench, small, large, card)
    return 0


if __name__ == "__main__":
    sys.exit(main())
