"""The flagship's networks of full size on a GPU, with random weights: how long a picture takes, how much of the device
that is, and against diffusers' own pipeline.

Needs torch, diffusers with what it asks for, and numpy: ``python -m tests.bench.gpu_flagship`` where the package can be
imported. What is timed is the code that serves: `Denoiser`, `Autoencoder`, `StepBatcher`. A picture is bytes of a crop
in and bytes of a crop out: the face's tokens by the resampler, the autoencoder there, all steps of the schedule, the
autoencoder back. (The service's recipes leave some steps out by their strength; here none is left out.) Where OpenCV
can be imported, swaps by the service's own engine are measured as well, with cutting out and pasting back. Nowhere in
it are detection, the embedding of the source and the picture's own format, which run on a processor: a target that is
met here is met by the networks.

The ceiling is a square matrix product in bfloat16 in the same run. FLOPs are counted by torch on our own calls with
shapes alone. A compiled network takes long for each new shape, so a run can be cut: ``--sizes 512 --compile on``, then
``--sizes 1024 --batches 1 --compile on --no-swaps``, then ``--compile off``; and what would begin after ``--limit``
seconds is left out, and said to be.

``--device meta`` only counts weights against the published files, and FLOPs. ``--tiny`` runs all of it with tiny
networks on the processor, compiled by a backend that compiles nothing; its figures mean nothing.

Not run: on CUDA, nothing of this has been, because no GPU could be had. Counting and `--tiny` have.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import diffusers
import numpy as np
import torch
from torch import Tensor, nn
from torch import _dynamo as dynamo
from torch.utils.flop_counter import FlopCounterMode

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.denoiser import CELL, Denoiser, Denoising, Parts
from nanoswap.pipelines.diffusion_files import quiet
from nanoswap.pipelines.engine import Request, Rgb
from nanoswap.pipelines.latents import Autoencoder, to_tensor
from nanoswap.pipelines.recipe import Recipe
from nanoswap.pipelines.runtime import Runtime
from nanoswap.pipelines.step_batch import StepBatcher
from nanoswap.pipelines.style import Style
from tests.bench.flagship_parts import DTYPE, FULL, PUBLISHED, TAKES, TINY, Plan, Rival, build, prompts, scale
from tests.bench.gpu_swap import MATRIX, ceiling, memory

SECONDS = 1.5  # of pictures per line, at least PICTURES of them
PICTURES = 3
SERVED = 8.0  # seconds in which people ask for swaps
RUNTIME = Runtime()


@dataclass(frozen=True, slots=True)
class Lane:
    """A recipe at one size. compiled: by torch or not at all."""

    size: int
    guided: bool
    compiled: bool

    @property
    def recipe(self) -> Recipe:
        if self.guided:
            return Recipe(steps=30, sizes=(self.size,), spacing="leading", guidance=5.0)
        return Recipe(steps=8 if self.size >= 1024 else 4, sizes=(self.size,))

    def __str__(self) -> str:
        how = "guided" if self.guided else "unguided"
        return f"{self.size} px, {self.recipe.run} steps, {how}, {'compiled' if self.compiled else 'eager'}"


@dataclass(frozen=True, slots=True)
class Flop:
    """Floating-point operations of one picture's step, and of the autoencoder there and back; of torch's counter."""

    step: int
    encode: int
    decode: int

    def picture(self, recipe: Recipe) -> int:
        return self.encode + recipe.run * (2 if recipe.guided else 1) * self.step + self.decode


class Ours:
    """The service's parts, fed with noise. compiler: torch's backend for lanes that are compiled."""

    def __init__(self, plan: Plan, device: str, compiler: str = "") -> None:
        self._plan, self._device, self._compiler = plan, device, compiler
        self.nets = build(plan, device)
        (self.resampler,) = self.nets.unet.encoder_hid_proj.image_projection_layers
        # As `load_parts` leaves the UNet: tokens are made once per face.
        self.nets.unet.encoder_hid_proj = nn.Identity()
        self._first_layers = self.nets.identity_net.controlnet_cond_embedding
        self.autoencoder = Autoencoder(self.nets.vae)
        self._denoisers: dict[Lane, Denoiser] = {}

    def denoiser(self, lane: Lane) -> Denoiser:
        """All lanes share the networks. Those that were compiled once stay so: eager lanes come first."""
        if lane not in self._denoisers:
            self._denoisers[lane] = self._made(lane)
        return self._denoisers[lane]

    def _made(self, lane: Lane) -> Denoiser:
        recipe, nets = lane.recipe, self.nets
        nets.identity_net.controlnet_cond_embedding = self._first_layers
        scale(nets.unet, recipe)
        prompt, pooled = prompts(self._plan, 2 if recipe.guided else 1, self._device)
        parts = Parts(nets.unet, nets.identity_net, prompt, pooled)
        compiler = self._compiler if lane.compiled else None
        return Denoiser(parts, recipe, device=self._device, dtype=DTYPE, compiler=compiler)

    @torch.inference_mode()
    def tokens(self, seed: int, guided: bool) -> Tensor:
        """As `Identity` makes them, which needs OpenCV."""
        row = torch.randn(TAKES, generator=torch.Generator().manual_seed(seed))
        both = torch.stack([torch.zeros_like(row), row] if guided else [row])[:, None]
        made: Tensor = self.resampler(both.to(self._device, DTYPE))
        return made[:, None]

    def begin(self, denoiser: Denoiser, seed: int) -> Denoising:
        """A picture's work up to its first step."""
        recipe = denoiser.recipe
        crop, mask, points = noise(recipe.sizes[0])
        original = self.autoencoder.encode(crop)
        cells = to_tensor(mask[::CELL, ::CELL, None], self._device)
        hint = to_tensor(points, self._device)
        return denoiser.begin(original, cells, hint, [self.tokens(seed, recipe.guided)], seed)


@cache
def noise(size: int) -> tuple[Rgb, np.ndarray, Rgb]:
    """A crop, what of it is made anew (its middle), and in the place of the keypoint picture some points."""
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    mask = np.zeros((size, size), np.uint8)
    mask[size // 4 : size * 3 // 4, size // 4 : size * 3 // 4] = 255
    return crop, mask, np.where(rng.random((size, size, 3)) > 0.95, 255, 0).astype(np.uint8)


def flop(plan: Plan, sizes: Sequence[int]) -> dict[int, Flop]:
    ours = Ours(plan, "meta")
    return {size: count(ours, size) for size in sizes}


def count(ours: Ours, size: int) -> Flop:
    """On networks of shapes alone, for a batch of one without guidance."""

    def counted(call: Callable[[], object]) -> int:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            call()
        return int(counter.get_total_flops())

    denoiser, vae = ours.denoiser(Lane(size, guided=False, compiled=False)), ours.nets.vae
    job = ours.begin(denoiser, 0)
    pixels = torch.empty(1, 3, size, size, device="meta", dtype=DTYPE)
    return Flop(
        counted(lambda: denoiser.step([job])),
        counted(lambda: vae.encode(pixels)),
        counted(lambda: vae.decode(job.latents.to(DTYPE))),
    )


def engine(ours: Ours, denoiser: Denoiser) -> Callable[[int], None]:
    """A swap by the service's engine, of a face that fills a picture of the crop's size. Raises `ImportError` where
    what finds faces isn't there: it isn't asked, but the engine's module needs it."""
    from nanoswap.pipelines.face import Face
    from nanoswap.pipelines.identity import Identity
    from nanoswap.pipelines.instantid import POINTS, IdentitySource, InstantIdEngine
    from nanoswap.pipelines.instantid import Networks as Whole

    size, nobody = denoiser.recipe.sizes[0], cast(Any, None)
    identity = Identity(ours.resampler, guided=denoiser.recipe.guided)
    whole = Whole(detector=nobody, encoder=nobody, identity=identity, autoencoder=ours.autoencoder, denoiser=denoiser)
    made = InstantIdEngine("flagship", whole, Style(), step_batch=RUNTIME.step_batch, admitted=RUNTIME.admitted)
    box, points = np.array([0, 0, size, size], np.float32), POINTS * np.float32(size)
    face = Face(box=box, points=points, score=1.0, frame=(size, size))

    def swap(seed: int) -> None:
        rgb = noise(size)[0].copy()
        embedding = np.random.default_rng(seed).standard_normal(TAKES).astype(np.float32)
        source = IdentitySource(identity(embedding, rgb, face))
        made.swap([(rgb, face)], source, Request(CancelToken(), seed))
        source.wipe()

    return swap


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
        rows = denoiser.rows or (1, RUNTIME.step_batch)
        for count in (each for each in rows if each <= RUNTIME.step_batch):
            denoiser.step([self._ours.begin(denoiser, seed) for seed in range(count)])
        batches: list[int] = []

        def step(jobs: Sequence[Denoising]) -> None:
            batches.append(len(jobs))
            denoiser.step(jobs)

        batcher = StepBatcher(step, most=RUNTIME.step_batch, admitted=RUNTIME.admitted)

        def swap(seed: int) -> None:
            (job,) = batcher.run([lambda: self._ours.begin(denoiser, seed)], CancelToken())
            self._ours.autoencoder.decode(job.latents)
            job.wipe()

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


def targets(bench: Bench, small: int, large: int) -> None:
    """Those of the project, for one H200. Ours is the faster of eager and compiled."""

    def line(name: str, made: dict[Lane, float], size: int, guided: bool, met: Callable[[float], bool]) -> None:
        mine = [lane for lane in made if (lane.size, lane.guided) == (size, guided)]
        if not mine:
            print(f"target {name}: not run")
            return
        best = (max if made is bench.rate else min)(mine, key=made.__getitem__)
        how = "compiled" if best.compiled else "eager"
        print(f"target {name}: {'met' if met(made[best]) else 'missed'}, {made[best]:.4f} {how}")

    print("\nThe networks' part only: no detection, no format of pictures")
    line(f"{small} px, 4 steps, within 0.1 s", bench.alone, small, False, lambda made: made <= 0.1)
    line(f"{small} px, 4 steps, 20 swaps a second", bench.rate, small, False, lambda made: made >= 20)
    line(f"{large} px, 8 steps, within 0.25 s", bench.alone, large, False, lambda made: made <= 0.25)
    line(f"{large} px, 30 steps with guidance, within 1.6 s", bench.alone, large, True, lambda made: made <= 1.6)


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
    print(f"torch {torch.__version__}, diffusers {diffusers.__version__}")
    sizes = said.sizes or ([64, 128] if said.tiny else [512, 768, 1024])
    if said.device == "meta":
        right = weights()
        for size, each in flop(FULL, sizes).items():
            print(f"{size} px: {each}")
        return 0 if right else 1
    if not said.tiny and not torch.cuda.is_available():
        print("no CUDA device: not run")
        return 0
    if said.tiny:
        print("tiny: networks on the processor, figures mean nothing")
        torch.set_num_threads(1)
    else:
        print(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    # A graph for each size and number of rows, of ours and of the rival's.
    settings: Any = dynamo.config
    settings.recompile_limit = 64
    modes = {"off": (False,), "on": (True,), "both": (False, True)}
    lanes = [
        Lane(size, guided, compiled)
        for compiled in modes[said.compile]
        for guided in modes[said.guided]
        for size in sizes
    ]
    bench = Bench(TINY if said.tiny else FULL, "cpu" if said.tiny else "cuda", sizes, said.limit)
    batches = said.batches or ([1, 2] if said.tiny else [1, 2, 4, 8])
    bench.run(lanes, batches, swaps=not said.no_swaps, rival=said.rival)
    targets(bench, *((sizes[0], sizes[-1]) if said.tiny else (512, 1024)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
