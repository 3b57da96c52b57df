"""Looking for what is left of arrays in the memory of a process: a small scanner for tests, not the product's own.

A needle is known by hashes of its windows of sixteen bytes, one for every element at which a window may begin; memory
is looked at every 64 bytes. So a run of 80 bytes or more of a needle is found wherever it lies, at 64 times less work
than looking everywhere; shorter ones by luck. Windows that are nearly the same all over say nothing of a person (black,
padding) and are left out. Hashes can't be turned back, so whoever holds a needle holds no pixel.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]

WINDOW: Final = 16
STRIDE: Final = 64
_A: Final = np.uint64(0x9E3779B97F4A7C15)
_B: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_RUN: Final = 4096
_SEEN: Final = 2**24  # bytes of memory that are read at once
_BITS: Final = 25  # of the table that most of memory is refused by


def windows(array: npt.NDArray[Any] | bytes | bytearray, most: int = 2**17) -> Hashes:
    """Hashes of the windows of an array, or of bytes, that could tell whose it is. Of more than `most` bytes runs from
    all over are taken."""
    if isinstance(array, np.ndarray):
        size, flat = array.dtype.itemsize, np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    else:
        size, flat = 1, np.frombuffer(array, np.uint8)
    parts = [flat]
    if len(flat) > most:
        starts = np.linspace(0, len(flat) - _RUN, most // _RUN).astype(np.int64) // STRIDE * STRIDE
        parts = [flat[at : at + _RUN] for at in starts]
    found = [_hashes(np.ascontiguousarray(part), size) for part in parts if len(part) >= WINDOW]
    return np.concatenate(found) if found else np.zeros(0, np.uint64)


def _hashes(flat: npt.NDArray[np.uint8], step: int) -> Hashes:
    count = (len(flat) - WINDOW) // step + 1
    first, second = (np.ndarray((count,), "<u8", flat, at, (step,)) for at in (0, 8))
    # Halves and quarters that are alike: black, padding, a mask.
    same = (first == second) | _even(first, 32) | _even(second, 32)
    if step < 4:
        same |= _even(first, 16) | _even(second, 16)
    return _mixed(first, second)[~same]


def _even(words: Hashes, by: int) -> npt.NDArray[np.bool_]:
    low: Hashes = (words ^ (words >> np.uint64(by))) & np.uint64(2 ** (64 - by) - 1)
    even: npt.NDArray[np.bool_] = low == 0
    return even


def _mixed(first: Hashes, second: Hashes) -> Hashes:
    """The two words of windows to their hashes."""
    mixed: Hashes = ((first * _A) ^ ((second * _B) >> np.uint64(7))) * _A
    return mixed


class Needles:
    """Some needles by their names."""

    def __init__(self, hashes: Mapping[str, Hashes]) -> None:
        self.hashes = {name: np.sort(each) for name, each in hashes.items()}
        self._table = np.zeros(2**_BITS, np.bool_)
        for each in self.hashes.values():
            self._table[(each >> np.uint64(64 - _BITS)).astype(np.int64)] = True

    def found(self, memory: npt.NDArray[np.uint8]) -> dict[str, int]:
        """How often each is seen in a piece of memory."""
        rows = memory[: len(memory) // STRIDE * STRIDE].reshape(-1, STRIDE)[:, :WINDOW]
        words = np.ascontiguousarray(rows).view(np.uint64)
        words = words[words[:, 0] != words[:, 1]]
        mixed = _mixed(words[:, 0], words[:, 1])
        likely = mixed[self._table[(mixed >> np.uint64(64 - _BITS)).astype(np.int64)]]
        counts = {}
        if len(likely):
            for name, each in self.hashes.items():
                at = np.minimum(np.searchsorted(each, likely), max(len(each) - 1, 0))
                seen = int((each[at] == likely).sum()) if len(each) else 0
                if seen:
                    counts[name] = seen
        return counts


def memory_of(pid: int | str) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Every piece of a process' memory that can be read and could have been written, with the name of what is mapped
    there. The array is used again."""
    buffer = np.zeros(_SEEN, np.uint8)
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            said = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)", line)
            if said is None or "r" not in said[3]:
                continue
            # What can't be written is as it is in the file.
            if "w" not in said[3] and said[4]:
                continue
            start, end = int(said[1], 16), int(said[2], 16)
            for at in range(start, end, _SEEN):
                try:
                    memory.seek(at)
                    count = memory.readinto(memoryview(buffer)[: min(_SEEN, end - at)])
                except (OSError, ValueError):
                    continue
                yield said[4] or "anonymous", buffer[:count]
    buffer.fill(0)


def remnants(pid: int | str, needles: Needles) -> dict[str, int]:
    """What is left in a process' memory of each needle: how many times a window of it was seen, about one in 64 bytes.
    Nothing of a needle that isn't there."""
    total: dict[str, int] = {}
    for _, piece in memory_of(pid):
        for name, count in needles.found(piece).items():
            total[name] = total.get(name, 0) + count
    return total


def places(pid: int | str, needles: Needles) -> dict[tuple[str, str], int]:
    """As `remnants`, by needle and by what is mapped there."""
    total: dict[tuple[str, str], int] = {}
    for where, piece in memory_of(pid):
        for name, count in needles.found(piece).items():
            total[name, where] = total.get((name, where), 0) + count
    return total


def without(hashes: Mapping[str, Hashes], others: Iterable[Hashes]) -> dict[str, Hashes]:
    """What is only in these needles."""
    known = np.sort(np.concatenate([np.zeros(1, np.uint64), *others]))
    return {name: each[known[np.searchsorted(known, each) % len(known)] != each] for name, each in hashes.items()}
