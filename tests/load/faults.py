"""What breaks, and how. A fault strikes a service of this machine, whose Redis and auth service are ours.

Everything is done from outside, as a kernel short of memory, an operator or a bad network would: signals to processes
found by their names, a server that is gone, connections that crawl.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Self
from urllib.parse import urlsplit

import httpx

from nanoswap.serve.process_memory import command, tree
from tests.load import media
from tests.load.target import Target


@dataclass(frozen=True, slots=True)
class Fault:
    """``strike`` returns when the fault is over, as far as whoever caused it is concerned."""

    name: str
    strike: Callable[[Target], Awaitable[None]]


class NothingToStrike(Exception):
    """No process has that name."""


def processes(target: Target, *names: str) -> list[int]:
    """Ids of the service's processes with one of ``names`` in their command. Raises NothingToStrike."""
    found = [pid for pid in tree(target.root) if any(name in command(pid) for name in names)]
    if not found:
        raise NothingToStrike(names[0])
    return found


def _kill(*names: str) -> Callable[[Target], Awaitable[None]]:
    async def strike(target: Target) -> None:
        for pid in processes(target, *names):
            os.kill(pid, signal.SIGKILL)

    return strike


async def _redis_gone(target: Target) -> None:
    """Killed, and five seconds later another one that knows nothing."""
    os.kill(target.redis.pid, signal.SIGKILL)
    target.redis.stop()
    target.redis.socket.unlink(missing_ok=True)
    await asyncio.sleep(5.0)
    # On this thread: the kernel ends the server with the thread that started it.
    target.redis.start()


async def _redis_stalls(target: Target) -> None:
    os.kill(target.redis.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(8.0)
    finally:
        os.kill(target.redis.pid, signal.SIGCONT)


async def _auth_gone(target: Target) -> None:
    """And the gateway with it, so that one starts that has never seen a key."""
    target.auth.stop()
    try:
        await _kill("ServeReplica:gateway")(target)
        await asyncio.sleep(15.0)
    finally:
        target.auth.start()


@dataclass(slots=True)
class _Upload:
    """A swap's request by hand: somebody has a turn, the connection is open, and nothing has been sent."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    head: bytes
    body: bytes

    @classmethod
    async def begin(cls, target: Target) -> Self:
        # Big enough for its result not to vanish in the kernel's buffers on the way.
        files = {"source": ("a", media.source()), "target": ("b", media.picture(0, 4.0))}
        form = httpx.Request("POST", target.url, files=files)
        body = form.read()
        wanted = {"kind": "image", "bytes": len(body), "width": 2048, "height": 2424, "consent": "likeness-3"}
        bearer = f"Bearer {target.auth.token()}"
        async with httpx.AsyncClient(base_url=target.url, timeout=60, headers={"Authorization": bearer}) as http:
            key = {"Idempotency-Key": os.urandom(8).hex()}
            answer = (await http.post("/v1/tickets", json=wanted, headers=key)).raise_for_status()
            async with asyncio.timeout(240.0):
                while (ticket := answer.json())["state"] != "granted":
                    # A long poll: thirty who ask five times a second would be a fault of its own.
                    asked = {"Prefer": "wait=25", "If-None-Match": answer.headers.get("ETag", "")}
                    found = await http.get(ticket["links"]["self"], headers=asked)
                    answer = answer if found.status_code == 304 else found.raise_for_status()
        parts = urlsplit(target.url)
        head = (
            f"POST {ticket['links']['swap']} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: {bearer}\r\n"
            f"Grant: {ticket['grant']}\r\nContent-Type: {form.headers['Content-Type']}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=2**14)
        return cls(reader, writer, head.encode(), body)


async def _slow_clients(target: Target) -> None:
    """Eight who upload some bytes a second until they are cut off, and eight who never read their result."""

    async def upload() -> None:
        mine = await _Upload.begin(target)
        with suppress(ConnectionError):
            mine.writer.write(mine.head)
            for start in range(0, 100 * 64, 64):
                mine.writer.write(mine.body[start : start + 64])
                await mine.writer.drain()
                await asyncio.sleep(0.5)
                if mine.reader.at_eof():
                    break
        mine.writer.transport.abort()

    async def take() -> None:
        mine = await _Upload.begin(target)
        mine.writer.write(mine.head + mine.body)
        await asyncio.sleep(40.0)
        mine.writer.transport.abort()

    await asyncio.gather(*(upload() for _ in range(8)), *(take() for _ in range(8)))


async def _leave_in_droves(target: Target) -> None:
    """Thirty who close the connection in the middle of their upload."""

    async def one() -> None:
        mine = await _Upload.begin(target)
        mine.writer.write(mine.head + mine.body[: len(mine.body) // 2])
        await mine.writer.drain()
        # What is sent right before a reset is thrown away on the way: then nobody would have come for the turn.
        await asyncio.sleep(0.5)
        mine.writer.transport.abort()

    await asyncio.gather(*(one() for _ in range(30)))


FAULTS = (
    Fault("image replica killed", _kill("ServeReplica:image")),
    Fault("video replica killed", _kill("ServeReplica:video")),
    Fault("gateway killed", _kill("ServeReplica:gateway")),
    Fault("edge killed", _kill("haproxy -")),
    Fault("Ray's controller killed", _kill("ServeController")),
    Fault("Redis killed, a new one after 5 s", _redis_gone),
    Fault("Redis stalls for 8 s", _redis_stalls),
    Fault("keys' host and gateway gone for 15 s", _auth_gone),
    Fault("16 slow clients", _slow_clients),
    Fault("30 leave in mid-upload", _leave_in_droves),
)
