"""Where an AVIF's pictures are: the offsets in its `iloc` box (ISO/IEC 14496-12, 8.11.3), moved by what comes in front.

A C2PA manifest belongs in front of the data (C2PA specification, A.5.3), and these offsets count from the start of the
file. Only what our own encoder writes is read here, so what isn't understood is an error, not somebody's file.
"""

from __future__ import annotations


def shift_offsets(data: bytearray, by: int, start: int) -> None:
    """Add `by` to every offset from the start of the file, in place. start: where the boxes behind the first one begin.
    Raises `ValueError` and `IndexError` for an AVIF of another build."""
    meta = _find(data, start, len(data), b"meta")
    at = _find(data, meta + 12, meta + _size(data, meta), b"iloc") + 8
    version = data[at]
    if version > 2:
        raise ValueError("iloc of an unknown version")
    offset_size, length_size = data[at + 4] >> 4, data[at + 4] & 15
    base_size, index_size = data[at + 5] >> 4, data[at + 5] & 15 if version else 0
    wide = 4 if version == 2 else 2
    count = int.from_bytes(data[at + 6 : at + 6 + wide], "big")
    at += 6 + wide
    for _ in range(count):
        at += wide
        within = version and data[at + 1] & 15  # 0: the file; otherwise a box, which moves with it
        at += (2 if version else 0) + 2
        if not within and base_size:
            _add(data, at, base_size, by)
        at += base_size
        extents = int.from_bytes(data[at : at + 2], "big")
        at += 2
        for _ in range(extents):
            at += index_size
            if not within and not base_size:
                _add(data, at, offset_size, by)
            at += offset_size + length_size


def _add(data: bytearray, at: int, size: int, by: int) -> None:
    if size not in (4, 8):
        raise ValueError("iloc has no offsets")
    if at + size > len(data):  # a longer buffer would leave this one behind as it is
        raise ValueError("iloc ends early")
    data[at : at + size] = (int.from_bytes(data[at : at + size], "big") + by).to_bytes(size, "big")


def _size(data: bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _find(data: bytearray, at: int, end: int, name: bytes) -> int:
    """Where the box `name` begins, between `at` and `end`."""
    while at + 8 <= end:
        if data[at + 4 : at + 8] == name:
            return at
        if _size(data, at) < 8:
            break
        at += _size(data, at)
    raise ValueError("a box is missing")
