"""A model of a machine that serves diffusion to people who come by a Poisson process. Nothing in it is measured here.

The machine does one call after the other, of the lengths that the FLOPs of the real networks give at full size. Who
shares a step is said by `choose`, which is what serves.
"""

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nanoswap.pipelines.recipe import Recipe
from nanoswap.pipelines.runtime import Runtime
from nanoswap.pipelines.step_batch import choose

RUNTIME = Runtime(threads=1)  # as it is served: 8 in a step, 16 on their way
SEED = 5
# TFLOP of one row by side in px: UNet, IdentityNet and attention to the tokens; VAE there; VAE back. Counted by torch's
# FlopCounter on the networks at full size, two for a multiplication with an addition.
TFLOP = {
    512: (1.589 + 0.689 + 0.013, 1.117, 2.515),
    768: (3.641 + 1.601 + 0.015, 2.609, 5.754),
    1024: (6.761 + 2.988 + 0.018, 4.879, 10.470),
}
RATE = 0.45 * 790  # TFLOP/s: of an H200's matrix rate in bfloat16 what such networks get
# Seconds of a step that do not shrink with the batch. What is published of SDXL on an H100, a picture of 1024 px with
# guidance (two rows), is 14.9 steps a second eager and 18.5 compiled; what is over the time that RATE gives is taken
# for launches. The IdentityNet's launches come on top, and are left out.
EAGER, COMPILED = (1 / steps - 2 * 6.761 / RATE for steps in (14.9, 18.5))
PEOPLE = 4000
WINDOW = 0.1


@dataclass(frozen=True)
class Outcome:
    """waited: seconds of each, from coming to having the picture. whole: seconds of the run. batches: of every step."""

    waited: Sequence[float]
    whole: float
    batches: Sequence[int]


@dataclass(frozen=True)
class Costs:
    """Seconds of calls, by the model above. floor: of a step."""

    recipe: Recipe
    floor: float

    def step(self, size: int, count: int) -> float:
        return self.floor + count * (2 if self.recipe.guided else 1) * TFLOP[size][0] / RATE

    def encode(self, size: int) -> float:
        return TFLOP[size][1] / RATE

    def decode(self, size: int) -> float:
        return TFLOP[size][2] / RATE

    def alone(self, size: int) -> float:
        return self.encode(size) + self.recipe.run * self.step(size, 1) + self.decode(size)


def by_step(costs: Costs, comes: Sequence[float], sizes: Sequence[int]) -> Outcome:
    """As it is served: who is done is decoded, who has come and has room is encoded, and then comes the next step, of
    whom `choose` says."""
    now, coming, inside = 0.0, 0, 0
    outside: deque[int] = deque()
    on_way: list[int] = []
    left = [costs.recipe.run] * len(comes)
    waited = [0.0] * len(comes)
    batches: list[int] = []
    while coming < len(comes) or outside or on_way:
        while coming < len(comes) and comes[coming] <= now:
            outside.append(coming)
            coming += 1
        done = next((job for job in on_way if not left[job]), None)
        if done is not None:
            now += costs.decode(sizes[done])
            waited[done] = now - comes[done]
            on_way.remove(done)
            inside -= 1
        elif outside and inside < RUNTIME.admitted:
            on_way.append(outside.popleft())
            inside += 1
            now += costs.encode(sizes[on_way[-1]])
        elif on_way:
            batch = [on_way[index] for index in choose([sizes[job] for job in on_way], RUNTIME.step_batch)]
            now += costs.step(sizes[batch[0]], len(batch))
            batches.append(len(batch))
            for job in batch:
                left[job] -= 1
        else:
            now = comes[coming]
    return Outcome(waited, now - comes[0], batches)


def together(costs: Costs, comes: Sequence[float], sizes: Sequence[int], most: int, window: float = 0.0) -> Outcome:
    """Batches that stay together, of the size that whoever came first has. most = 1: one at a time."""
    now, coming = 0.0, 0
    waiting: list[int] = []
    waited = [0.0] * len(comes)
    batches: list[int] = []
    while coming < len(comes) or waiting:
        if not waiting:
            now = max(now, comes[coming])
        while True:
            while coming < len(comes) and comes[coming] <= now:
                waiting.append(coming)
                coming += 1
            batch = [job for job in waiting if sizes[job] == sizes[waiting[0]]][:most]
            ends = comes[waiting[0]] + window
            if len(batch) == most or now >= ends:
                break
            now = min(ends, comes[coming]) if coming < len(comes) else ends
        waiting = [job for job in waiting if job not in batch]
        size = sizes[batch[0]]
        now += len(batch) * costs.encode(size) + costs.recipe.run * costs.step(size, len(batch))
        batches += [len(batch)] * costs.recipe.run
        for job in batch:
            now += costs.decode(size)
            waited[job] = now - comes[job]
    return Outcome(waited, now - comes[0], batches)


def simulated(recipe: Recipe, floor: float, load: float, sizes: Sequence[int]) -> dict[str, Outcome]:
    """sizes: of faces that come, in equal parts."""
    rng = np.random.default_rng(SEED)
    costs = Costs(recipe, floor)
    mean = statistics.fmean(costs.alone(size) for size in sizes)
    comes = (rng.exponential(mean / load, PEOPLE).cumsum()).tolist()
    drawn = rng.choice(sizes, PEOPLE).tolist()
    return {
        "by the step": by_step(costs, comes, drawn),
        "one at a time": together(costs, comes, drawn, 1),
        "batches that stay": together(costs, comes, drawn, RUNTIME.step_batch),
        f"the same, {WINDOW * 1000:.0f} ms for company": together(costs, comes, drawn, RUNTIME.step_batch, WINDOW),
    }
