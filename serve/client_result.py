"""What a swap gives back, and how it gets onto a disk: the answer is checked before it counts as a picture.

A proxy or a sign-in portal on the way may answer 200 with a page of its own, so a success without the digest that the
API promises, or with another, is not a result.
"""

import hashlib
import os
import uuid
from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from nanoswap.serve.client_errors import Unavailable


@dataclass(frozen=True, slots=True)
class Result:
    """A swapped picture: encoded bytes, media type, number of faces that changed, GPU seconds used."""

    data: bytes
    media_type: str
    faces: int
    gpu_seconds: float
    ticket_id: str

    @classmethod
    def of(cls, answer: httpx.Response, ticket_id: str) -> Self:
        """The result in a successful answer. Raises Unavailable ``damaged`` when its digest is missing or differs."""
        digest = f"sha-256=:{b64encode(hashlib.sha256(answer.content).digest()).decode()}:"
        if answer.headers.get("content-digest") != digest:
            raise Unavailable("damaged", "The result was damaged on its way.", ticket_id=ticket_id)
        return cls(
            data=answer.content,
            media_type=answer.headers["content-type"],
            faces=int(answer.headers.get("x-faces", 0)),
            gpu_seconds=float(answer.headers.get("x-gpu-seconds", 0)),
            ticket_id=ticket_id,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the picture so that ``path`` never holds half of one; what was there is replaced. Raises OSError."""
        out = Path(path)
        beside = out.with_name(f".{out.name[:100]}.{uuid.uuid4().hex}")
        try:
            # Not mkstemp: its file is for the owner's eyes only, whatever the person's umask says.
            with open(beside, "xb") as file:
                file.write(self.data)
            os.replace(beside, out)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(beside)
            raise
        return out
