"""A whole clip: a face and a clip in, fragmented MP4 out while it is made, nothing left behind.

Four stages run at once, each a few frames ahead of the next: decode, follow the people, paint, encode. The
reader of the result sets the pace of all of them, since every queue between them is short and the frames
come from one small pool. Work goes in chunks of ten frames; between two chunks it lets others by.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import product
from typing import Final

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from nanoswap.pipelines.ahead import Ahead
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.cast import Cast
from nanoswap.pipelines.clip import ClipInfo, ClipLimits, probe_clip
from nanoswap.pipelines.clip_still import Detector, frame_at
from nanoswap.pipelines.container import Buffer
from nanoswap.pipelines.engine import Engine, Request, Rgb, Source, rounds
from nanoswap.pipelines.errors import NoFace
from nanoswap.pipelines.face import Face, match
from nanoswap.pipelines.frame import Frame, FramePool, Plane
from nanoswap.pipelines.gate import Gate
from nanoswap.pipelines.gate_clip import look, look_over, showing_all
from nanoswap.pipelines.image import ImageLimits, decode, probe
from nanoswap.pipelines.label import Label
from nanoswap.pipelines.mark import ClipSeal, Marks
from nanoswap.pipelines.mp4 import Encoder, Mp4Writer
from nanoswap.pipelines.reader import Reader
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.sound import Sound
from nanoswap.pipelines.swap import Choice, Report, source_face
from nanoswap.pipelines.yuv import Colour, crop, even, paint

CHUNK: Final = 10
_POOL: Final = CHUNK + 4  # a chunk is followed while the one before it is painted and encoded away
_SCAN: Final = 12  # frames that are looked at for a face before it is said that there is none
_CUT: Final = 22.0  # mean difference of luma between two frames, levels


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipOptions:
    """What the person asked for.

    faces        which faces of the clip: all, the largest at first sight, or ids from a still of the clip.
    at           seconds of the clip's own time of that still; None is the start.
    source_face  the id of the face to take when the source shows several.
    start, end   seconds of the clip's own time; the result begins at time 0.
    """

    faces: Choice = "all"
    at: float | None = None
    source_face: str | None = None
    start: float = 0.0
    end: float | None = None


class ClipSwap:
    """A swap that is ready to be made. frames: how many will be made; codecs: RFC 6381, of the result.

    Iterate once over the parts of the result, and close it when nobody is in the iteration. Every failure
    that can be known from the files is raised by `open_swap`, before this exists. Where there is a seal, who
    sends the parts tells it every byte that leaves, its own between the parts too, and sends its box last.
    """

    def __init__(
        self,
        stack: ExitStack,
        frames: int,
        codecs: str,
        parts: Generator[bytes, None, None],
        seal: ClipSeal | None = None,
    ) -> None:
        self._stack, self.frames, self.codecs, self._parts, self.seal = stack, frames, codecs, parts, seal

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def close(self) -> None:
        """Ends all stages and overwrites every frame and face. Idempotent."""
        self._parts.close()
        self._stack.close()


def open_swap(
    engine: Engine,
    source: Buffer,
    target: Buffer,
    options: ClipOptions,
    limits: ClipLimits,
    image_limits: ImageLimits,
    encoder: Encoder,
    *,
    gate: Gate | None,
    admit: Callable[[ClipInfo], None] = lambda _: None,
    cancel: CancelToken,
    report: Report,
    breathe: Callable[[], object] = lambda: None,
    marks: Marks | None = None,
) -> ClipSwap:
    """Judge both files, learn the source, find who is to be swapped, and set up the stages.

    gate     looks at both files before this returns, and at the result while it is made; None where there is none.
    admit    is shown what the container says before any frame is decoded, and may refuse by raising.
    breathe  called between chunks; may block a little.
    marks    what the result is to carry besides its pixels.
    Raises `Unsupported`, `Undecodable`, `TooLarge`, `NoFace`, `ManyFaces`, `UnknownFace`, `ContentRefused`,
    `NotMarked`, `Cancelled`, `TimedOut`; the iteration raises `ContentRefused` too.
    """
    marks = marks or Marks()
    with ExitStack() as stack:
        stack.callback(engine.rinse)  # at last, when nothing of the clip is held any more
        if gate is not None:
            stack.callback(gate.rinse)
        seal = None if marks.signer is None else ClipSeal(engine.name, marks.signer)
        report("decode", 0, 1)
        probe(source, image_limits)
        info = probe_clip(target, limits, start=options.start, end=options.end, cancel=cancel)
        admit(info)
        cancel.check()
        learned = _learned(engine, source, options, image_limits, gate)
        stack.callback(learned.wipe)
        cancel.check()
        reformat = VideoReformatter()
        reader = Reader(target, cancel, start=options.start, end=options.end, reformat=reformat)
        report("decode", 1, 1)
        colour = reader.shape.colour
        label = Label.of(reader.shape.width, reader.shape.height).on_frames(colour) if marks.label else None
        pool = FramePool(reader.shape.width, reader.shape.height, _POOL)
        stack.callback(pool.wipe)
        known = not isinstance(options.faces, str)
        detect = Detector(engine, colour, identify=options.faces != "all")
        cast = Cast("known" if known else options.faces, detect)  # type: ignore[arg-type]
        stack.callback(cast.wipe)
        report("detect", 0, 1)
        if known:
            at = options.start if options.at is None else options.at
            _introduce(cast, detect, target, at, tuple(options.faces), cancel, reformat, gate)
        else:
            _look_for_faces(
                Detector(engine, colour, identify=False),
                target,
                options.start,
                options.start + info.seconds,
                cancel,
                reformat,
            )
        if gate is not None:
            end = options.start + info.seconds
            look_over(gate, engine, target, options.start, end, _chooser(options.faces), cancel, reformat)
        report("detect", 1, 1)
        sound = Sound.of(target, options.start, options.end, cancel)
        if sound is not None:
            stack.callback(sound.close)
        writer = Mp4Writer(reader.shape, info.fps, encoder, sound)
        stack.callback(writer.close)

        def parts() -> Generator[bytes, None, None]:
            with ExitStack() as stages:
                frames = Ahead(reader.frames(pool), 2, "decode")
                stages.callback(frames.close)
                tracked = Ahead(_tracked(frames, cast, cancel, breathe), 1, "track")
                stages.callback(tracked.close)
                painted = Ahead(_painted(tracked, engine, learned, colour, cancel, gate), 2, "paint")
                stages.callback(painted.close)
                # The first stage to stop is the first: a stage waits for the one before it, never the other way.
                stages.callback(frames.close)
                # Unless it waits for a frame that the later stages hold.
                stages.callback(pool.close)
                done = 0
                for frame in painted:
                    if label is not None:
                        label.draw(frame)
                    writer.write(frame)
                    pool.give(frame)
                    done += 1
                    if done % CHUNK == 0:
                        report("swap", done, max(done, info.frames))
                    part = writer.take()
                    if part:
                        yield part
                writer.finish()
                report("swap", done, done)
                yield writer.take()

        return ClipSwap(stack.pop_all(), info.frames, writer.codecs, parts(), seal)


def _learned(engine: Engine, source: Buffer, options: ClipOptions, limits: ImageLimits, gate: Gate | None) -> Source:
    rgb = decode(source, limits)
    try:
        face = source_face(engine.detect(rgb), options.source_face)
        if gate is not None:
            gate.check_content(rgb, [face])
            gate.check_ages(rgb, [face])
        return engine.prepare(rgb, face)
    finally:
        rgb.fill(0)


def _introduce(
    cast: Cast,
    detect: Detector,
    data: Buffer,
    at: float,
    ids: tuple[str, ...],
    cancel: CancelToken,
    reformat: VideoReformatter,
    gate: Gate | None,
) -> None:
    with frame_at(data, at, cancel, reformat) as (frame, colour):
        faces = detect(frame, True)
        if not faces:
            raise NoFace("target")
        chosen = match(faces, ids)
        if gate is not None:
            look(gate.check_ages, frame, chosen, colour)
        cast.introduce(frame, faces, chosen)


def _chooser(choice: Choice) -> Callable[[tuple[Face, ...]], Sequence[Face]]:
    """Of a frame's faces, the largest first, those whose age can be asked before anybody is followed. Who was chosen on
    a still is known on that still only; in other frames their age is looked at when they are painted."""
    if isinstance(choice, tuple):
        return lambda _: ()
    return (lambda faces: faces[:1]) if choice == "largest" else (lambda faces: faces)


def _look_for_faces(
    detect: Detector, data: Buffer, start: float, end: float, cancel: CancelToken, reformat: VideoReformatter
) -> None:
    """Raises `NoFace` when none of a dozen frames all over the clip shows a face: better now than half way."""
    # A passing look finds most; only where it finds nothing anywhere are small faces looked for.
    for close, at in product((False, True), np.linspace(start, end, _SCAN, endpoint=False)):
        cancel.check()
        with frame_at(data, float(at), cancel, reformat) as (frame, _):
            if detect(frame, close):
                return
    raise NoFace("target")


def _tracked(
    frames: Ahead[Frame], cast: Cast, cancel: CancelToken, breathe: Callable[[], object]
) -> Generator[tuple[list[Frame], list[tuple[Face, ...]]], None, None]:
    for chunk, cut in _chunks(frames):
        cancel.check()
        breathe()
        yield chunk, cast.chunk(chunk, cut)


def _chunks(frames: Ahead[Frame]) -> Iterator[tuple[list[Frame], bool]]:
    """Ten frames, or fewer up to a cut; True where a scene begins."""
    chunk: list[Frame] = []
    cut, before = True, None
    for frame in frames:
        tiny = _tiny(frame.y)
        if chunk and before is not None and _differ(before, tiny):
            yield chunk, cut
            chunk, cut = [], True
        elif before is not None and not chunk and _differ(before, tiny):
            cut = True
        before = tiny
        chunk.append(frame)
        if len(chunk) == CHUNK:
            yield chunk, cut
            chunk, cut = [], False
    if chunk:
        yield chunk, cut


def _tiny(plane: Plane) -> Plane:
    """64 by 36, each the mean of sixteen samples: as good for this as the mean of all, at a fiftieth of the cost."""
    sampled = cv2.resize(plane, (256, 144), interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.resize(sampled, (64, 36), interpolation=cv2.INTER_AREA), np.uint8)


def _differ(a: Plane, b: Plane) -> bool:
    return float(cv2.absdiff(a, b).mean()) > _CUT


def _painted(
    chunks: Ahead[tuple[list[Frame], list[tuple[Face, ...]]]],
    engine: Engine,
    learned: Source,
    colour: Colour,
    cancel: CancelToken,
    gate: Gate | None,
) -> Generator[Frame, None, None]:
    """An engine that likes many faces at once gets a chunk's together; any other a frame's, and the frame goes on."""
    for frames, faces in chunks:
        if gate is not None:
            # All of them: also who comes in during the chunk, and when somebody else has left meanwhile.
            for one in showing_all(faces):
                cancel.check()
                look(gate.check_ages, frames[one], faces[one], colour)
        step = len(frames) if engine.batch > 1 else 1
        for at in range(0, len(frames), step):
            part = frames[at : at + step]
            here = [(index, face) for index, chosen in enumerate(faces[at : at + step]) for face in chosen]
            for call in rounds(engine, here):
                cancel.check()
                _paint([(part[here[one][0]], here[one][1]) for one in call], engine, learned, colour, Request(cancel))
            if gate is not None and at == 0:
                look(gate.check_content, frames[0], faces[0], colour)
            yield from part


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The part of a frame around a face, uint8 RGB, as it was and as it will be; the face in its pixels."""

    frame: Frame
    roi: Roi
    before: Rgb
    after: Rgb
    face: Face


def _paint(
    pairs: Sequence[tuple[Frame, Face]], engine: Engine, learned: Source, colour: Colour, request: Request
) -> None:
    parts: list[_Part] = []
    try:
        for frame, face in pairs:
            roi = even(engine.footprint(face), frame.width, frame.height)
            if roi.empty:
                continue
            before = crop(frame, roi, colour)
            corner = np.array([roi.x0, roi.y0], np.float32)
            here = face.moved(np.ones(2, np.float32), -corner, (roi.width, roi.height))
            parts.append(_Part(frame, roi, before, before.copy(), here))
        touched = engine.swap([(part.after, part.face) for part in parts], learned, request)
        for part, changed in zip(parts, touched, strict=True):
            if not changed.empty:
                paint(part.frame, part.roi, part.before, part.after, colour)
    finally:
        for part in parts:
            part.before.fill(0)
            part.after.fill(0)
