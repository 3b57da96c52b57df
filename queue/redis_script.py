"""A script that a Redis or Valkey server runs for us: one round trip, and it happens whole or not at all.

It is called by its hash (EVALSHA); a server that was restarted or wiped has forgotten it and gets it again. Whoever
calls hears that the store is away by one error, whatever the server or the network called it.
"""

import hashlib
import re
from collections.abc import Awaitable, Callable, Sequence
from importlib import resources
from typing import Any, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    ClusterDownError,
    ConnectionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)

from nanoswap.queue.room import RoomUnavailable

PREFIX = "{nanoswap}"
_AWAY = (ConnectionError, TimeoutError, OSError, ReadOnlyError, OutOfMemoryError, ClusterDownError)
_AWAY_IN_SCRIPT = re.compile(r"(?:^|-)(?:READONLY|OOM|MASTERDOWN|CLUSTERDOWN) ")


class RedisScript:
    """The ``file`` of this package at ``url`` (redis://, rediss://, unix://). ``clock`` gives ms since the epoch; tests
    bring their own. ``seconds``: within which the server must answer. ``text``: answers are str, else bytes."""

    def __init__(
        self, url: str, file: str, *, clock: Callable[[], int] | None, prefix: str, seconds: float, text: bool = True
    ) -> None:
        self._clock, self.prefix = clock, prefix
        self.redis = redis.asyncio.Redis.from_url(
            url,
            decode_responses=text,
            socket_timeout=seconds,
            socket_connect_timeout=1.0,
            # Never by itself: a call that was sent may have been carried out. The pool notices stale connections.
            retry=Retry(NoBackoff(), 0),
        )
        self._script = resources.files("nanoswap.queue").joinpath(file).read_text()
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    @property
    def now(self) -> str:
        """The time in ms as scripts take it: empty for the server's own clock."""
        return "" if self._clock is None else str(self._clock())

    async def call(self, words: Sequence[object]) -> Any:
        """Run it once; ``words`` follow the prefix. Raises RoomUnavailable."""
        arguments = [self.prefix, *map(str, words)]

        async def once() -> Any:
            try:
                return await self.redis.evalsha(self._sha, 1, *arguments)
            except NoScriptError:
                return await self.redis.eval(self._script, 1, *arguments)

        return await self.reach(once)

    async def calls(self, every: Sequence[Sequence[object]]) -> list[Any]:
        """Run it once for each, in one round trip. Raises RoomUnavailable."""

        async def once() -> list[Any]:
            pipeline = self.redis.pipeline(transaction=False)
            for words in every:
                pipeline.evalsha(self._sha, 1, self.prefix, *map(str, words))
            return list(await pipeline.execute())

        async def learned() -> list[Any]:
            try:
                return await once()
            except NoScriptError:
                await self.redis.script_load(self._script)
                return await once()

        return cast("list[Any]", await self.reach(learned))

    async def reach(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """What ``call`` answers. Raises RoomUnavailable where the server is away; that we asked for something wrong
        must not look like it."""
        try:
            return await call()
        except (RedisError, OSError) as error:
            if away(error):
                raise RoomUnavailable from None
            raise

    async def close(self) -> None:
        await self.redis.aclose()


def away(error: Exception) -> bool:
    """Whether a server can't be reached, or is loading, read only or out of memory, which is as good as that; our own
    mistakes are not. What a command of a script is answered is not known by its class: servers before 7.0 put it into a
    sentence of theirs."""
    return isinstance(error, _AWAY) or _AWAY_IN_SCRIPT.search(str(error)) is not None
