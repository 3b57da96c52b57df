"""The outside of a clip: which demuxer may see it, and whether its end is there.

A demuxer that is left to guess will also guess playlists, image sequences and scripts that name other
files, so the magic bytes choose one of two, ISO media (MP4, MOV) or Matroska (MKV, WebM), and nothing else
is let near the data. Both say how long their parts are; a part that goes on behind the end of the data is
a download that was cut short, which a demuxer would play as a shorter clip without a word.
"""

from __future__ import annotations

from typing import Final, Literal

from nanoswap.pipelines.clip_tables import Tables, search_tags
from nanoswap.pipelines.container import Buffer
from nanoswap.pipelines.errors import Undecodable

ClipFormat = Literal["mov", "matroska"]

CONTAINERS: Final = ("mp4", "mov", "webm", "mkv")
_EBML: Final = b"\x1a\x45\xdf\xa3"
_SEGMENT: Final = b"\x18\x53\x80\x67"
_ISO_FIRST: Final = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"}
_ISO_PARTS: Final = {b"ftyp", b"moov", b"mdat", b"moof", b"mfra", b"meta", b"uuid"}
# What telephones write as still pictures in the same container.
_STILLS: Final = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_MAX_PARTS: Final = 100_000


def sniff_clip(data: Buffer) -> ClipFormat | None:
    """The demuxer by magic bytes, or None for anything that is not on the list. Reads 16 bytes."""
    head = bytes(data[:16])
    if head[:4] == _EBML:
        return "matroska"
    if head[4:8] == b"ftyp":
        return None if head[8:12] in _STILLS else "mov"
    # QuickTime before 2001 has no `ftyp`; the first part of such a file is one of these.
    return "mov" if head[4:8] in _ISO_FIRST else None


def check_whole(data: Buffer, format: ClipFormat) -> None:
    """Raises `Undecodable` when a part of the clip goes on behind the end of the data, and what `clip_tables` raises
    for tables that no honest clip has."""
    view = memoryview(data).cast("B")
    if format == "mov":
        tables, before = Tables(), 0
        # Whatever is not coded media: also what lies behind the last whole part, which a demuxer looks at too.
        for start, end in _check_boxes(view):
            tables.search(view[before:start])
            before = end
        tables.search(view[before:])
    else:
        _check_segment(view)
        search_tags(view)


def _check_boxes(view: memoryview) -> list[tuple[int, int]]:
    """Where the coded media is."""
    at = 0
    media: list[tuple[int, int]] = []
    for _ in range(_MAX_PARTS):
        if at + 8 > len(view):
            return media
        size, kind = int.from_bytes(view[at : at + 4]), bytes(view[at + 4 : at + 8])
        if size == 1 and at + 16 <= len(view):
            size = int.from_bytes(view[at + 8 : at + 16])
        if size == 0:  # "to the end of the file"
            return [*media, (at, len(view))] if kind == b"mdat" else media
        if size < 8 or at + size > len(view):
            # Padding and notes behind the last part are common and harmless.
            if kind in _ISO_PARTS:
                raise Undecodable("The clip is cut short.")
            return media
        if kind == b"mdat":
            media.append((at, at + size))
        at += size
    raise Undecodable("The clip has too many parts.")


def _check_segment(view: memoryview) -> None:
    header, at = _number(view, 4)
    at += header or 0
    if bytes(view[at : at + 4]) != _SEGMENT:
        raise Undecodable("The clip is damaged.")
    size, at = _number(view, at + 4)
    # A recording made live, as browsers make them, does not know its own length.
    if size is not None and at + size > len(view):
        raise Undecodable("The clip is cut short.")


def _number(view: memoryview, at: int) -> tuple[int | None, int]:
    """An EBML size (RFC 8794 §4) and the place behind it; None is "unknown"."""
    if at >= len(view) or view[at] == 0:
        raise Undecodable("The clip is damaged.")
    length = 9 - int(view[at]).bit_length()
    raw = int.from_bytes(view[at : at + length]) & ((1 << (7 * length)) - 1)
    return (None if raw == (1 << (7 * length)) - 1 else raw), at + length
