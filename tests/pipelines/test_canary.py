"""The noise of a canary: as wide as its seed."""

import numpy as np

from nanoswap.pipelines.canary import portrait


def test_every_bit_of_a_seed_of_128_counts() -> None:
    seed = 0x9E3779B97F4A7C15F39CC0605CEDC834
    noise = [portrait(each, face=False) for each in (seed, seed ^ 1 << 127, seed ^ 1 << 40, seed % 2**32)]
    for at, one in enumerate(noise):
        for other in noise[:at]:
            # Two that have nothing to do with each other share one value in 256.
            assert float(np.mean(one == other)) < 1 / 100
    assert np.array_equal(portrait(seed, face=False), noise[0])
