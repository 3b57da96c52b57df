"""The outside of an encoded picture: which format, where it ends, and whether it moves.

A decoder is the part of a service most often broken into, and some allocate by the header before anything
can be refused. So the container is walked here first, in plain Python that allocates nothing: the magic
bytes choose the one decoder that will be let near the data, the declared size is known before that decoder
exists, animations are turned away, and bytes that hide behind the picture's own end (a second file, a
program, a page of script) are counted. A few kilobytes of padding are common; 64 KiB and more is a second
file. The one honest kind of second file is the multi-picture JPEG of today's telephones, which announces
its gain map in its own header; that tail is let through, never decoded, and never copied to a result. Nor
may a JPEG have many scans of many pixels: each passes over the whole picture, so that 64 of them in 240 KB
held a core for ten seconds. And no container may have millions of parts, of which decoders keep records: 30
MiB of empty comments cost eighteen seconds and 600 MB.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal

from nanoswap.pipelines.errors import TooLarge, Undecodable

Buffer = bytes | bytearray | memoryview
InputFormat = Literal["jpeg", "png", "webp", "avif", "heic"]

MAX_TAIL: Final = 64 * 1024
_MAX_SCANS: Final = 64
# Pixels that all scans of a JPEG together may pass over. Encoders write 10 scans, the thriftiest some 20; 16 at 40 MP.
_MAX_SCANNED: Final = 640_000_000
# PNG encoders put 8 KiB into a part, which makes 4 000 of the largest file.
_MAX_PARTS: Final = 50_000

_PNG_MAGIC: Final = b"\x89PNG\r\n\x1a\n"
_AVIF: Final = {b"avif", b"avis"}
_HEIC: Final = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
# The next marker that is neither a stuffed byte, a restart, nor fill.
_MARKER: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")
_ISO_PARTS: Final = {b"ftyp", b"meta", b"mdat", b"moov", b"idat", b"pdin", b"moof", b"styp", b"sidx"}


@dataclass(frozen=True, slots=True)
class Container:
    """size: coded (width, height), None where only the decoder can tell; tail: bytes that are no part of the
    picture; exif: the raw EXIF block where it may lie behind the pixels (png), else None."""

    format: InputFormat
    size: tuple[int, int] | None
    animated: bool
    tail: int
    exif: bytes | None = None


def sniff(data: Buffer) -> InputFormat | None:
    """The format by magic bytes, or None for anything that is not on the list."""
    head = bytes(data[:32])
    if head[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if head[:8] == _PNG_MAGIC:
        return "png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp":
        size = int.from_bytes(head[:4])
        brands = {head[8:12]} | {head[i : i + 4] for i in range(16, min(size, 32) - 3, 4)}
        # `mif1` says only "a still picture in this container"; the codec is in the other brands.
        if brands & _AVIF:
            return "avif"
        if brands & _HEIC:
            return "heic"
    return None


def survey(data: Buffer, format: InputFormat) -> Container:
    """Walk the container from end to end.

    Raises `Undecodable` when it is cut short, malformed or in too many parts, `TooLarge` for a JPEG of too many scans.
    """
    if format == "jpeg":
        return _jpeg(data)
    if format == "png":
        return _png(data)
    if format == "webp":
        return _webp(data)
    return _iso(data, format)


def _jpeg(data: Buffer) -> Container:
    position, scans, size, pictures = 2, 0, None, False
    for _ in range(_MAX_PARTS):
        found = _MARKER.search(data, position)
        if found is None:
            raise Undecodable
        marker, position = found.group()[1], found.end()
        if marker == 0xD9:
            break
        if marker in (0x01, 0xD8):
            continue
        length = int.from_bytes(data[position : position + 2])
        if length < 2 or position + length > len(data):
            raise Undecodable
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(data[position + i : position + i + 2]) for i in (3, 5))
            size = (width, height)
        if marker == 0xE2 and bytes(data[position + 2 : position + 6]) == b"MPF\0":
            pictures = True
        scans += marker == 0xDA
        if scans > _MAX_SCANS:
            raise Undecodable
        position += length
    else:
        raise Undecodable
    if size is None or not scans:
        raise Undecodable
    if scans > 1 and scans * size[0] * size[1] > _MAX_SCANNED:
        raise TooLarge("The image has too many scans for its size.")
    second = pictures and bytes(data[position : position + 3]) == b"\xff\xd8\xff"
    return Container("jpeg", size, False, 0 if second else len(data) - position)


def _png(data: Buffer) -> Container:
    position, animated, exif = 8, False, None
    if len(data) < 33 or bytes(data[12:16]) != b"IHDR":
        raise Undecodable
    size = (int.from_bytes(data[16:20]), int.from_bytes(data[20:24]))
    for _ in range(_MAX_PARTS):
        if position + 12 > len(data):
            break
        length = int.from_bytes(data[position : position + 4])
        kind = bytes(data[position + 4 : position + 8])
        body, position = position + 8, position + 12 + length
        if position > len(data):
            break
        if kind == b"acTL":
            animated = True
        elif kind == b"eXIf":
            exif = bytes(data[body : body + length])
        elif kind == b"IEND":
            return Container("png", size, animated, len(data) - position, exif)
    raise Undecodable


def _webp(data: Buffer) -> Container:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data) or end < 30:
        raise Undecodable
    kind, head = bytes(data[12:16]), bytes(data[20:30])
    if kind == b"VP8X":
        size = (1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little"))
        return Container("webp", size, bool(head[0] & 2), len(data) - end)
    if kind == b"VP8L" and head[0] == 0x2F:
        bits = int.from_bytes(head[1:5], "little")
        return Container("webp", (1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)), False, len(data) - end)
    if kind == b"VP8 " and head[3:6] == b"\x9d\x01\x2a":
        size = (int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF)
        return Container("webp", size, False, len(data) - end)
    raise Undecodable


def _iso(data: Buffer, format: InputFormat) -> Container:
    position, tail = 0, 0
    for _ in range(_MAX_PARTS):
        if position + 8 > len(data):
            break
        length, kind, header = (
            int.from_bytes(data[position : position + 4]),
            bytes(data[position + 4 : position + 8]),
            8,
        )
        if length == 1:
            length, header = int.from_bytes(data[position + 8 : position + 16]), 16
        elif length == 0:
            length = len(data) - position
        if kind not in _ISO_PARTS:
            # `free` and unknown boxes are legal anywhere, and as good a hiding place as the end of the file.
            if length < header or position + length > len(data):
                break
            tail += length
        elif length < header or position + length > len(data):
            raise Undecodable
        position += length
    else:
        raise Undecodable
    sequence = bytes(data[8:12]) in (b"avis", b"msf1", b"hevc", b"hevx")
    return Container(format, None, sequence, tail + len(data) - position)
