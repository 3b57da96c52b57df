"""The sums of all processes, in Redis or Valkey: one script, one round trip."""

from collections.abc import Callable, Mapping
from typing import Any

from nanoswap.queue.redis_script import PREFIX, RedisScript
from nanoswap.queue.sums import HEARD_SECONDS, Sums

#: So long a store knows which turns of a process it has added.
TURN_SECONDS = 3600.0


class RedisSums:
    """Sums at ``url``. ``clock`` gives ms since the epoch; tests bring their own."""

    def __init__(self, url: str, *, clock: Callable[[], int] | None = None, prefix: str = PREFIX) -> None:
        self._script = RedisScript(url, "sums.lua", clock=clock, prefix=prefix, seconds=1.0)

    async def add(self, process: str, turn: int, numbers: Mapping[str, int], keys_overdue: float | None) -> None:
        overdue = "" if keys_overdue is None else round(keys_overdue * 1000)
        words = [word for pair in numbers.items() for word in pair]
        await self._call("add", process, turn, round(TURN_SECONDS * 1000), overdue, *words)

    async def read(self) -> Sums:
        words, overdue = await self._call("read")
        numbers = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        return Sums(numbers, None if overdue == "" else int(overdue) / 1000)

    async def close(self) -> None:
        await self._script.close()

    async def _call(self, operation: str, *arguments: object) -> Any:
        return await self._script.call([operation, self._script.now, round(HEARD_SECONDS * 1000), *arguments])
