"""Bodies that are too large for the gateway: refused before they are read, whoever sends them."""

from collections.abc import AsyncIterator

import httpx
import pytest

from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.serve.body_limit import MAX_BODY_BYTES
from nanoswap.serve.gateway import create_gateway
from tests.serve.test_gateway import BODY, SETTINGS, Anyone, person

PIECE = 4096


class Stream:
    """A body without a stated length, which counts how much of it was taken."""

    def __init__(self, pieces: int) -> None:
        self.pieces, self.taken = pieces, 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.pieces):
            self.taken += PIECE
            yield b" " * PIECE


def gateway() -> object:
    return create_gateway(SETTINGS, MemoryRoom(Policy()), Anyone())  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/v1/tickets", "/v1/config", "/nothing"])
async def test_a_stranger_is_not_read_to_the_end(path: str) -> None:
    stream = Stream(2000)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(gateway()), base_url="http://t") as client:  # type: ignore[arg-type]
        answer = await client.post(path, content=stream, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert answer.headers["content-security-policy"]
    assert stream.taken <= MAX_BODY_BYTES + 2 * PIECE


@pytest.mark.parametrize("stated", [str(MAX_BODY_BYTES + 1), "9" * 5000])
async def test_a_stated_length_is_enough(stated: str) -> None:
    stream = Stream(1)
    headers = {"Content-Length": stated}
    async with person(gateway(), "ann") as client:
        answer = await client.post("/v1/tickets", content=stream, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert stream.taken == 0


async def test_a_body_within_the_limit_arrives_whole() -> None:
    async with person(gateway(), "ann") as client:
        padded = httpx.Request("POST", "http://t", json=BODY).content
        answer = await client.post(
            "/v1/tickets", content=padded.ljust(MAX_BODY_BYTES), headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 201
        more = await client.post("/v1/tickets", content=padded.ljust(MAX_BODY_BYTES + 1))
        assert more.status_code == 413
