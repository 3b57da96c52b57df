"""After a job nothing of it is left in the memory of its process; and what would be left is found.

The processes run as the service starts its own: what is freed is filled or unmapped. So what is looked for here is what
isn't freed: pools of the networks' runtimes, pictures inside of classifiers, arrays that somebody still holds.
"""

import os
import platform
from pathlib import Path

import numpy as np
import pytest

from nanoswap.pipelines.onnx_arena import shared_arena
from nanoswap.serve.needles import STRIDE, Needles, window_keys
from tests import remnants

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/mem").exists() or platform.libc_ver()[0] != "glibc",
    reason="needs /proc and glibc's allocator, which the service's recipe is for",
)


def of_person(found: dict[str, int]) -> dict[str, int]:
    """Without single windows, which are counted as a stride: of a million one of a crop is seen in most runs since
    windows of five different bytes are looked for too; whether by chance or as what a stack keeps isn't known."""
    return {name: count for name, count in found.items() if count > STRIDE}


@pytest.mark.parametrize("outcome", ["success", "error", "cancel"])
def test_nothing_of_a_swap_is_left(models: Path, outcome: str) -> None:
    found, known = remnants.left(models, "inswapper", outcome)
    assert known["upload"] > 10_000
    assert known["pixels made"] > 100_000
    assert of_person(found) == {}


def test_a_crop_that_somebody_keeps_is_found(models: Path) -> None:
    """A control of the test above."""
    found, _ = remnants.left(models, "inswapper", "success", "leak")
    assert found["OpenCV warpAffine made"] > 100


def test_scanner_finds_what_is_there_and_no_more() -> None:
    rng = np.random.default_rng(1)
    there = rng.integers(0, 256, 50_000, dtype=np.uint8)
    floats = rng.random(10_000, np.float32)
    # Keys that are no window of anything: of one that was here, this process may still hold a copy.
    absent = np.unique(rng.integers(0, 2**64, 5000, np.uint64))
    needles = Needles.of({"there": window_keys(there), "absent": absent, "floats": remnants.keys_of(floats, 8160)})
    found = remnants.in_memory(os.getpid(), needles)
    assert found["there"] > 45_000
    assert "absent" not in found
    assert found["floats"] > 7000


def test_arena_is_one_for_all_and_can_be_handed_back_at_any_time() -> None:
    assert shared_arena() is shared_arena()
    shared_arena().rinse()
    shared_arena().rinse()
