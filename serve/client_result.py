"""What a swap gives back, and how it gets onto a disk: the answer is checked before it counts as a picture.

A proxy or a sign-in portal on the way may answer 200 with a page of its own, so a success without the digest that the
API promises, or with another, is not a result. A picture's digest stands in its head; a clip is sent while it is made,
so its digest stands in the ticket afterwards.
"""

import hashlib
import os
import uuid
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx

from nanoswap.serve.client_errors import Unavailable


@dataclass(frozen=True, slots=True)
class Result:
    """A swapped picture or clip: encoded bytes, media type, GPU seconds used; ``faces`` that changed in a picture, or
    ``frames`` of a clip, else None."""

    data: bytes
    media_type: str
    gpu_seconds: float
    ticket_id: str
    faces: int | None = None
    frames: int | None = None

    @classmethod
    def of(cls, answer: httpx.Response, ticket_id: str, settled: Mapping[str, Any] | None = None) -> Self:
        """The result in a successful answer. ``settled``: the ended ticket, for an answer without a digest.

        Raises Unavailable ``damaged`` when the digest is missing or differs.
        """
        digest = hashlib.sha256(answer.content)
        promised = settled["result"]["sha256"] if settled is not None and settled["result"] else None
        header = f"sha-256=:{b64encode(digest.digest()).decode()}:"
        if answer.headers.get("content-digest") != header and promised != digest.hexdigest():
            raise Unavailable("damaged", "The result was damaged on its way.", ticket_id=ticket_id)
        used = answer.headers.get("x-gpu-seconds") or (settled or {}).get("result", {}).get("gpu_seconds", 0)
        return cls(
            data=answer.content,
            media_type=answer.headers["content-type"].partition(";")[0],
            gpu_seconds=float(used),
            ticket_id=ticket_id,
            faces=_count(answer.headers.get("x-faces")),
            frames=_count(answer.headers.get("x-frames")),
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


def _count(value: str | None) -> int | None:
    return None if value is None else int(value)
