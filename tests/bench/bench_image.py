"""A whole image swap, 12-megapixel JPEG to 12-megapixel JPEG, stage by stage, and its peak memory.

Runs in a process of its own so that the peak is the swap's. The target is NASA's astronaut portrait enlarged to 4032 ×
3024, saved as JPEG quality 90. Memory is the growth of peak resident memory over the moment before the swap, as a
multiple of the decoded target (36.6 MB); the engine and its libraries are loaded before.
"""

import resource
import time
from io import BytesIO

import cv2
import numpy as np
from matplotlib import cbook
from PIL import Image
from skimage import data

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.image import ImageLimits
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.swap import SwapOptions, swap_image

WIDTH, HEIGHT = 4032, 3024
ROUNDS = 5


def encoded(rgb: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=90)
    return out.getvalue()


class Stages:
    """Times what passes between the reports of a swap."""

    def __init__(self) -> None:
        self.took: dict[str, float] = {}
        self._last: tuple[str, float] | None = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.perf_counter()
        if self._last is not None:
            name, since = self._last
            self.took[name] = self.took.get(name, 0.0) + now - since
        self._last = (stage, now)


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def main() -> None:
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        source = file.read()
    portrait = data.astronaut()[:384]
    target = encoded(cv2.resize(portrait, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC))
    engine = MeshEngine()
    small = encoded(data.astronaut())
    swap_image(
        engine, source, small, SwapOptions(), ImageLimits(), gate=None, cancel=CancelToken(), report=lambda *_: None
    )
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak so far was the making of the picture
    before = resident()
    best: dict[str, float] = {}
    for _ in range(ROUNDS):
        clock = Stages()
        started = time.perf_counter()
        swap_image(engine, source, target, SwapOptions(), ImageLimits(), gate=None, cancel=CancelToken(), report=clock)
        took = clock.took | {"whole": time.perf_counter() - started}
        best = {stage: min(best.get(stage, float("inf")), seconds) for stage, seconds in took.items()}
    print(f"{WIDTH}x{HEIGHT} JPEG of {len(target) / 1e6:.1f} MB, least of {ROUNDS}, ms:")
    for stage, seconds in best.items():
        print(f"  {stage:<8}{seconds * 1000:>8.0f}")
    grown = peak_since_reset() - before
    print(f"peak memory: {grown / 1e6:.0f} MB = {grown / (WIDTH * HEIGHT * 3):.1f}x the decoded target")


def peak_since_reset() -> int:
    """VmHWM, which clear_refs resets, in bytes."""
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
