"""How often somebody may ask: GCRA (ITU-T I.371) with one number per bucket, as the waiting room keeps of an account.

A bucket lets `per_minute` requests come all at once and then one every `60 / per_minute` seconds. Its name in the
store is a keyed hash of whose it is. The key is made of the service's secret and of random bytes that only the store
holds and forgets after a day: a copy of the store says nothing without the secret, and the secret says nothing of
yesterday, for nobody can compute yesterday's names again. A bucket itself is forgotten as soon as it is full, within
two minutes.
"""

import hmac
import math
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

MINUTE = 60_000
#: The random part of the key lives so long.
KEY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests of one kind that one bucket allows. ``name`` separates the kinds."""

    name: str
    per_minute: int

    @property
    def interval(self) -> float:
        """Milliseconds that one request costs."""
        return MINUTE / self.per_minute


@dataclass(frozen=True, slots=True)
class Charge:
    """``cost`` requests of the bucket that ``owner`` (an account, an address) has for ``rate``. ``owed``: for something
    that has happened, so it is spent even if it doesn't fit, and waited for longer; down to a minute below empty."""

    rate: Rate
    owner: str
    cost: int = 1
    owed: bool = False


class RateStore(Protocol):
    """Where the buckets are. Belongs to one event loop; close it."""

    async def spend(self, charges: Sequence[Charge]) -> float:
        """Seconds until all of ``charges`` fit; 0 when they did and are spent. Either all are spent or none.

        Raises RoomUnavailable when the store is away.
        """

    async def close(self) -> None: ...


def bucket_name(secret: bytes, salt: bytes, charge: Charge) -> str:
    """The bucket's name: HMAC-SHA256 (RFC 2104), 32 hexadecimal digits."""
    key = hmac.digest(secret, b"nanoswap rate" + salt, sha256)
    return hmac.digest(key, f"{charge.rate.name}\0{charge.owner}".encode(), sha256).hex()[:32]


class MemoryRates:
    """The buckets of one process. ``clock`` gives ms."""

    def __init__(self, secret: bytes, *, clock: Callable[[], float] | None = None) -> None:
        self._secret, self._salt = secret, secrets.token_bytes(32)
        self._clock = clock or (lambda: time.monotonic() * 1000)
        self._full: dict[str, float] = {}

    async def spend(self, charges: Sequence[Charge]) -> float:
        now = self._clock()
        self._full = {name: full for name, full in self._full.items() if full > now}
        after: dict[str, float] = {}
        wait = 0.0
        for charge in charges:
            name = bucket_name(self._secret, self._salt, charge)
            full = max(now, after.get(name, self._full.get(name, now))) + math.ceil(charge.cost * charge.rate.interval)
            if charge.owed:
                full = min(full, now + 2 * MINUTE)
            else:
                wait = max(wait, full - now - MINUTE)
            after[name] = full
        if wait > 0:
            return wait / 1000
        self._full |= after
        return 0.0

    async def close(self) -> None:
        self._full.clear()
