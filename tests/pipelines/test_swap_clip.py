"""A whole clip without a service: everything wrong is said before the first byte, and nothing is left behind."""

import threading
from dataclasses import replace

import numpy as np
import pytest

from nanoswap.pipelines import swap_clip
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.clip import ClipInfo, ClipLimits
from nanoswap.pipelines.clip_still import still
from nanoswap.pipelines.errors import Cancelled, NoFace, TooLarge, UnknownFace, Unsupported
from nanoswap.pipelines.frame import FramePool
from nanoswap.pipelines.image import ImageLimits, decode, encode
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.pipelines.swap_clip import ClipOptions, ClipSwap, open_swap
from tests.clips import Recipe, Scene, make, portrait, read, read_number
from tests.corpus import CORPUS, SCENE

ENGINE = MeshEngine()
SOURCE = bytes(encode(portrait("astronaut"), "jpeg", 92))
CLIP = make(replace(CORPUS["constant rate"], frames=36))


def opened(
    target: bytes = CLIP, source: bytes = SOURCE, cancel: CancelToken | None = None, **options: object
) -> tuple[ClipSwap, list[tuple[str, int, int]]]:
    seen: list[tuple[str, int, int]] = []
    extra = {name: options.pop(name) for name in ("admit", "breathe") if name in options}
    swap = open_swap(
        ENGINE, source, target, ClipOptions(**options), ClipLimits(), ImageLimits(), Encoder(preset="ultrafast"),  # type: ignore[arg-type]
        gate=None, cancel=cancel or CancelToken(), report=lambda *stage: seen.append(stage), **extra,  # type: ignore[arg-type]
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
