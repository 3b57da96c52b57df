"""A picture on its way out: accounted for when it has left, not when nobody was there, and wiped either way."""

import asyncio
import hashlib
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.swap import Swapped
from nanoswap.serve import delivery
from nanoswap.serve.delivery import SLICE_BYTES, Delivery, hearing_the_person_leave
from nanoswap.serve.problems import Problem
from nanoswap.serve.turn import Turn

SLICES = 9


class Person:
    """The far end as uvicorn shows it: after the connection's end everything is taken at once, without a word."""

    def __init__(self, leaves_at: int | None = None, pause: float = 0.0) -> None:
        self.taken: list[bytes] = []
        self.gone = asyncio.Event()
        self._leaves_at, self._pause = leaves_at, pause

    async def send(self, message: Any) -> None:
        if self.gone.is_set() or message["type"] != "http.response.body":
            return
        await asyncio.sleep(self._pause)
        if len(self.taken) == self._leaves_at:
            self.gone.set()
        self.taken.append(message["body"])

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def deliver(person: Person, seconds: float = 5.0) -> tuple[bytearray, Turn, list[str]]:
    data = bytearray(b"\1" * (SLICES * SLICE_BYTES))
    ended: list[str] = []

    async def ending(_: object, error: BaseException | None, __: object) -> bool:
        ended.append(error.code if isinstance(error, Problem) else "ok")
        return False

    turn, stack = Turn(SimpleNamespace(), CancelToken()), AsyncExitStack()  # type: ignore[arg-type]
    stack.push_async_exit(ending)
    left = await stack.enter_async_context(hearing_the_person_leave(person.receive, turn))
    response = Delivery(Swapped(data, "image/png", 8, 8, 1), turn, left, seconds, stack)
    await response({"type": "http"}, person.receive, person.send)
    return data, turn, ended


async def test_whole_picture_is_accounted_for_and_wiped() -> None:
    data, turn, ended = await deliver(person := Person())
    whole = b"".join(person.taken)
    assert whole == b"\1" * (SLICES * SLICE_BYTES)
    assert turn.outcome is not None
    assert (turn.outcome.bytes, turn.outcome.sha256) == (len(whole), hashlib.sha256(whole).hexdigest())
    assert ended == ["ok"]
    assert not any(data)


@pytest.mark.parametrize("at", [0, 4])
async def test_result_that_nobody_has_does_not_count_as_delivered(at: int) -> None:
    data, turn, ended = await deliver(Person(leaves_at=at))
    assert turn.outcome is None
    assert ended == ["incomplete"]
    assert not any(data)


@pytest.mark.parametrize("limit", ["stall", "whole"])
async def test_nobody_holds_a_turn_by_reading_slowly(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(delivery, "STALL_SECONDS", 0.1 if limit == "stall" else 30)
    async with asyncio.timeout(5):
        data, turn, ended = await deliver(Person(pause=10), seconds=30 if limit == "stall" else 0.2)
    assert turn.outcome is None
    assert ended == ["slow_reader"]
    assert not any(data)
