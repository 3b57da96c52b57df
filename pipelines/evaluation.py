"""Every source onto every target, judged: one line per pair, one summary, one sheet to look at.

A figure without the picture it is of is easily believed, so the contact sheet belongs to the table: targets across,
sources down, and in the corners what was given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from statistics import fmean
from typing import Any, Final

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip import ClipLimits
from nanoswap.pipelines.engine import Engine, Rgb
from nanoswap.pipelines.errors import PipelineError
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.frame import FramePool
from nanoswap.pipelines.image import ImageLimits, decode, encode
from nanoswap.pipelines.judge import Judge, Seen, expression_error, frechet, jitter, likeness, look, pose_error
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.pipelines.reader import Reader
from nanoswap.pipelines.swap import SwapOptions, swap_image
from nanoswap.pipelines.swap_clip import ClipOptions, open_swap
from nanoswap.pipelines.yuv import small

_TILE: Final = 192
_LIMITS: Final = ImageLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One swap as judged; what could not be measured is None.

    identity    cosine of the result's identity and the source's; target_identity: and the target's own.
    nearest     the source that the result looks most like.
    pose        degrees; expression: per cent of the distance between the pupils.
    jitter      of clips only, per cent of the distance between the pupils.
    failed      why there is no result.
    """

    source: str
    target: str
    identity: float | None = None
    target_identity: float | None = None
    nearest: str | None = None
    pose: float | None = None
    expression: float | None = None
    jitter: float | None = None
    failed: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """rows, their means, and the contact sheet, uint8 (H, W, 3)."""

    rows: tuple[Row, ...]
    summary: Mapping[str, float | None]
    notes: tuple[str, ...]
    sheet: Rgb

    def as_json(self) -> dict[str, Any]:
        return {
            "rows": [asdict(row) for row in self.rows],
            "summary": dict(self.summary),
            "notes": list(self.notes),
        }


class _FramesDiffer(Exception):
    """The result has not as many frames as the clip."""


@dataclass(frozen=True, slots=True, eq=False)
class _Result:
    """What was seen of a swap: target and result at one moment, and the faces of all frames of a clip."""

    before: Seen | None
    after: Seen | None
    was: tuple[Face | None, ...] = ()
    now: tuple[Face | None, ...] = ()


def evaluate(
    engine: Engine,
    judge: Judge,
    sources: Mapping[str, bytes],
    pictures: Mapping[str, bytes],
    clips: Mapping[str, bytes],
    tell: Callable[[str], None] = lambda _: None,
) -> Report:
    """Swap every source (encoded pictures by name) onto every target and judge. Raises `ValueError` when there is
    nothing to do and for a source without a face, `PipelineError` for one that can't be read."""
    if not sources or not (pictures or clips):
        raise ValueError("at least one source and one target are needed")
    givers = {name: _source(judge, name, data) for name, data in sources.items()}
    rows: list[Row] = []
    shown: dict[tuple[str, str], _Result] = {}
    for name, source in sources.items():
        for target, data in (*pictures.items(), *clips.items()):
            tell(f"{name} -> {target}")
            try:
                work = _clip if target in clips else _picture
                result = work(engine, judge, source, data)
            except PipelineError as error:
                rows.append(Row(source=name, target=target, failed=error.code))
                continue
            except _FramesDiffer:
                rows.append(Row(source=name, target=target, failed="frames_differ"))
                continue
            shown[name, target] = result
            rows.append(_row(name, target, result, givers))
    features = _realism(judge, list(shown.values()))
    return Report(
        rows=tuple(rows),
        summary=_summary(rows, features),
        notes=judge.notes,
        sheet=_sheet(givers, [*pictures, *clips], shown),
    )


def write_sheet(sheet: Rgb) -> bytes:
    """As PNG."""
    return bytes(encode(sheet, "png", 100))


def _source(judge: Judge, name: str, data: bytes) -> Seen:
    seen = look(judge, decode(data, _LIMITS))
    if seen is None:
        raise ValueError(f"no face was found in the source {name}")
    return seen


def _picture(engine: Engine, judge: Judge, source: bytes, target: bytes) -> _Result:
    before = look(judge, decode(target, _LIMITS))
    made = swap_image(
        engine, source, target, SwapOptions(faces="largest", format="png"), _LIMITS,
        gate=None, cancel=CancelToken(), report=lambda *_: None,
    )  # fmt: skip
    after = decode(made.data, _LIMITS)
    return _Result(before, look(judge, after, None if before is None else before.face))


def _clip(engine: Engine, judge: Judge, source: bytes, target: bytes) -> _Result:
    options = ClipOptions(faces="largest")
    job = open_swap(
        engine, source, target, options, ClipLimits(), _LIMITS, Encoder(),
        gate=None, cancel=CancelToken(), report=lambda *_: None,
    )  # fmt: skip
    try:
        made = b"".join(job)
    finally:
        job.close()
    before: Seen | None = None
    after: Seen | None = None
    was: list[Face | None] = []
    now: list[Face | None] = []
    for old, new in zip_longest(_frames(target), _frames(made)):
        if old is None or new is None:
            raise _FramesDiffer
        one = look(judge, old)
        other = None if one is None else look(judge, new, one.face)
        was.append(None if one is None else one.face)
        now.append(None if other is None else other.face)
        if before is None and one is not None:
            before, after = one, other
    return _Result(before, after, tuple(was), tuple(now))


def _frames(data: bytes) -> Iterator[Rgb]:
    reader = Reader(data, CancelToken(), reformat=VideoReformatter())
    pool = FramePool(reader.shape.width, reader.shape.height, 2)
    for frame in reader.frames(pool):
        yield small(frame, max(frame.width, frame.height), reader.shape.colour)
        pool.give(frame)


def _row(source: str, target: str, result: _Result, givers: Mapping[str, Seen]) -> Row:
    before, after = result.before, result.after
    if before is None or after is None:
        return Row(source=source, target=target, failed="no_face")
    identity = own = nearest = None
    if after.identity is not None:
        like = {
            name: likeness(after.identity, seen.identity) for name, seen in givers.items() if seen.identity is not None
        }
        identity, nearest = like[source], max(like, key=lambda name: like[name])
        own = None if before.identity is None else likeness(after.identity, before.identity)
    return Row(
        source=source,
        target=target,
        identity=identity,
        target_identity=own,
        nearest=nearest,
        pose=pose_error(before, after),
        expression=expression_error(before, after),
        jitter=jitter(result.was, result.now) if result.was else None,
    )


def _realism(judge: Judge, results: Sequence[_Result]) -> float | None:
    pairs = [(one.before.crop, one.after.crop) for one in results if one.before is not None and one.after is not None]
    if judge.features is None or len(pairs) < 2:
        return None
    before, after = zip(*pairs, strict=True)
    return frechet(judge.features(before), judge.features(after))


def _summary(rows: Sequence[Row], realism: float | None) -> dict[str, float | None]:
    def mean(name: str) -> float | None:
        values = [getattr(row, name) for row in rows if getattr(row, name) is not None]
        return fmean(values) if values else None

    known = [row for row in rows if row.nearest is not None]
    return {
        "swaps": float(len(rows)),
        "failed": float(sum(row.failed is not None for row in rows)),
        "identity": mean("identity"),
        "target_identity": mean("target_identity"),
        "top1": fmean(row.nearest == row.source for row in known) if known else None,
        "pose": mean("pose"),
        "expression": mean("expression"),
        "jitter": mean("jitter"),
        "frechet": realism,
    }


def _sheet(givers: Mapping[str, Seen], targets: Sequence[str], shown: Mapping[tuple[str, str], _Result]) -> Rgb:
    """Sources down, targets across, results where they meet."""
    sheet = np.full((_TILE * (len(givers) + 1), _TILE * (len(targets) + 1), 3), 24, np.uint8)

    def put(row: int, column: int, seen: Seen | None) -> None:
        if seen is not None:
            tile = cv2.resize(seen.crop, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
            sheet[row * _TILE : (row + 1) * _TILE, column * _TILE : (column + 1) * _TILE] = tile

    for down, (name, giver) in enumerate(givers.items(), 1):
        put(down, 0, giver)
        for across, target in enumerate(targets, 1):
            result = shown.get((name, target))
            if result is not None:
                put(0, across, result.before)
                put(down, across, result.after)
    return sheet
