"""The sums of all processes, in Redis or Valkey: one script, one round trip."""

import hashlib
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from nanoswap.queue.redis_room import PREFIX, away
from nanoswap.queue.room import RoomUnavailable
from nanoswap.queue.sums import HEARD_SECONDS, Sums

#: So long a store knows which turns of a process it has added.
TURN_SECONDS = 3600.0


class RedisSums:
    """Sums at ``url``. ``clock`` gives ms since the epoch; tests bring their own."""

    def __init__(self, url: str, *, clock: Callable[[], int] | None = None, prefix: str = PREFIX) -> None:
        self._clock, self._prefix = clock, prefix
        self._redis = redis.asyncio.Redis.from_url(
            url, decode_responses=True, socket_timeout=1.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0)
        )
        self._script = resources.files("nanoswap.queue").joinpath("sums.lua").read_text()
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()

    async def add(self, process: str, turn: int, numbers: Mapping[str, int], keys_overdue: float | None) -> None:
        overdue = "" if keys_overdue is None else round(keys_overdue * 1000)
        words = [word for pair in numbers.items() for word in pair]
        await self._call("add", process, turn, round(TURN_SECONDS * 1000), overdue, *words)

    async def read(self) -> Sums:
        words, overdue = await self._call("read")
        numbers = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        return Sums(numbers, None if overdue == "" else int(overdue) / 1000)

    async def close(self) -> None:
        await self._redis.aclose()

    async def _call(self, operation: str, *arguments: object) -> Any:
        now = "" if self._clock is None else self._clock()
        words = [str(word) for word in (operation, now, round(HEARD_SECONDS * 1000), *arguments)]
        try:
            try:
                return await self._redis.evalsha(self._sha, 1, self._prefix, *words)
            except NoScriptError:
                return await self._redis.eval(self._script, 1, self._prefix, *words)
        except (RedisError, OSError) as error:
            # That the script is wrong must not look like a server that is away.
            if away(error):
                raise RoomUnavailable from None
            raise
