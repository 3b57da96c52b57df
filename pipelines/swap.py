"""A whole request: two pictures in, one picture out, nothing left behind.

The order is the order of the reported stages: decode, detect, swap, encode (marking is part of the last). Both pictures
are judged by their headers before either is decoded. Between any two steps the cancel token is asked, and whatever was
decoded is overwritten on the way out, be it by return or by exception: the encoded result is the only
buffer that survives, and the caller wipes that. The safety gate looks at both pictures before anything is
painted, and at the result before it is encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Literal

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.container import Buffer, InputFormat
from nanoswap.pipelines.engine import Engine, Request, Rgb, rounds
from nanoswap.pipelines.errors import ManyFaces, NoFace
from nanoswap.pipelines.face import Face, match
from nanoswap.pipelines.gate import Gate
from nanoswap.pipelines.image import MEDIA_TYPES, ImageLimits, OutputFormat, decode, encode, probe
from nanoswap.pipelines.label import Label
from nanoswap.pipelines.mark import Marks, mark_picture

Choice = Literal["all", "largest"] | tuple[str, ...]
Report = Callable[[str, int, int], None]
"""(stage, done, total); stage is one of decode, detect, swap, encode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwapOptions:
    """What the person asked for.

    faces        which faces of the target: all, the largest, or ids from `find_faces`.
    source_face  the id of the face to take when the source shows several.
    format       of the result; `same` is the target's own, or jpeg where we only read it (heic).
    quality      1..100 for the lossy formats; png ignores it.
    seed         0 .. 2**32 - 1; see `Request`.
    """

    faces: Choice = "all"
    source_face: str | None = None
    format: Literal["same"] | OutputFormat = "same"
    quality: int = 92
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Swapped:
    """The result: encoded bytes (the caller's to wipe), their type, upright size in pixels, faces swapped."""

    data: bytearray
    media_type: str
    width: int
    height: int
    faces: int


@dataclass(frozen=True, slots=True)
class Found:
    """Faces of a picture of `width` by `height` upright pixels, the largest first."""

    width: int
    height: int
    faces: tuple[Face, ...]


def swap_image(
    engine: Engine,
    source: Buffer,
    target: Buffer,
    options: SwapOptions,
    limits: ImageLimits,
    *,
    gate: Gate | None,
    cancel: CancelToken,
    report: Report,
    marks: Marks | None = None,
) -> Swapped:
    """Paint the source's face over the target's and encode the result. gate: None where there is none.

    marks    what the result is to carry besides its pixels.
    Raises `Unsupported`, `Undecodable`, `TooLarge`, `NoFace`, `ManyFaces`, `UnknownFace`, `ContentRefused`,
    `NotMarked`, `Cancelled`, `TimedOut`.
    """
    marks = marks or Marks()
    with _overwritten_on_errors() as made, ExitStack() as stack:
        # Called in turn from the last to the first, whichever of them fails.
        if gate is not None:
            stack.callback(gate.rinse)
        stack.callback(engine.rinse)
        if marks.signer is not None:
            marks.signer.check()
        cancel.check()
        report("decode", 0, 2)
        probe(source, limits)
        kind = probe(target, limits).format
        giver = _decoded(source, limits, stack)
        cancel.check()
        report("decode", 1, 2)
        taker = _decoded(target, limits, stack)
        cancel.check()
        report("decode", 2, 2)

        report("detect", 0, 2)
        face = source_face(engine.detect(giver), options.source_face)
        if gate is not None:
            gate.check_content(giver, [face])
            gate.check_ages(giver, [face])
        learned = engine.prepare(giver, face)
        stack.callback(learned.wipe)
        giver.fill(0)
        cancel.check()
        report("detect", 1, 2)
        faces = _target_faces(engine.detect(taker), options.faces)
        if gate is not None:
            gate.check_content(taker, faces)
            gate.check_ages(taker, faces)
        cancel.check()
        report("detect", 2, 2)

        request = Request(cancel, options.seed)
        done = 0
        for call in rounds(engine, [(0, face) for face in faces]):
            report("swap", done, len(faces))
            engine.swap([(taker, faces[index]) for index in call], learned, request)
            cancel.check()
            done += len(call)
        report("swap", len(faces), len(faces))
        if gate is not None:
            gate.check_content(taker, faces)
            cancel.check()

        report("encode", 0, 1)
        form: OutputFormat = _output(kind) if options.format == "same" else options.format
        if marks.label:
            Label.of(taker.shape[1], taker.shape[0]).draw(taker)
        data = encode(taker, form, options.quality)
        if marks.signer is not None:
            data = mark_picture(data, form, engine.name, marks.signer)
        made.append(data)
        cancel.check()
        report("encode", 1, 1)
        return Swapped(data, MEDIA_TYPES[form], taker.shape[1], taker.shape[0], len(faces))


def find_faces(engine: Engine, target: Buffer, limits: ImageLimits, cancel: CancelToken | None = None) -> Found:
    """The faces of a picture, for a person to choose from; none is not an error. The gate isn't asked: nothing is
    swapped, and what comes back is where faces are in a picture that the person has.

    Raises `Unsupported`, `Undecodable`, `TooLarge`, `Cancelled`, `TimedOut`.
    """
    rgb = decode(target, limits)
    try:
        if cancel is not None:
            cancel.check()
        return Found(rgb.shape[1], rgb.shape[0], engine.detect(rgb))
    finally:
        rgb.fill(0)
        engine.rinse()


@contextmanager
def _overwritten_on_errors() -> Iterator[list[bytearray]]:
    """What is put into the list is overwritten when the block is left by an exception."""
    made: list[bytearray] = []
    try:
        yield made
    except BaseException:
        for data in made:
            data[:] = bytes(len(data))
        raise


def _decoded(data: Buffer, limits: ImageLimits, stack: ExitStack) -> Rgb:
    """The pixels, which `stack` overwrites."""
    rgb = decode(data, limits)
    stack.callback(rgb.fill, 0)
    return rgb


def source_face(faces: tuple[Face, ...], wanted: str | None) -> Face:
    """The face to take from the source. Raises `NoFace`, `ManyFaces`, `UnknownFace`."""
    if not faces:
        raise NoFace("source")
    if wanted is not None:
        return match(faces, (wanted,))[0]
    if len(faces) > 1:
        raise ManyFaces
    return faces[0]


def _target_faces(faces: tuple[Face, ...], wanted: Choice) -> tuple[Face, ...]:
    if not faces:
        raise NoFace("target")
    if wanted == "all":
        return faces
    if wanted == "largest":
        return faces[:1]
    return match(faces, wanted)


def _output(kind: InputFormat) -> OutputFormat:
    return "jpeg" if kind == "heic" else kind
