"""The mark of a result: where the signed manifest lies in each format, and how it comes there.

What a format calls a stranger's data is what carries it: APP11 segments behind the JFIF head of a JPEG (ISO/IEC
19566-5), a `caBX` chunk behind the head of a PNG, a `C2PA` chunk at the end of a WebP, a `uuid` box behind the first
box of an AVIF. Readers that don't know the mark skip it. C2PA wants the box of an MP4 in front too; of a clip that is
sent while it is made, only the end is left when its hash is known, so there it comes last, and c2pa-rs finds it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from nanoswap.pipelines.binding import BoxHash, data_hash
from nanoswap.pipelines.container import Buffer
from nanoswap.pipelines.errors import NotMarked
from nanoswap.pipelines.iloc import shift_offsets
from nanoswap.pipelines.image import OutputFormat
from nanoswap.pipelines.provenance import Signer

_PNG_HEAD: Final = 8 + 25  # signature and IHDR
_CLIP: Final = "video/mp4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """What says of a result that it is one. signer: of the C2PA manifest; label: visible, in the pixels."""

    signer: Signer | None = None
    label: bool = False


def mark_picture(data: bytearray, format: OutputFormat, engine: str, signer: Signer) -> bytearray:
    """The encoded picture with its manifest. `data` is overwritten with zeros, also on errors. Raises `NotMarked`."""
    try:
        if format == "avif":
            try:
                return _with_box_hash(data, engine, signer)
            except (IndexError, ValueError):  # boxes of another build of the encoder
                raise NotMarked from None
        return _with_data_hash(data, format, engine, signer)
    finally:
        data[:] = bytes(len(data))


class ClipSeal:
    """The mark of a clip that is sent while it is made: be told every byte that leaves, then send `box()` behind it."""

    def __init__(self, engine: str, signer: Signer) -> None:
        """Raises `NotMarked` when the signer's certificate has ended."""
        signer.check()
        self._engine, self._signer, self._boxes = engine, signer, BoxHash()

    def update(self, data: Buffer) -> None:
        """What has left or is about to. Keeps nothing but a hash and the head of a box."""
        self._boxes.update(data)

    def box(self) -> bytes:
        """A `uuid` box for the end of the file. Raises `NotMarked`, and `ValueError` in the middle of a box."""
        return self._signer.sign(_CLIP, _CLIP, self._engine, self._boxes.binding())


def _with_data_hash(data: bytearray, format: OutputFormat, engine: str, signer: Signer) -> bytearray:
    at = {"jpeg": _behind_jfif(data), "png": _PNG_HEAD}.get(format, len(data))

    def manifest(bound: Buffer, length: int) -> bytes:
        form = "application/c2pa" if format == "webp" else f"image/{format}"
        signed = signer.sign(form, f"image/{format}", engine, data_hash(bound, at, length))
        return _chunk(signed) if format == "webp" else signed

    # It states its own length; how long it is doesn't depend on that number, which is two bytes in CBOR either way.
    length = len(manifest(b"", 4096))
    made = _room(data, at, length)
    try:
        if format == "webp":
            made[4:8] = (len(made) - 8).to_bytes(4, "little")
        signed = manifest(made, length)
        if len(signed) != length:
            raise NotMarked
        made[at : at + length] = signed
        return made
    except BaseException:
        made[:] = bytes(len(made))
        raise


def _with_box_hash(data: bytearray, engine: str, signer: Signer) -> bytearray:
    at = int.from_bytes(data[:4], "big")
    length = len(signer.sign(_CLIP, "image/avif", engine, BoxHash().binding()))
    made = _room(data, at, length)
    try:
        shift_offsets(made, length, at + length)
        boxes = BoxHash()
        with memoryview(made) as view:
            boxes.update(view[:at])
            boxes.skip(length)
            boxes.update(view[at + length :])
        signed = signer.sign(_CLIP, "image/avif", engine, boxes.binding())
        if len(signed) != length:
            raise NotMarked
        made[at : at + length] = signed
        return made
    except BaseException:
        made[:] = bytes(len(made))
        raise


def _chunk(manifest: bytes) -> bytes:
    """Of RIFF (RFC 9649): a name, a length, and an even number of bytes. The byte that makes it even is counted, which
    readers of JUMBF skip: c2pa-rs 0.91 finds no valid hash around one that isn't."""
    even = manifest + bytes(len(manifest) & 1)
    return b"C2PA" + len(even).to_bytes(4, "little") + even


def _behind_jfif(data: bytearray) -> int:
    """JFIF wants to be first behind the start of a JPEG."""
    return 4 + int.from_bytes(data[4:6], "big") if data[2:4] == b"\xff\xe0" else 2


def _room(data: bytearray, at: int, length: int) -> bytearray:
    """A new buffer with `length` zeros put in at `at`. (Growing the old one could leave a copy where it was.)"""
    made = bytearray(len(data) + length)
    with memoryview(data) as old, memoryview(made) as new:
        new[:at] = old[:at]
        new[at + length :] = old[at:]
    return made
