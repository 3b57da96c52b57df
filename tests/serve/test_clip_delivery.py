"""A clip on its way out: a pulse when nothing is ready, an end to patience, and an honest account of how it ended."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.errors import ContentRefused, NotMarked, PipelineError, Undecodable
from nanoswap.pipelines.mark import ClipSeal
from nanoswap.pipelines.swap_clip import ClipSwap
from nanoswap.serve import clip_delivery
from nanoswap.serve.clip_delivery import FREE_BOX, ClipDelivery
from nanoswap.serve.heartbeat import with_heartbeat
from nanoswap.serve.problems import as_problem
from nanoswap.serve.reception import Received
from nanoswap.serve.turn import Turn
from tests.clips import Recipe, Scene, make
from tests.marks import seen, signer

Made = Generator[bytes, None, None]


class Ending:
    """What the room would be told."""

    def __init__(self) -> None:
        self.code: str | None = None
        self.closed = False

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> bool:
        self.closed = True
        self.code = as_problem(error).code if isinstance(error, Exception) else None
        return False


async def deliver(
    made: Made, *, send: Any = None, seconds: float = 5.0, left: bool = False, seal: ClipSeal | None = None
) -> tuple[list[dict[str, Any]], Turn, Ending]:
    sent: list[dict[str, Any]] = []

    async def keep(message: dict[str, Any]) -> None:
        sent.append(message)
        if send is not None:
            await send(message)

    turn, gone, ending, stack = Turn(SimpleNamespace(), CancelToken()), asyncio.Event(), Ending(), AsyncExitStack()  # type: ignore[arg-type]
    if left:
        gone.set()
    await stack.enter_async_context(ending)
    clip = ClipSwap(SimpleNamespace(close=lambda: None), 7, "avc1.640028", made, seal)  # type: ignore[arg-type]
    response = ClipDelivery(clip, Received(turn, SimpleNamespace(), gone), asyncio.Semaphore(1), seconds, stack)  # type: ignore[arg-type]
    await response({"type": "http"}, None, keep)  # type: ignore[arg-type]
    return sent, turn, ending


def whole(sent: list[dict[str, Any]]) -> bool:
    return sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


async def test_whole_clip_is_accounted_for() -> None:
    sent, turn, ending = await deliver(part for part in (b"one", b"two"))
    headers = dict(sent[0]["headers"])
    assert headers[b"content-type"] == b'video/mp4; codecs="avc1.640028"'
    assert headers[b"x-frames"] == b"7"
    assert b"content-length" not in headers
    assert [message["body"] for message in sent[1:]] == [b"one", b"two", b""]
    assert whole(sent)
    assert turn.outcome is not None
    assert (turn.outcome.bytes, turn.outcome.sha256) == (6, hashlib.sha256(b"onetwo").hexdigest())
    assert (ending.closed, ending.code) == (True, None)
    # Waiting for a free place, and then the work, at the pace of who takes it.
    assert [*turn.stages.spent] == ["upload", "ready"]
    turn.stages.enter("other")
    assert [*turn.stages.spent] == ["upload", "ready", "swap"]


@pytest.mark.parametrize("error", [Undecodable, ContentRefused])
async def test_failure_in_the_middle_cuts_the_stream_and_is_told_to_the_room(error: type[PipelineError]) -> None:
    def made() -> Made:
        yield b"one"
        raise error

    sent, turn, ending = await deliver(made())
    assert not whole(sent)
    assert turn.outcome is None
    assert ending.code == error.code


async def test_silence_is_filled_with_boxes_that_players_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_delivery, "BEAT_SECONDS", 0.05)

    def made() -> Made:
        threading.Event().wait(0.3)
        yield b"one"

    sent, turn, _ = await deliver(made())
    bodies = [message["body"] for message in sent[1:-1]]
    assert bodies.count(FREE_BOX) >= 2
    assert bodies[-1] == b"one"
    assert turn.outcome is not None
    assert turn.outcome.bytes == sum(map(len, bodies))


@pytest.mark.parametrize("limit", ["stall", "whole"])
async def test_nobody_holds_a_turn_by_reading_slowly(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(clip_delivery, "STALL_SECONDS", 0.1 if limit == "stall" else 30)

    async def slow(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(10)

    async with asyncio.timeout(5):
        sent, turn, ending = await deliver((b"x" for _ in range(9)), send=slow, seconds=30 if limit == "stall" else 0.2)
    assert not whole(sent)
    assert turn.outcome is None
    assert ending.code == "slow_reader"


async def test_who_has_left_gets_nothing_more() -> None:
    sent, turn, ending = await deliver((b"x" for _ in range(9)), left=True)
    assert [message["type"] for message in sent] == ["http.response.start"]
    assert turn.outcome is None
    assert ending.code == "incomplete"


async def test_heartbeat_closes_what_it_reads() -> None:
    closed = asyncio.Event()

    async def items() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(10)
            yield 2
        finally:
            closed.set()

    for beats_before in (1, 3):  # closed between two items, and in the middle of waiting for one
        closed.clear()
        beats = with_heartbeat(items(), lambda: 0.01)
        assert [await anext(beats) for _ in range(beats_before)] == [1, None, None][:beats_before]
        await beats.aclose()
        assert closed.is_set()


def boxes(clip: bytes, wait: Callable[[], object]) -> Made:
    """A clip box by box, the second not before a pulse has been sent."""
    at = 0
    while at < len(clip):
        size = int.from_bytes(clip[at : at + 4], "big")
        yield clip[at : at + size]
        if not at:
            wait()
        at += size


async def test_signature_comes_last_and_binds_the_pulses_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_delivery, "BEAT_SECONDS", 0.02)
    beat = threading.Event()

    async def hear(message: dict[str, Any]) -> None:
        if message.get("body") == FREE_BOX:
            beat.set()

    clip = make(Recipe(Scene([]), frames=3))
    sent, turn, ending = await deliver(boxes(clip, lambda: beat.wait(5)), send=hear, seal=ClipSeal("mesh", signer()))
    bodies = [message["body"] for message in sent[1:]]
    data = b"".join(bodies)
    assert FREE_BOX in bodies
    assert bodies[-2][4:8] == b"uuid"
    assert seen("video/mp4", data).state == "Trusted"
    assert seen("video/mp4", data.replace(FREE_BOX, b"", 1)).state == "Invalid"
    assert turn.outcome is not None
    assert (turn.outcome.bytes, turn.outcome.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert ending.closed


async def test_clip_whose_signature_fails_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ClipSeal("mesh", signer())

    def fails() -> bytes:
        raise NotMarked

    monkeypatch.setattr(own, "box", fails)
    sent, turn, ending = await deliver(boxes(make(Recipe(Scene([]), frames=3)), lambda: None), seal=own)
    assert sent[-1]["more_body"]
    assert ending.code == "not_marked"
    assert turn.outcome is None or turn.outcome.code is not None
