"""The buckets of all processes, in Redis or Valkey: one script, one round trip for all that a request is charged."""

import hashlib
import math
import secrets
import time
from collections.abc import Callable, Sequence
from importlib import resources

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from nanoswap.queue.rate import KEY_SECONDS, Charge, bucket_name
from nanoswap.queue.redis_room import PREFIX, away
from nanoswap.queue.room import RoomUnavailable

#: For so long a process believes that the random part of the key is still the one that it has read: a store that was
#: emptied has another.
SALT_SECONDS = 60.0


class RedisRates:
    """Buckets at ``url``. ``clock`` gives ms since the epoch; tests bring their own."""

    def __init__(
        self, url: str, secret: bytes, *, clock: Callable[[], int] | None = None, prefix: str = PREFIX
    ) -> None:
        self._secret, self._clock, self._prefix = secret, clock, prefix
        self._redis = redis.asyncio.Redis.from_url(
            url, socket_timeout=1.0, socket_connect_timeout=1.0, retry=Retry(NoBackoff(), 0)
        )
        self._script = resources.files("nanoswap.queue").joinpath("rate.lua").read_text()
        self._sha = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._salt, self._salt_ends = b"", 0.0

    async def spend(self, charges: Sequence[Charge]) -> float:
        try:
            salt = await self._fresh_salt()
            words: list[str] = ["" if self._clock is None else str(self._clock())]
            for charge in charges:
                spent = math.ceil(charge.cost * charge.rate.interval)
                words += [bucket_name(self._secret, salt, charge), str(spent), "1" if charge.owed else ""]
            try:
                answer = await self._redis.evalsha(self._sha, 1, self._prefix, *words)
            except NoScriptError:
                answer = await self._redis.eval(self._script, 1, self._prefix, *words)
        except (RedisError, OSError) as error:
            # That the script is wrong must not look like a server that is away.
            if away(error):
                raise RoomUnavailable from None
            raise
        return int(answer) / 1000

    async def close(self) -> None:
        await self._redis.aclose()

    async def _fresh_salt(self) -> bytes:
        """The random part of the key that is in force; whoever finds none makes it. A day later it is gone,
        and in between it is asked for again each minute."""
        if time.monotonic() >= self._salt_ends:
            name = f"{self._prefix}:ratekey"
            await self._redis.set(name, secrets.token_bytes(32), px=round(KEY_SECONDS * 1000), nx=True)
            salt, left = await self._redis.get(name), await self._redis.pttl(name)
            if not isinstance(salt, bytes) or left <= 0:
                raise RoomUnavailable
            self._salt, self._salt_ends = salt, time.monotonic() + min(left / 1000, SALT_SECONDS)
        return self._salt
