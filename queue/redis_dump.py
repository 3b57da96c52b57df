"""Everything that a Redis server would tell somebody who asks it all: for `nanoswap prove`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from nanoswap.queue.room import RoomUnavailable


def everything(url: str) -> Iterator[tuple[str, bytes]]:
    """Where it lies and what it is: each key with its serialised value (DUMP), and the slow log with its arguments.

    Raises `RoomUnavailable`.
    """
    with _asked(url) as server:
        for key in server.scan_iter(count=1000):
            value = server.dump(key)
            yield "key", key + (value or b"")
        for entry in server.slowlog_get(1024):
            yield "slow log", entry["command"]


def process_id(url: str) -> int:
    """The server's own, as it says. Raises `RoomUnavailable`."""
    with _asked(url) as server:
        return int(server.info("server")["process_id"])


@contextmanager
def _asked(url: str) -> Iterator[redis.Redis]:
    try:
        with redis.Redis.from_url(url, socket_timeout=10.0) as server:
            yield server
    except redis.RedisError as error:
        raise RoomUnavailable from error
