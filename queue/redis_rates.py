"""The buckets of all processes, in Redis or Valkey: one script, one round trip for all that a request is charged."""

import math
import secrets
import time
from collections.abc import Callable, Sequence

from nanoswap.queue.rate import KEY_SECONDS, Charge, bucket_name
from nanoswap.queue.redis_script import PREFIX, RedisScript
from nanoswap.queue.room import RoomUnavailable

#: For so long a process believes that the random part of the key is still the one that it has read: a store that was
#: emptied has another.
SALT_SECONDS = 60.0


class RedisRates:
    """Buckets at ``url``. ``clock`` gives ms since the epoch; tests bring their own."""

    def __init__(
        self, url: str, secret: bytes, *, clock: Callable[[], int] | None = None, prefix: str = PREFIX
    ) -> None:
        self._secret = secret
        self._script = RedisScript(url, "rate.lua", clock=clock, prefix=prefix, seconds=1.0, text=False)
        self._salt, self._salt_ends = b"", 0.0

    async def spend(self, charges: Sequence[Charge]) -> float:
        salt = await self._script.reach(self._fresh_salt)
        words = [self._script.now]
        for charge in charges:
            spent = math.ceil(charge.cost * charge.rate.interval)
            words += [bucket_name(self._secret, salt, charge), str(spent), "1" if charge.owed else ""]
        return int(await self._script.call(words)) / 1000

    async def close(self) -> None:
        await self._script.close()

    async def _fresh_salt(self) -> bytes:
        """The random part of the key that is in force; whoever finds none makes it. A day later it is gone,
        and in between it is asked for again each minute."""
        if time.monotonic() >= self._salt_ends:
            name, store = f"{self._script.prefix}:ratekey", self._script.redis
            await store.set(name, secrets.token_bytes(32), px=round(KEY_SECONDS * 1000), nx=True)
            salt, left = await store.get(name), await store.pttl(name)
            if not isinstance(salt, bytes) or left <= 0:
                raise RoomUnavailable
            self._salt, self._salt_ends = salt, time.monotonic() + min(left / 1000, SALT_SECONDS)
        return self._salt
