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
_WHOLE: Final = 2**21  # bytes of a needle that are taken as they are; of longer ones runs from all over
_RUN: Final = 4096
_SEEN: Final = 2**24  # bytes of memory that are read at once
_BITS: Final = 25  # of the table that most of memory is refused by


def windows(array: npt.NDArray[Any] | bytes | bytearray) -> Hashes:
    """Hashes of the windows of an array, or of bytes, that could tell whose it is."""
    size = 1 if isinstance(array, bytes | bytearray) else array.dtype.itemsize
    flat = np.frombuffer(array, np.uint8) if size == 1 and not isinstance(array, np.ndarray) else None
    if flat is None:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    parts = [flat]
    if len(flat) > _WHOLE:
        starts = np.linspace(0, len(flat) - _RUN, _WHOLE // _RUN).astype(np.int64) // 64 * 64
        parts = [flat[at : at + _RUN] for at in starts]
    found = [_hashes(part, size) for part in parts if len(part) >= WINDOW]
    return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)


def _hashes(flat: npt.NDArray[np.uint8], step: int) -> Hashes:
    every = np.lib.stride_tricks.sliding_window_view(flat, WINDOW)[::step]
    made = []
    for at in range(0, len(every), 2**18):
        rows = np.ascontiguousarray(every[at : at + 2**18])
        made.append(_mixed(rows.view(np.uint64))[_telling(rows, step)])
    return np.concatenate(made)


def _telling(rows: npt.NDArray[np.uint8], step: int) -> npt.NDArray[np.bool_]:
    """At least half of a window's elements differ from each other (of bytes: six)."""
    kinds = {1: np.uint8, 2: np.uint16, 4: np.uint32}
    values = np.sort(rows.view(kinds.get(step, np.uint64)), 1)
    distinct = (np.diff(values, axis=1) != 0).sum(1) + 1
    telling: npt.NDArray[np.bool_] = distinct >= {1: 6, 2: 4, 4: 3}.get(step, 2)
    return telling


def _mixed(words: npt.NDArray[np.uint64]) -> Hashes:
    """(N, 2) words to (N,) hashes."""
    mixed: Hashes = (words[:, 0] * _A) ^ ((words[:, 1] * _B) >> np.uint64(7))
    return mixed * _A


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
        mixed = _mixed(words[words.any(1)])
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
    """Every readable piece of a process' memory, with the name of what is mapped there. The array is used again."""
    buffer = np.zeros(_SEEN, np.uint8)
    maps = Path(f"/proc/{pid}/maps").read_text().splitlines()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            said = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)", line)
            if said is None or "r" not in said[3] or said[4] in ("[vvar]", "[vvar_vclock]", "[vsyscall]"):
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
    known = np.unique(np.concatenate([np.zeros(0, np.uint64), *others]))
    return {name: np.setdiff1d(each, known, assume_unique=True) for name, each in hashes.items()}
