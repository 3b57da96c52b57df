"""A whole clip without a service: everything wrong is said before the first byte, and nothing is left behind."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest

from nanoswap.pipelines import clip as clip_module
from nanoswap.pipelines import swap_clip
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip import ClipInfo, ClipLimits
from nanoswap.pipelines.clip_still import still
from nanoswap.pipelines.engine import Engine, Pair, Request, Source
from nanoswap.pipelines.errors import Cancelled, ContentRefused, NoFace, TooLarge, UnknownFace, Unsupported
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.frame import FramePool
from nanoswap.pipelines.gate import Gate
from nanoswap.pipelines.image import ImageLimits, decode, encode
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.swap_clip import ClipOptions, ClipSwap, open_swap
from tests.clips import Actor, Recipe, Scene, make, portrait, read, read_number, still_path
from tests.corpus import CORPUS, HOPPER, SCENE
from tests.stand_ins.gate import CYAN, MAGENTA

ENGINE = MeshEngine()
SOURCE = bytes(encode(portrait("astronaut"), "jpeg", 92))
CLIP = make(replace(CORPUS["constant rate"], frames=36))


def opened(
    target: bytes = CLIP,
    source: bytes = SOURCE,
    cancel: CancelToken | None = None,
    *,
    gate: Gate | None = None,
    engine: Engine = ENGINE,
    **options: object,
) -> tuple[ClipSwap, list[tuple[str, int, int]]]:
    seen: list[tuple[str, int, int]] = []
    extra = {name: options.pop(name) for name in ("admit", "breathe") if name in options}
    swap = open_swap(
        engine, source, target, ClipOptions(**options), ClipLimits(), ImageLimits(), Encoder(preset="ultrafast"),  # type: ignore[arg-type]
        gate=gate, cancel=cancel or CancelToken(), report=lambda *stage: seen.append(stage), **extra,  # type: ignore[arg-type]
    )  # fmt: skip
    return swap, seen


def test_stages_are_told_in_order_and_end_at_the_last_frame() -> None:
    swap, seen = opened()
    assert swap.frames == 36
    parts = list(swap)
    swap.close()
    assert list(dict.fromkeys(stage for stage, _, _ in seen)) == ["decode", "detect", "swap"]
    done = [done for stage, done, _ in seen if stage == "swap"]
    assert done == sorted(done)
    assert seen[-1] == ("swap", 36, 36)
    assert len(parts) >= 3
    assert len(read(b"".join(parts)).frames) == 36


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"target": make(Recipe(Scene([]), frames=1))}, NoFace),
        ({"target": make(Recipe(Scene([]), frames=30))}, NoFace),
        ({"source": bytes(encode(np.full((200, 200, 3), 99, np.uint8), "jpeg", 90))}, NoFace),
        ({"source": CLIP}, Unsupported),
        ({"target": SOURCE}, Unsupported),
        ({"faces": ("f0000000000000000",)}, UnknownFace),
        ({"source_face": "f0000000000000000"}, UnknownFace),
    ],
)
def test_what_is_wrong_is_said_before_the_first_byte(change: dict[str, object], error: type[Exception]) -> None:
    before = threading.active_count()
    with pytest.raises(error):
        opened(**change)  # type: ignore[arg-type]
    assert threading.active_count() == before


def test_admission_sees_the_truth_before_a_frame_is_decoded() -> None:
    asked: list[ClipInfo] = []

    def refuse(info: ClipInfo) -> None:
        asked.append(info)
        raise TooLarge

    with pytest.raises(TooLarge):
        opened(admit=refuse)
    assert asked[0].frames == 36


def test_container_is_searched_once_and_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    check, file = clip_module.check_whole, clip_module.MemoryFile
    monkeypatch.setattr(clip_module, "check_whole", lambda *given: steps.append("search") or check(*given))
    monkeypatch.setattr(clip_module, "MemoryFile", lambda *given: steps.append("open") or file(*given))
    swap, _ = opened()
    swap.close()
    assert steps[:2] == ["search", "open"]
    assert steps.count("search") == 1


def test_everything_is_overwritten_and_ended_when_it_is_closed_half_way(monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[FramePool] = []

    class Watched(FramePool):
        def __init__(self, width: int, height: int, count: int) -> None:
            super().__init__(width, height, count)
            pools.append(self)

    monkeypatch.setattr(swap_clip, "FramePool", Watched)
    before = threading.active_count()
    cancel = CancelToken()
    swap, _ = opened(cancel=cancel)
    next(iter(swap))
    frames = [data for pool in pools for data in pool._all]
    assert any(data.any() for data in frames)
    cancel.cancel()
    swap.close()
    assert threading.active_count() == before
    assert not any(data.any() for data in frames)
    swap.close()


def test_cancelled_between_frames() -> None:
    cancel = CancelToken()
    swap, _ = opened(cancel=cancel)
    parts = iter(swap)
    next(parts)
    cancel.cancel()
    with pytest.raises(Cancelled):
        list(parts)
    swap.close()


def test_others_are_let_by_at_every_chunk() -> None:
    passed: list[int] = []
    swap, _ = opened(breathe=lambda: passed.append(1))
    list(swap)
    swap.close()
    assert len(passed) == 4


def test_frames_in_flight_do_not_grow_with_the_clip() -> None:
    long = make(replace(CORPUS["constant rate"], scene=replace(SCENE, noise=0), frames=120))
    swap, seen = opened(long)
    next(iter(swap))
    threading.Event().wait(0.5)
    # The stages stand still when nobody takes the result: at most a pool of frames and one fragment are made.
    assert max((done for stage, done, _ in seen if stage == "swap"), default=0) < 40
    swap.close()


def test_still_is_a_picture_of_the_clip() -> None:
    rgb = decode(still(CLIP, 0.5, CancelToken()), ImageLimits())
    assert read_number(rgb) == 12
    assert len(ENGINE.detect(rgb)) == 1


@dataclass(frozen=True)
class Marked(Scene):
    """A scene that is magenta below the face in some frames, so that they are another scene."""

    marked: Sequence[int] = ()

    def frame(self, index: int, seconds: float) -> np.ndarray:
        frame = super().frame(index, seconds)
        if index in self.marked:
            frame[-200:] = MAGENTA
        return frame


class Painter(MeshEngine):
    """Counts the faces that it paints; from `turn` on what it paints is magenta."""

    def __init__(self, turn: int = 10**6) -> None:
        super().__init__()
        self.turn, self.painted = turn, 0

    def swap(self, pairs: Sequence[Pair], source: Source, request: Request) -> list[Roi]:
        self.painted += len(pairs)
        if self.painted <= self.turn:
            return super().swap(pairs, source, request)
        for rgb, _ in pairs:
            rgb[:] = MAGENTA
        return [Roi(0, 0, rgb.shape[1], rgb.shape[0]) for rgb, _ in pairs]


class Asked:
    """A gate that notes what it is shown. It refuses ages from the `refuse`th question of that kind on."""

    def __init__(self, refuse: int = 10**6) -> None:
        self.refuse = refuse
        self.content: list[tuple[np.ndarray, tuple[Face, ...]]] = []
        self.ages: list[tuple[np.ndarray, tuple[Face, ...]]] = []
        self.shown: list[np.ndarray] = []

    def rinse(self) -> None:
        pass

    def check_content(self, rgb: np.ndarray, faces: Sequence[Face]) -> None:
        self.content.append((rgb.copy(), tuple(faces)))
        self.shown.append(rgb)

    def check_ages(self, rgb: np.ndarray, faces: Sequence[Face]) -> None:
        self.ages.append((rgb.copy(), tuple(faces)))
        self.shown.append(rgb)
        if len(self.ages) > self.refuse:
            raise ContentRefused


def marked(*frames: int) -> bytes:
    return make(replace(CORPUS["constant rate"], scene=Marked([HOPPER], marked=frames), frames=36))


def striped(picture: np.ndarray) -> bytes:
    changed = picture.copy()
    changed[-80:] = MAGENTA
    return bytes(encode(changed, "jpeg", 92))


@pytest.mark.parametrize("name", ["source", "target", "end of the target"])
def test_gate_refuses_before_the_first_byte(gate: Gate, name: str) -> None:
    before, engine = threading.active_count(), Painter()
    source = striped(portrait("astronaut")) if name == "source" else SOURCE
    target = {"target": marked(3), "end of the target": marked(33, 34, 35)}.get(name, CLIP)
    with pytest.raises(ContentRefused):
        opened(target, source, gate=gate, engine=engine)
    assert engine.painted == 0
    assert threading.active_count() == before


def test_clip_that_turns_at_half_its_length_is_cut_there(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    pools: list[FramePool] = []

    class Watched(FramePool):
        def __init__(self, width: int, height: int, count: int) -> None:
            super().__init__(width, height, count)
            pools.append(self)

    monkeypatch.setattr(swap_clip, "FramePool", Watched)
    before = threading.active_count()
    swap, _ = opened(gate=gate, engine=Painter(turn=18))
    parts: list[bytes] = []
    with pytest.raises(ContentRefused):
        parts.extend(swap)
    swap.close()
    assert threading.active_count() == before
    assert not any(data.any() for pool in pools for data in pool._all)
    # Of thirty-six frames the third chunk is the first that begins with what was refused.
    assert 0 < len(read(b"".join(parts)).frames) <= 20


def test_frame_between_two_looks_ahead_is_seen_when_it_is_made(gate: Gate) -> None:
    """A scene of its own begins a chunk, however short it is."""
    # The dozen that are looked at before are every third.
    swap, _ = opened(marked(16), gate=gate)
    with pytest.raises(ContentRefused):
        list(swap)
    swap.close()


def test_clip_is_let_through_unchanged(gate: Gate) -> None:
    made = []
    for chosen in (gate, None):
        swap, _ = opened(gate=chosen)
        made.append(b"".join(swap))
        swap.close()
    assert read(made[0]).audio == read(made[1]).audio
    assert all(np.array_equal(a, b) for a, b in zip(read(made[0]).frames, read(made[1]).frames, strict=True))


def test_gate_is_shown_all_of_a_clip_and_keeps_nothing() -> None:
    asked = Asked()
    swap, _ = opened(gate=asked)
    # The portrait, and a dozen frames.
    assert (len(asked.content), len(asked.ages)) == (13, 13)
    assert [read_number(rgb) for rgb, _ in asked.content[1:]] == list(range(0, 36, 3))
    assert all(len(faces) == 1 for _, faces in (*asked.content, *asked.ages))
    list(swap)
    swap.close()
    # Then one of each chunk: what the face was before, and what it has become.
    befores, afters = asked.ages[13:], asked.content[13:]
    assert [read_number(rgb) for rgb, _ in befores] == [read_number(rgb) for rgb, _ in afters] == [0, 10, 20, 30]
    for (before, faces), (after, same) in zip(befores, afters, strict=True):
        (face,) = faces
        assert np.array_equal(face.box, same[0].box)
        found = ENGINE.detect(before)[0]
        assert np.abs(face.box - found.box).max() < 20
        x0, y0, x1, y1 = face.box.astype(int)
        change = np.abs(after.astype(int) - before)
        assert change[y0:y1, x0:x1].max() > 40
        assert not change[:, : x0 - 60].any()
    assert not any(rgb.any() for rgb in asked.shown)


def test_age_is_looked_at_before_a_chunk_is_painted() -> None:
    engine = Painter()
    swap, _ = opened(gate=Asked(refuse=14), engine=engine)
    with pytest.raises(ContentRefused):
        list(swap)
    swap.close()
    # The portrait, twelve frames and the first chunk were fine.
    assert engine.painted == 10


def test_somebody_who_comes_in_during_a_chunk_is_looked_at_before_they_are_painted() -> None:
    late = Actor("astronaut", lambda t: (350.0, 120.0, 46.0, 0.0) if t >= 13.5 / 24 else None)
    early = Actor("hopper", still_path(130, 130, 46))
    clip = make(Recipe(Scene([early, late], noise=0), frames=36))
    asked, engine = Asked(), Painter()
    swap, _ = opened(clip, gate=asked, engine=engine)
    ahead = len(asked.ages)
    list(swap)
    swap.close()
    looks = [(read_number(rgb), len(faces)) for rgb, faces in asked.ages[ahead:]]
    assert looks[0] == (0, 1)
    # In the chunk of frames 10 to 19 it is not the first that is asked about, but one that shows both.
    assert looks[1][1] == 2, looks
    assert 10 < looks[1][0] < 20


def test_somebody_who_takes_anothers_place_during_a_chunk_is_looked_at_before_they_are_painted() -> None:
    place = (240.0, 130.0, 46.0, 0.0)
    early = Actor("hopper", lambda t: place if t < 13.5 / 24 else None)
    late = Actor("astronaut", lambda t: place if t >= 13.5 / 24 else None)
    engine, looks = Painter(), list[tuple[int, int]]()

    class Watching(Asked):
        def check_ages(self, rgb: np.ndarray, faces: Sequence[Face]) -> None:
            looks.append((read_number(rgb), engine.painted))
            super().check_ages(rgb, faces)

    swap, _ = opened(make(Recipe(Scene([early, late], noise=0), frames=36)), gate=Watching(), engine=engine)
    del looks[:]
    list(swap)
    swap.close()
    assert engine.painted == 36
    # Of frames 10 to 19 two are asked about, for none shows both; nothing of the chunk is painted yet.
    chunk = [look for look in looks if 10 <= look[0] < 20]
    assert [before for _, before in chunk] == [10, 10], looks
    assert chunk[0][0] < 14 <= chunk[1][0], looks


def test_chosen_people_only_are_asked_for_their_age(gate: Gate) -> None:
    young = Actor("astronaut", still_path(350, 120, 46))
    adult = Actor("hopper", still_path(130, 130, 46))

    @dataclass(frozen=True)
    class Pair(Scene):
        def frame(self, index: int, seconds: float) -> np.ndarray:
            frame = super().frame(index, seconds)
            frame[180:210, 325:375] = CYAN  # the astronaut's chin
            return frame

    clip = make(Recipe(Pair([adult, young], noise=0), frames=24))
    faces = sorted(ENGINE.detect(decode(still(clip, 0, CancelToken()), ImageLimits())), key=lambda face: face.box[0])
    assert len(faces) == 2
    swap, _ = opened(clip, gate=gate, faces=(faces[0].id,))
    assert len(read(b"".join(swap)).frames) == 24
    swap.close()
    for choice in ("all", (faces[1].id,)):
        with pytest.raises(ContentRefused):
            opened(clip, gate=gate, faces=choice)
