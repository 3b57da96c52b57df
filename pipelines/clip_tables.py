"""Tables of a clip that a demuxer would believe: counted before it sees them.

A demuxer allocates by what a table says and does some things once for every pair of entries. Measured on FFmpeg as
PyAV ships it: 200 KB of MP4 that claim 20 million samples of one byte take 1.5 GB; a million edits take 13 s for
twelve frames; 80 000 metadata keys (3.5 MB) take 68 s at each opening, and a swap opens a clip dozens of times;
20 000 tags in Matroska 10 s. None of this can be interrupted, for it happens inside one call.

A demuxer finds tables in places where no standard puts them, so structure is not trusted here either: the names are
searched for in every byte that is not the coded media. What must be there to do harm can't hide.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from nanoswap.pipelines.errors import TooLarge, Undecodable, Unsupported

MAX_SAMPLES: Final = 400_000
"""Of one track, and of all fragments together: an hour at 110 frames a second."""
_MAX_EDITS: Final = 256
_MAX_KEYS: Final = 512
_MAX_CHUNKED: Final = 250_000_000  # sound samples that are read by the chunk: an hour at 69 kHz

# ISO/IEC 14496-12: §8.7.3 sample sizes, §8.7.4 and §8.7.5 chunks, §8.6.1.2 times, §8.6.6 edits, §8.8.8 fragment runs;
# QuickTime File Format: metadata keys, compressed header.
_TABLE: Final = re.compile(rb"stsz|stz2|stsc|stco|co64|stts|elst|trun|keys|cmov|cmvd")
_TRACK: Final = re.compile(rb"trak")
_SOUND: Final = re.compile(rb"soun")
_VIDEO: Final = re.compile(rb"vide")
# Names of tags and numbers of chapters (RFC 9559 §5.1.8.1.2.1 and §5.1.7.1.4.1). By chance each occurs once in 65 536
# bytes; a fifth more is allowed, and this many besides.
_NAMED: Final = re.compile(rb"\x45\xa3|\x73\xc4")
_MAX_NAMED: Final = 500


class Tables:
    """Adds up what the searched parts of one ISO clip claim."""

    def __init__(self) -> None:
        self._runs = self._keys = 0

    def search(self, part: memoryview) -> None:
        """`part`: anything but coded media, as bytes; a view, for nobody could overwrite a copy.
        Raises `TooLarge`, `Undecodable`, `Unsupported`."""
        starts = [0, *(found.start() for found in _TRACK.finditer(part)), len(part)]
        for start, end in pairwise(starts):
            self._track(part[start:end])

    def _track(self, part: memoryview) -> None:
        samples = edits = spread = chunks = 0
        times: list[tuple[int, int]] = []
        for found in _TABLE.finditer(part):
            kind, at = found.group(), found.end()
            first, second, third = (int.from_bytes(part[at + place : at + place + 4]) for place in (4, 8, 12))
            if kind in (b"cmov", b"cmvd"):
                # A header inside a zlib stream is one that nobody can look at beforehand.
                raise Unsupported("The clip's header is compressed.")
            if kind in (b"stsz", b"stz2"):
                samples = max(samples, second)
            elif kind == b"stsc":
                entries = range(at + 12, min(at + 8 + 12 * first, len(part)), 12)
                spread = max((int.from_bytes(part[place : place + 4]) for place in entries), default=0)
            elif kind in (b"stco", b"co64"):
                chunks = max(chunks, first)
            elif kind == b"stts":
                times.append((first, third))
            elif kind == b"elst":
                edits += first
            elif kind == b"trun":
                self._runs += first
            else:
                self._keys += first
        if edits > _MAX_EDITS or self._keys > _MAX_KEYS:
            raise Undecodable("The clip has too many edits or notes.")
        by_the_chunk = times == [(1, 1)] and _SOUND.search(part) is not None and _VIDEO.search(part) is None
        most = _MAX_CHUNKED if by_the_chunk else MAX_SAMPLES
        if samples > most or (by_the_chunk and spread * chunks > most) or self._runs > MAX_SAMPLES:
            raise TooLarge("The clip has too many frames.")


def search_tags(view: memoryview) -> None:
    """Raises `Undecodable` for a Matroska clip with many hundreds of tags or chapters."""
    most = _MAX_NAMED + len(view) * 12 // 5 // 65_536
    if sum(1 for _ in _NAMED.finditer(view)) > most:
        raise Undecodable("The clip has too many notes.")
