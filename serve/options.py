"""The options of a swap as they come with the upload: form fields, checked one by one."""

from collections.abc import Mapping
from typing import cast, get_args

from nanoswap.pipelines.image import OutputFormat
from nanoswap.pipelines.swap import SwapOptions
from nanoswap.serve.problems import Problem

OPTION_FIELDS = ("faces", "source_face", "format", "quality")


def swap_options(fields: Mapping[str, str]) -> SwapOptions:
    """Read the options. Raises Problem ``bad_request`` naming the field and what it takes."""
    chosen = fields.get("faces", "all").strip()
    faces = tuple(name.strip() for name in chosen.split(",") if name.strip())
    if not faces:
        raise Problem("bad_request", "'faces' is all, largest, or face ids with commas between.", part="faces")
    form = fields.get("format", "same")
    if form != "same" and form not in get_args(OutputFormat):
        names = ", ".join(get_args(OutputFormat))
        raise Problem("bad_request", f"'format' is same, or one of {names}.", part="format")
    quality = fields.get("quality", "92")
    if not quality.isdecimal() or not 1 <= int(quality) <= 100:
        raise Problem("bad_request", "'quality' is a whole number from 1 to 100.", part="quality")
    return SwapOptions(
        faces=chosen if chosen in ("all", "largest") else faces,  # type: ignore[arg-type]
        source_face=fields.get("source_face") or None,
        format=cast("OutputFormat", form),
        quality=int(quality),
    )
