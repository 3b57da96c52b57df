"""What a process keeps while it works, and what it hands back when it is done."""

import subprocess
import sys

import pytest

_CODE = """
import os, resource, sys
import numpy as np
from nanoswap.pipelines.process import give_back_memory, prepare_process

def pages():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20

if "prepare" in sys.argv:
    prepare_process()
base = pages()
blocks = [np.ones(2**20, np.uint8) for _ in range(100)]
hold = np.ones(1000, np.uint8)
full = pages() - base
# All but the last few, so that there is no free top to be trimmed.
keep = blocks[90:]
del blocks
kept = pages() - base
if "back" in sys.argv:
    give_back_memory()
print(full, kept, pages() - base)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_small_blocks_are_kept_until_they_are_handed_back() -> None:
    environment = {"MALLOC_MMAP_THRESHOLD_": "65536", "PATH": "/usr/bin:/bin"}

    def run(*words: str) -> list[float]:
        done = subprocess.run(
            [sys.executable, "-c", _CODE, *words], check=True, capture_output=True, text=True, env=environment
        )
        return [float(word) for word in done.stdout.split()]

    full, kept, back = run("prepare", "back")
    assert full > 95
    assert kept > 85, "blocks went back to the kernel at once: painting would wait for pages"
    assert back < 20, "what was free was not handed back"
    full, kept, _ = run()
    assert kept < 20, "the plain setting keeps nothing: this test would not notice"
