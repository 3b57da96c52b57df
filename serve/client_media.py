"""What a client brings, judged before it waits: a picture or a clip, and the size that its ticket declares.

The libraries that look into media take longer to load than everything else of the client, so they are imported where
they are used.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nanoswap.serve.client_errors import MediaError

Source = str | os.PathLike[str] | bytes


@dataclass(frozen=True, slots=True)
class Target:
    """``kind`` is image or video; width and height in pixels (of a clip: as coded); frames between start and end."""

    kind: str
    width: int
    height: int
    frames: int = 1


def read(media: Source) -> bytes:
    """The bytes of a file, or what was given. Raises MediaError ``unreadable``."""
    if isinstance(media, bytes):
        return media
    path = Path(media)
    try:
        return path.read_bytes()
    except OSError as error:
        raise MediaError("unreadable", f"{path}: {error.strerror or 'not readable'}.") from None


def is_clip(data: bytes) -> bool:
    """Is this a clip and not a picture, by its first bytes?"""
    from nanoswap.pipelines.clip_container import sniff_clip
    from nanoswap.pipelines.container import sniff

    return sniff(data) is None and sniff_clip(data) is not None


def judge(data: bytes, limits: Mapping[str, Any], start: float, end: float | None) -> Target:
    """What the service would find in ``data``. Raises MediaError where it would refuse."""
    from nanoswap.pipelines.errors import PipelineError

    try:
        return _clip(data, limits["video"], start, end) if is_clip(data) else _picture(data, limits["image"])
    except PipelineError as error:
        raise MediaError(error.code, str(error)) from None


def still(data: bytes, seconds: float) -> bytes:
    """The frame of a clip that is shown at ``seconds``, as a JPEG. Raises MediaError."""
    from nanoswap.pipelines.cancel import CancelToken
    from nanoswap.pipelines.clip_still import still as frame
    from nanoswap.pipelines.errors import PipelineError

    try:
        return bytes(frame(data, seconds, CancelToken()))
    except PipelineError as error:
        raise MediaError(error.code, str(error)) from None


def _picture(data: bytes, limits: Mapping[str, Any]) -> Target:
    from nanoswap.pipelines.image import ImageLimits, probe

    allowed = ImageLimits(max_bytes=limits["max_bytes"], max_pixels=limits["max_pixels"], max_side=limits["max_side"])
    found = probe(data, allowed)
    return Target("image", found.width, found.height)


def _clip(data: bytes, limits: Mapping[str, Any] | None, start: float, end: float | None) -> Target:
    from nanoswap.pipelines.clip import ClipLimits, probe_clip

    if limits is None:
        raise MediaError("unknown_kind", "This service swaps pictures, not clips.")
    allowed = ClipLimits(
        max_bytes=limits["max_bytes"],
        max_pixels=limits["max_pixels"],
        max_frames=limits["max_frames"],
        max_seconds=limits["max_seconds"],
        max_fps=limits["max_fps"],
    )
    found = probe_clip(data, allowed, start=start, end=end)
    return Target("video", found.width, found.height, found.frames)
