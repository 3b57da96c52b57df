"""What ties a C2PA manifest to the bytes around it: their SHA-256, in the two forms that C2PA 2.x defines.

The signing library is given these hashes and never the picture or clip, so no copy of a person's media comes to lie in
memory that is not ours to wipe. A clip is hashed while its parts go out; nothing of it is kept for the signature, which
is why a stream can be signed at all. C2PA specification, "Hard bindings": data hash and BMFF-based hash.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from nanoswap.pipelines.container import Buffer

#: The extended type of the `uuid` box that holds a manifest (C2PA specification, annex on embedding into ISO BMFF).
C2PA_UUID: Final = bytes.fromhex("d8fec3d61b0e483c92975828877ec481")
_NAME: Final = "jumbf manifest"
# The three that the specification demands and no others: `free` boxes are bound too.
_EXCLUDED: Final = (b"ftyp", b"mfra")


@dataclass(frozen=True, slots=True)
class Binding:
    """An assertion of a manifest: its label, and its content in the JSON form that the library reads."""

    label: str
    data: dict[str, Any]


def data_hash(whole: Buffer, start: int, length: int) -> Binding:
    """Bind a file but for the `length` bytes from `start`, where the manifest is or will be."""
    digest = hashlib.sha256()
    with memoryview(whole) as view:
        digest.update(view[:start])
        digest.update(view[start + length :])
    return Binding(
        "c2pa.hash.data",
        {
            "exclusions": [{"start": start, "length": length}],
            "alg": "sha256",
            "hash": list(digest.digest()),
            "name": _NAME,
            "pad": [],
        },
    )


class BoxHash:
    """Binds a file of boxes (ISO/IEC 14496-12: MP4, AVIF) that is told piece by piece, in any pieces.

    Of every top-level box but `ftyp` and `mfra` (and the manifest's own, which isn't told) its offset in the file,
    8 bytes, and then the whole box are hashed, in the order of the file.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._offset = 0  # of the box that is at hand
        self._head = bytearray()  # of this box, as far as it is there
        self._left = 0  # bytes of this box that are still to come, once its head is there
        self._bound = False

    def update(self, data: Buffer) -> None:
        """Raises `ValueError` for a box of no stated length, after which nothing could be put."""
        with memoryview(data) as view:
            at = 0
            while at < len(view):
                if self._left == 0:
                    at += self._open(view[at:])
                    continue
                part = view[at : at + self._left]
                if self._bound:
                    self._digest.update(part)
                self._left -= len(part)
                at += len(part)

    def skip(self, length: int) -> None:
        """Between two boxes: the manifest's own is here, or will be."""
        self._offset += length

    def binding(self) -> Binding:
        """Raises `ValueError` in the middle of a box."""
        if self._left or self._head:
            raise ValueError("a box is not whole")
        exclusions: list[dict[str, Any]] = [{"xpath": "/uuid", "data": [{"offset": 8, "value": list(C2PA_UUID)}]}]
        exclusions += [{"xpath": f"/{name.decode()}"} for name in _EXCLUDED]
        data = {"exclusions": exclusions, "alg": "sha256", "hash": list(self._digest.digest()), "name": _NAME}
        return Binding("c2pa.hash.bmff.v3", data)

    def _open(self, view: memoryview) -> int:
        """Collect the head of a box; how many bytes of `view` that took."""
        wanted = 16 if self._head[:4] == b"\0\0\0\1" else 8
        taken = view[: wanted - len(self._head)]
        self._head += taken
        large = self._head[:4] == b"\0\0\0\1"
        if len(self._head) < (16 if large else 8):
            return len(taken)
        size = int.from_bytes(self._head[8:16] if large else self._head[:4], "big")
        if size < len(self._head):
            raise ValueError("a box has no length")
        self._bound = bytes(self._head[4:8]) not in _EXCLUDED
        if self._bound:
            self._digest.update(self._offset.to_bytes(8, "big"))
            self._digest.update(self._head)
        self._offset += size
        self._left = size - len(self._head)
        self._head.clear()
        return len(taken)
