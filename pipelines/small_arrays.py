"""numpy's own store of small freed arrays, overwritten.

numpy doesn't free the data of an array of less than a kilobyte: up to seven blocks of each size are put aside for the
next array of that size, as they are, so that an allocator that fills what is freed never sees them (an eye cut out of a
picture, its points). Only numpy can hand them out: so all are asked for, cleared, and let go again. What numpy had none
of comes from the allocator and stays with numpy: at most three and a half megabytes, once.

Constants: ``NBUCKETS`` and ``NCACHE`` in numpy's ``alloc.c``; tests/pipelines/test_small_arrays.py sees whether they
still hold. The store is one for all threads.
"""

from __future__ import annotations

from typing import Final

import numpy as np

_LARGEST: Final = 1024  # bytes; what is put aside is smaller
_OF_A_SIZE: Final = 7
_LEAST: Final = 64  # bytes; below it there is room for a few numbers


def wipe_small_arrays() -> None:
    """Clear everything that numpy has put aside. A millisecond or two; any thread."""
    held = [np.zeros(size, np.uint8) for size in range(_LEAST, _LARGEST) for _ in range(_OF_A_SIZE)]
    held.clear()
