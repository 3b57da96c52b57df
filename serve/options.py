"""The options of a swap as they come with the upload: form fields, checked one by one."""

import math
from collections.abc import Collection, Mapping
from typing import cast, get_args

from nanoswap.pipelines.engine import Engine
from nanoswap.pipelines.image import OutputFormat
from nanoswap.pipelines.swap import Choice, SwapOptions
from nanoswap.pipelines.swap_clip import ClipOptions
from nanoswap.serve.problems import Problem

OPTION_FIELDS = ("faces", "source_face", "engine", "format", "quality", "seed")
#: Of a generator of 32 bits.
MAX_SEED = 2**32 - 1
#: A time in a clip beyond a day is a mistake.
MAX_SECONDS = 86_400.0
CLIP_FIELDS = ("faces", "source_face", "engine", "at", "start", "end")


def swap_options(fields: Mapping[str, str]) -> SwapOptions:
    """Read the options of a picture. Raises Problem ``bad_request`` naming the field and what it takes."""
    form = fields.get("format", "same")
    if form != "same" and form not in get_args(OutputFormat):
        names = ", ".join(get_args(OutputFormat))
        raise Problem("bad_request", f"'format' is same, or one of {names}.", part="format")
    return SwapOptions(
        faces=_faces(fields),
        source_face=fields.get("source_face") or None,
        format=cast("OutputFormat", form),
        quality=_whole(fields, "quality", 92, 1, 100),
        seed=_whole(fields, "seed", 0, 0, MAX_SEED),
    )


def clip_options(fields: Mapping[str, str]) -> ClipOptions:
    """Read the options of a clip. Raises Problem ``bad_request`` naming the field and what it takes."""
    start, end, at = (_seconds(fields, name) for name in ("start", "end", "at"))
    if end is not None and end <= (start or 0.0):
        raise Problem("bad_request", "'end' is later than 'start'.", part="end")
    return ClipOptions(
        faces=_faces(fields),
        at=at,
        source_face=fields.get("source_face") or None,
        start=start or 0.0,
        end=end,
    )


def chosen_engine(
    fields: Mapping[str, str], engines: Mapping[str, Engine], pictures_only: Collection[str] = ()
) -> Engine:
    """The engine that a person asked for, or else the first. ``pictures_only``: names that are offered, and not here.

    Raises Problem ``bad_request`` with the names that would do.
    """
    name = fields.get("engine") or next(iter(engines))
    if name not in engines:
        why = f"'{name}' swaps pictures only: for a clip " if name in pictures_only else ""
        raise Problem("bad_request", f"{why}'engine' is one of {', '.join(engines)}.", part="engine")
    return engines[name]


def _faces(fields: Mapping[str, str]) -> Choice:
    chosen = fields.get("faces", "all").strip()
    if chosen == "all":
        return "all"
    if chosen == "largest":
        return "largest"
    faces = tuple(name.strip() for name in chosen.split(",") if name.strip())
    if not faces:
        raise Problem("bad_request", "'faces' is all, largest, or face ids with commas between.", part="faces")
    return faces


def _whole(fields: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = fields.get(name, str(default))
    if not text.isdecimal() or not low <= int(text) <= high:
        raise Problem("bad_request", f"'{name}' is a whole number from {low} to {high}.", part=name)
    return int(text)


def _seconds(fields: Mapping[str, str], name: str) -> float | None:
    text = fields.get(name)
    if text is None:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= MAX_SECONDS:
        raise Problem("bad_request", f"'{name}' is a time in seconds, 0 or later.", part=name)
    return value
