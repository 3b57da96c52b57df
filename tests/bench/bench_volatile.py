"""What it costs that nothing stays in memory: the same swaps in two processes that take turns, one as the service's
replicas are, one plain.

As a replica: its environment (`FREED_MEMORY`), the stack wiped behind each piece of work, `rinse` of the engine, a
fresh cascade for each look. Plain: no such environment, and none of these. Buffers of our own
are overwritten in both. Stand-in weights; `inswapper` has the published network's size and random weights. The cost is
the median of rounds; beside it how far the middle half of the rounds spreads. *Behind* is the processor's time for what
the replica clears when the answer has left.

``python -m tests.bench.bench_volatile [--rounds N] [WORK …]``
"""

from __future__ import annotations

import argparse
import gc
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import numpy as np

from nanoswap.serve.volatility import FREED_MEMORY

WORKS: Final = {"picture": 15, "14 megapixels": 7, "clip": 5, "inswapper": 5}


class Lane:
    """A process that does one kind of work when it is asked to."""

    def __init__(self, stack: ExitStack, work: str, volatile: bool, models: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in FREED_MEMORY}
        environment |= FREED_MEMORY if volatile else {}
        command = [sys.executable, "-m", "tests.bench.bench_volatile", "--child", work, "--models", str(models)]
        self._process = stack.enter_context(
            subprocess.Popen(
                command + ["--volatile"] * volatile,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
        stack.callback(lambda: self._process.stdin and self._process.stdin.close())
        self.once()  # the first is warmer than none

    def once(self) -> tuple[float, float, float]:
        """Seconds by the wall, of the processor, and of it behind the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        wall, cpu, behind = map(float, self._process.stdout.readline().split())
        return wall, cpu, behind


def compare(work: str, rounds: int, models: Path) -> None:
    with ExitStack() as stack:
        plain, volatile = (Lane(stack, work, each, models) for each in (False, True))
        pairs = [(plain.once(), volatile.once()) for _ in range(rounds)]
    for which, name in enumerate(("wall", "cpu")):
        before, after = ([1e3 * pair[side][which] for pair in pairs] for side in (0, 1))
        cost = statistics.median(after) / statistics.median(before) - 1
        ratios = [b / a - 1 for a, b in zip(before, after, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        print(
            f"{work:<14} {name:<5}{statistics.median(before):>10.1f}{statistics.median(after):>10.1f} ms"
            f"{cost:>+8.1%}   of single rounds {low:+.1%} to {high:+.1%}, {rounds} rounds",
            flush=True,
        )
    print(f"{work:<14} behind {1e3 * statistics.median(after[2] for _, after in pairs):>18.1f} ms", flush=True)


def child(work: str, volatile: bool, models: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from nanoswap.serve.clearing import clear
    from nanoswap.serve.pixel_thread import then_wiping_the_stack

    made = _work(work, volatile, models)
    gc.freeze()
    with ThreadPoolExecutor(1) as threads:
        for _ in sys.stdin:
            started, used = time.perf_counter(), _cpu()
            threads.submit(then_wiping_the_stack(made) if volatile else made).result()
            answered, swapped = time.perf_counter(), _cpu()
            if volatile:
                clear()
            print(answered - started, swapped - used, _cpu() - swapped, flush=True)


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _work(work: str, volatile: bool, models: Path) -> Callable[[], None]:
    from nanoswap.pipelines import ahead
    from nanoswap.pipelines.cascade import Cascade

    if not volatile:
        kept = Cascade()._read()
        Cascade._read = lambda self: kept  # type: ignore[method-assign]
        ahead.wipe_stack = lambda: True
    engine: Any = _inswapper(models) if work == "inswapper" else _mesh()
    if not volatile:
        engine.rinse = lambda: None
    return _clip(engine, volatile) if work == "clip" else _picture(engine, "14" in work)


def _mesh() -> Any:
    from nanoswap.pipelines.mesh import MeshEngine

    return MeshEngine()


def _inswapper(models: Path) -> Any:
    from nanoswap.pipelines.engines import load_engine
    from nanoswap.pipelines.manifest import Manifest
    from nanoswap.pipelines.model_store import ModelStore
    from nanoswap.pipelines.runtime import Runtime
    from nanoswap.pipelines.style import Style
    from nanoswap.pipelines.window import Batching
    from tests.inswapper_onnx import FULL, build

    class Store(ModelStore):
        def read(self, name: str) -> bytes:
            return build(FULL, 6) if name.startswith("inswapper") else super().read(name)

    manifest = Manifest.read(models / "models.toml")
    runtime = Runtime(threads=1, batching=Batching(most=16, wait=0.0))
    return load_engine("inswapper", manifest, Store(models, manifest), runtime, Style())


def _picture(engine: Any, large: bool) -> Callable[[], None]:
    import cv2

    from nanoswap.pipelines.cancel import CancelToken
    from nanoswap.pipelines.image import ImageLimits, encode
    from nanoswap.pipelines.swap import SwapOptions, swap_image
    from tests.clips import portrait

    target = portrait("hopper")
    if large:
        target = np.asarray(cv2.resize(target, (3464, 4064), interpolation=cv2.INTER_CUBIC)[:, :], np.uint8)
    files = encode(portrait("astronaut"), "jpeg", 92), encode(target, "jpeg", 92)

    def swap() -> None:
        made = swap_image(
            engine, *files, SwapOptions(), ImageLimits(), gate=None, cancel=CancelToken(), report=lambda *_: None
        )
        made.data[:] = bytes(len(made.data))

    return swap


def _clip(engine: Any, volatile: bool) -> Callable[[], None]:
    from nanoswap.pipelines.cancel import CancelToken
    from nanoswap.pipelines.clip import ClipLimits
    from nanoswap.pipelines.image import ImageLimits, encode
    from nanoswap.pipelines.mp4 import Encoder
    from nanoswap.pipelines.process import give_back_memory, prepare_process
    from nanoswap.pipelines.swap_clip import ClipOptions, open_swap
    from nanoswap.serve.pixel_thread import then_wiping_the_stack
    from tests.clips import Actor, Recipe, Scene, make, portrait, sway

    prepare_process()
    scene = Scene([Actor("hopper", sway(640, 300, 90))], width=1280, height=720)
    target, source = make(Recipe(scene, frames=48)), encode(portrait("astronaut"), "jpeg", 92)

    def swap() -> None:
        clip = open_swap(
            engine, source, target, ClipOptions(), ClipLimits(), ImageLimits(), Encoder(),
            gate=None, cancel=CancelToken(), report=lambda *_: None,
        )  # fmt: skip
        parts = iter(clip)
        # Each part is a piece of work of its own.
        take: Callable[[], Any] = lambda: next(parts, None)  # noqa: E731
        while (then_wiping_the_stack(take) if volatile else take)() is not None:
            pass
        clip.close()
        give_back_memory()

    return swap


def main() -> int:
    parser = argparse.ArgumentParser(description="what volatility costs")
    parser.add_argument("works", nargs="*", metavar="WORK", help=f"of {', '.join(WORKS)}; all")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--volatile", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--models", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child:
        child(chosen.child, chosen.volatile, chosen.models)
        return 0
    from tests.stand_ins.write import write

    print(f"load {os.getloadavg()[0]:.1f}; ms plain and as a replica, and what that adds")
    with tempfile.TemporaryDirectory() as folder:
        models = write(Path(folder)).parent
        for work in chosen.works or WORKS:
            compare(work, chosen.rounds or WORKS[work], models)
    return 0


if __name__ == "__main__":
    sys.exit(main())
