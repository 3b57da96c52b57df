"""Finding bytes among bytes: every alignment, every length that is promised, and nothing that isn't there."""

import numpy as np
import pytest

from nanoswap.pipelines import canary
from nanoswap.serve.needles import SHORTEST, STRIDE, Needles, _hashed, every_key

#: Bytes; docs/memory.md says so.
LONGEST_MISSED = 170
CHANCE = np.random.default_rng(7)


def noise(count: int) -> np.ndarray:
    return CHANCE.integers(0, 256, count, np.uint8)


@pytest.mark.parametrize("shift", range(8))
@pytest.mark.parametrize("begin", [0, 1, 7, 8, 20, STRIDE - 1, STRIDE, 1000])
def test_shortest_run_is_found_wherever_it_lies(shift: int, begin: int) -> None:
    needle, memory = noise(4000), noise(10_000)
    needles = Needles({"it": needle})
    assert not len(needles.keys_in(memory))
    memory[512 + shift : 512 + shift + SHORTEST] = needle[begin : begin + SHORTEST]
    assert needles.count(needles.keys_in(memory)).get("it", 0) >= STRIDE


@pytest.mark.parametrize("shift", [0, 4])
def test_numbers_are_found_where_numbers_lie(shift: int) -> None:
    needle = CHANCE.standard_normal(4000, np.float32)
    memory = noise(20_000)
    part = needle[13 : 13 + 64].tobytes()
    memory[1000 + shift : 1000 + shift + len(part)] = np.frombuffer(part, np.uint8)
    needles = Needles({"it": needle})
    assert needles.count(needles.keys_in(memory))["it"] >= 64 * 4 - 2 * STRIDE


def test_whole_is_counted_about_whole_and_once() -> None:
    first, second = noise(100_000), noise(50_000)
    needles = Needles({"first": first, "second": second, "none": noise(1000)})
    counted = needles.count(
        np.concatenate([needles.keys_in(first), needles.keys_in(first[8:]), needles.keys_in(second)])
    )
    assert counted.keys() == {"first", "second"}
    for name, data in (("first", first), ("second", second)):
        assert len(data) - 2 * STRIDE <= counted[name] <= len(data) + 2 * STRIDE


@pytest.mark.parametrize("shift", [0, 1, 13])
def test_what_others_share_is_no_news(shift: int) -> None:
    head, body = noise(500), noise(5000)
    other = np.concatenate([noise(shift), head, noise(300)])
    assert len(Needles({"it": head}).keys_in(np.pad(head, (0, 4))))
    needles = Needles({"it": np.concatenate([head, body])}, every_key(other))
    assert not len(needles.keys_in(np.pad(head, (0, 4))))
    assert len(needles.keys_in(body[: len(body) // 8 * 8]))


def test_flat_and_plain_bytes_are_no_needles() -> None:
    for plain in (np.zeros(5000, np.uint8), np.tile(np.arange(4, dtype=np.uint8), 1200), np.full(5000, 0xA5, np.uint8)):
        assert not len(Needles({"it": plain}).keys_in(plain))


def test_little_and_nothing_are_searched_too() -> None:
    needles = Needles({"short": noise(10), "none": np.zeros(0, np.uint8)})
    for size in (0, 7, 16, 24, 1000):
        assert needles.count(needles.keys_in(noise(size))) == {}


@pytest.mark.parametrize("kind", ["picture", "clip"])
def test_canaries_have_no_place_without_a_window(kind: str) -> None:
    """How long a run of a real form may be and yet be missed; smooth skin and black have few different bytes."""
    forms = (canary.picture(canary.portrait(1), "jpeg") if kind == "picture" else canary.clip(1)).forms
    longest = 0
    for data in forms.values():
        plain = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        needles = Needles({"it": data})
        for shift in range(0, 8, min(data.itemsize, 8)):
            words = plain[shift : shift + (data.nbytes - shift) // 8 * 8].copy().view(np.uint64)
            there = needles._indexed(_hashed(words[:-2], words[1:-1], words[2:]))
            gaps = np.diff(np.flatnonzero(there)) * 8
            longest = max(longest, int(gaps.max(initial=0)) + 23)
    assert longest <= LONGEST_MISSED
