"""The signing keys of the auth service, kept so that nobody waits for them and nobody can make us fetch them at will.

Keys are fetched once for any number of callers at once, renewed in the background at half their life, and used for up
to an hour when the auth service is away. An unknown key id leads to one fetch per cool-down, however many carry one.
Only keys that we would verify with are kept: one of another type in the set does no harm.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx

log = logging.getLogger(__name__)

#: Supabase's edge caches its keys for 600 s; so do we (RFC 7517 leaves it to the parties).
TTL_SECONDS = 600.0
STALE_SECONDS = 3600.0
COOL_DOWN_SECONDS = 30.0
FIRST_SECONDS = 2.0
TIMEOUT_SECONDS = 5.0
MAX_BYTES = 65_536
MAX_KEYS = 32

Key = Mapping[str, Any]


class JwksUnavailable(Exception):
    """The auth service's keys can't be had."""


class JwksStore:
    """Keys of one JWKS address. ``clock`` is monotonic seconds; ``http`` is closed by ``close``."""

    def __init__(
        self, url: str, *, http: httpx.AsyncClient | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = url
        self._http = http or httpx.AsyncClient(timeout=TIMEOUT_SECONDS, follow_redirects=False)
        self._clock = clock
        self._keys: dict[str, Key] = {}
        self._fetched: float | None = None
        self._tried: float | None = None
        #: Since when nothing newer could be had: when the keys in use were fetched, else the first try.
        self._failing: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    async def key(self, kid: str) -> Key | None:
        """The key with this id, None if the auth service has no such key. Raises JwksUnavailable without any keys."""
        age = self.age
        if age is None or age > TTL_SECONDS + STALE_SECONDS:
            self._keys = {}
            await self._fetch()
            if self._fetched is None or self._clock() - self._fetched > TTL_SECONDS + STALE_SECONDS:
                raise JwksUnavailable
        elif age > TTL_SECONDS and self._may_try():
            await self._fetch()  # a revoked key must go; when nobody answers, the old keys serve on
        elif age > TTL_SECONDS / 2 and self._may_try():
            self._start()  # in the background: the present keys are still good
        if kid not in self._keys and self._may_try():
            await self._fetch()
        return self._keys.get(kid)

    @property
    def age(self) -> float | None:
        """Seconds since the keys were fetched; None without any."""
        return None if self._fetched is None else self._clock() - self._fetched

    @property
    def overdue(self) -> float | None:
        """Seconds since the keys in use were fetched (or first asked for) if the last try failed, 0.0 if it didn't;
        None before the first."""
        if self._failing is not None:
            return self._clock() - self._failing
        return None if self._fetched is None else 0.0

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)
        await self._http.aclose()

    def _may_try(self) -> bool:
        # Who has no keys at all refuses everybody, so the auth service's return is found soon.
        pause = COOL_DOWN_SECONDS if self._keys else FIRST_SECONDS
        return self._tried is None or self._clock() - self._tried >= pause

    def _start(self) -> "asyncio.Task[None]":
        if self._fetching is None or self._fetching.done():
            self._tried = self._clock()
            self._fetching = asyncio.create_task(self._load(), name="jwks")
        return self._fetching

    async def _fetch(self) -> None:
        """Wait for the one fetch that is under way, or start it. A caller who gives up doesn't end it for others."""
        running = self._fetching is not None and not self._fetching.done()
        if running or self._may_try():
            await asyncio.shield(self._start())

    async def _load(self) -> None:
        try:
            async with self._http.stream("GET", self._url) as answer:
                answer.raise_for_status()
                body = b""
                async for chunk in answer.aiter_bytes():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise ValueError("too long")
            keys = httpx.Response(200, content=body).json()["keys"]
            self._keys = {key["kid"]: key for key in keys[:MAX_KEYS] if usable(key)}
            self._fetched = self._clock()
            self._failing = None
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            if self._failing is None:
                self._failing = self._clock() if self._fetched is None else self._fetched
            log.warning("signing keys not fetched: %s", type(error).__name__)


def usable(key: object) -> bool:
    """True for a public key that may verify ES256 or RS256 (RFC 7517 sections 4.1-4.4, RFC 7518 section 6)."""
    if not isinstance(key, Mapping) or not isinstance(key.get("kid"), str):
        return False
    if key.get("use") not in (None, "sig") or "verify" not in key.get("key_ops", ["verify"]):
        return False
    match key.get("kty"), key.get("alg"):
        case "EC", None | "ES256":
            return key.get("crv") == "P-256" and isinstance(key.get("x"), str) and isinstance(key.get("y"), str)
        case "RSA", None | "RS256":
            return isinstance(key.get("n"), str) and isinstance(key.get("e"), str)
    return False
