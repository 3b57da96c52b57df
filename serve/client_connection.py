"""The client's way to the service: signed requests, repeated where repeating is safe, with typed failures."""

import asyncio
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx

from nanoswap.serve.client_errors import RequestError, SessionError, Unavailable, problem, retry_after

#: Statuses after which the same request may succeed.
_AGAIN = frozenset({408, 429, 500, 502, 503, 504})
_TRIES = 5
_BASE_SECONDS, _CAP_SECONDS = 0.2, 10.0


class Connection:
    """One service, one person. ``token``: an access token, or a function that returns a fresh one."""

    def __init__(self, url: str, token: str | Callable[[], str]) -> None:
        self.url = _address(url)
        self.token = token
        limits = httpx.Timeout(10.0, read=60.0, write=60.0)
        self.http = httpx.AsyncClient(base_url=self.url, timeout=limits, follow_redirects=False)

    async def json(self, method: str, path: str, *, signed: bool = True, **request: Any) -> dict[str, Any]:
        """The JSON object of a successful answer. Raises a NanoswapError for any other."""
        headers = (self.signed() if signed else {}) | request.pop("headers", {})
        answer = await self.send(method, path, headers=headers, **request)
        if not answer.is_success:
            raise problem(answer)
        return json_object(answer)

    async def send(self, method: str, path: str, **request: Any) -> httpx.Response:
        """Send a request that may be repeated, and repeat it: Retry-After, else jitter. Returns the last answer."""
        for attempt in range(1, _TRIES + 1):
            wait: float | None = None
            try:
                answer = await self.http.request(method, path, **request)
                if answer.status_code not in _AGAIN or attempt == _TRIES:
                    return answer
                wait = retry_after(answer)
                if wait is not None and wait > _CAP_SECONDS:
                    return answer
            except httpx.TransportError as error:
                if attempt == _TRIES:
                    reason = type(error).__name__
                    raise Unavailable("unreachable", f"{self.url} can't be reached ({reason}).") from None
            await asyncio.sleep(pause(attempt) if wait is None else wait)
        raise AssertionError("unreachable")

    def signed(self) -> dict[str, str]:
        """The Authorization header. Raises SessionError when there is no token."""
        token = self.token() if callable(self.token) else self.token
        if not token.isascii() or not token.isprintable():
            raise SessionError("session_malformed", "The access token has characters that no token has.")
        if not token:
            raise SessionError("session_missing", "Sign in first: give a token, or set NANOSWAP_TOKEN.")
        return {"Authorization": f"Bearer {token}"}


def _address(url: str) -> str:
    try:
        parts = urlsplit(url)
        whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        whole = False
    if not whole:
        raise RequestError("bad_address", "The address of the service must be like https://HOST or http://HOST:PORT.")
    return url.rstrip("/")


def json_object(answer: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; a sign-in portal or a proxy may have put something else in its place."""
    try:
        return dict(answer.json())
    except (ValueError, TypeError):
        raise Unavailable("unexpected", "What answered is not a Nanoswap service.") from None


def pause(attempt: int) -> float:
    """Exponential back-off with full jitter."""
    return random.uniform(0, min(_CAP_SECONDS, _BASE_SECONDS * 2**attempt))
