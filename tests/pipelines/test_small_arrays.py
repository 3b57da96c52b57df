"""What numpy keeps of small freed arrays is cleared, whatever the size."""

import ctypes

import numpy as np
import pytest

from nanoswap.pipelines.small_arrays import wipe_small_arrays


@pytest.mark.parametrize("size", [64, 80, 500, 768, 1023])
def test_nothing_is_left_of_small_arrays(size: int) -> None:
    """Of the control the first bytes may be anything: an allocator writes there."""
    wipe_small_arrays()  # so that no block below is numpy's for the first time
    arrays = [np.full(size, 0x55, np.uint8) for _ in range(7)]
    places = [each.ctypes.data for each in arrays]
    arrays.clear()
    assert all(ctypes.string_at(at, size).count(0x55) > size - 33 for at in places), "numpy no longer puts them aside"
    wipe_small_arrays()
    assert not any(ctypes.string_at(at, size).count(0x55) for at in places)
