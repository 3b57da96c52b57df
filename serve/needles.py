"""Looking for many byte strings at once in gigabytes of memory.

Every needle is cut into windows of 24 bytes. Of each 48 bytes of a needle the eight windows at consecutive offsets are
indexed, so that whatever the alignment, one of them begins on a multiple of eight: memory needs to be looked at in
steps of eight bytes only. Of numbers of four bytes, which lie on multiples of four, two windows are enough. A window is
told by a 64-bit hash of its three words, kept in a table that one gather per step consults, so a scan costs a few
operations per eight bytes whatever the number of needles.

What follows for the reader of a report: any run of ``SHORTEST`` or more consecutive bytes of a needle is found, shorter
ones may be missed, and a false alarm needs a collision of 64 bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

WORD: Final = 8
WINDOW: Final = 3 * WORD
STRIDE: Final = 48
#: Every run of a needle of so many bytes holds a window that is indexed and aligned.
SHORTEST: Final = STRIDE - 1 + WORD - 1 + WINDOW
_BITS: Final = 24  # of a table: for two million windows an eighth of each is set
_FACTORS: Final = tuple(np.uint64(odd) for odd in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9))
#: A window with fewer different bytes is not told from fill patterns, tables and flat areas.
_VARIED: Final = 5

Keys = npt.NDArray[np.uint64]


class Needles:
    """An index of arrays by name. Thread safe once made."""

    def __init__(self, strings: Mapping[str, npt.NDArray[Any]], known: Keys | None = None) -> None:
        """``strings``: arrays of bytes or of larger numbers. ``known``: keys of windows that are no news, see
        `every_key`."""
        self._index({name: window_keys(data) for name, data in strings.items()}, known)

    @classmethod
    def of(cls, keys: Mapping[str, Keys], known: Keys | None = None) -> Needles:
        """Of arrays that are not here: what `window_keys` made of each, by name."""
        made = cls.__new__(cls)
        made._index(keys, known)
        return made

    def _index(self, keys: Mapping[str, Keys], known: Keys | None) -> None:
        self.names = tuple(keys)
        everything = np.concatenate([np.zeros(0, np.uint64), *keys.values()])
        whose = np.repeat(np.arange(len(keys), dtype=np.int32), [len(each) for each in keys.values()])
        if known is not None:
            fresh = ~np.isin(everything, known)
            everything, whose = everything[fresh], whose[fresh]
        order = np.argsort(everything, kind="stable")
        self._keys, self._owners = everything[order], whose[order]
        self._tables = np.zeros((2, 1 << _BITS), np.bool_)
        for table, slots in zip(self._tables, (_high(self._keys), _low(self._keys)), strict=True):
            table[slots] = True

    def keys_in(self, memory: npt.NDArray[np.uint8]) -> Keys:
        """The keys of indexed windows that lie in ``memory``, uint8 (N,), which begins on a multiple of eight."""
        words = memory[: len(memory) // WORD * WORD].view(np.uint64)
        if len(words) < 3:
            return np.zeros(0, np.uint64)
        hashed = _hashed(words[:-2], words[1:-1], words[2:])
        likely = hashed[self._tables[0][_high(hashed)]]
        likely = likely[self._tables[1][_low(likely)]]
        found: Keys = likely[self._indexed(likely)]
        return found

    def _indexed(self, keys: Keys) -> npt.NDArray[np.bool_]:
        if not len(self._keys):
            return np.zeros(len(keys), np.bool_)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.asarray(self._keys[place] == keys, np.bool_)

    def count(self, keys: Keys) -> dict[str, int]:
        """For each needle of which windows were found: about how many of its bytes, each counted once."""
        found = np.unique(keys)
        first = np.searchsorted(self._keys, found, "left")
        last = np.searchsorted(self._keys, found, "right")
        counts = np.zeros(len(self.names), np.int64)
        for begin, end in zip(first, last, strict=True):
            counts[np.unique(self._owners[begin:end])] += STRIDE
        return {name: int(count) for name, count in zip(self.names, counts, strict=True) if count}


def every_key(data: npt.NDArray[Any]) -> Keys:
    """Keys of the windows at all offsets of an array: where another one shares a part with it, whatever the offset."""
    plain = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    if len(plain) < WINDOW:
        return np.zeros(0, np.uint64)
    words = np.lib.stride_tricks.sliding_window_view(plain, WORD).copy().view(np.uint64).ravel()
    return _hashed(words[: -2 * WORD], words[WORD:-WORD], words[2 * WORD :])


def window_keys(data: npt.NDArray[Any]) -> Keys:
    """Keys of the indexed windows of one needle, plain ones left out. They can't be turned back."""
    plain = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    count = len(plain) - WINDOW + 1
    if count <= 0:
        return np.zeros(0, np.uint64)
    offsets = np.arange(0, count, min(data.itemsize, WORD))
    offsets = offsets[offsets % STRIDE < WORD]
    windows = np.lib.stride_tricks.sliding_window_view(plain, WINDOW)[offsets]
    ordered = np.sort(windows, axis=1)
    varied = 1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1) >= _VARIED
    words = np.ascontiguousarray(windows[varied]).view(np.uint64)
    return np.asarray(np.unique(_hashed(words[:, 0], words[:, 1], words[:, 2])), np.uint64)


def _hashed(first: Keys, second: Keys, third: Keys) -> Keys:
    a, b, c = _FACTORS
    return np.asarray(first * a ^ second * b ^ third * c, np.uint64)


def _high(hashed: Keys) -> Keys:
    return hashed >> np.uint64(64 - _BITS)


def _low(hashed: Keys) -> Keys:
    return hashed & np.uint64((1 << _BITS) - 1)
