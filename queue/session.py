"""Who is asking: Supabase access tokens, verified here, without asking anybody for every request.

``supabase``'s own ``get_claims`` checks the signature and the expiry, no more: it takes any issuer and audience,
fetches keys for every unknown key id, goes to the network for a token without one, and reads an empty token as its own
session. So it is called behind this guard, which looks at everything else first, and with the one key that the guard
chose. It is then pure computation.

A signed-out, deleted or banned person keeps a valid token until it expires. ``confirm`` asks the auth service, once a
minute per session at most, and is used where it matters: when a place in line is taken.

    InvalidSession                 401
    ├── SessionMalformed           session_malformed
    ├── SessionExpired             session_expired
    ├── SessionUntrusted           session_untrusted
    └── SessionRevoked             session_revoked
    SessionsUnavailable            503, session_unavailable
"""

import asyncio
import base64
import binascii
import json
import logging
import math
import re
import time
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, cast

import httpx
from pydantic import ValidationError
from supabase_auth import AsyncGoTrueClient
from supabase_auth.errors import AuthApiError, AuthError
from supabase_auth.types import JWKSet

from nanoswap.queue.account import Accounts
from nanoswap.queue.jwks import JwksStore, JwksUnavailable

log = logging.getLogger(__name__)

#: Before anything is parsed; Supabase's tokens are about 800 bytes.
MAX_TOKEN_LENGTH = 4096
LEEWAY_SECONDS = 30
#: No honest access token lives longer than a day (Supabase: 1 h by default, 1 week at most is not for us).
MAX_LIFE_SECONDS = 86_400
CONFIRM_SECONDS = 60.0
MAX_CONFIRMED = 10_000
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_KEY_TYPES = {"ES256": "EC", "RS256": "RSA"}


class InvalidSession(Exception):
    """This is not a session."""

    code: ClassVar[str]

    def __init__(self) -> None:
        super().__init__((type(self).__doc__ or "").strip())


class SessionMalformed(InvalidSession):
    """The access token can't be read."""

    code = "session_malformed"


class SessionExpired(InvalidSession):
    """The session has expired: refresh it or sign in again."""

    code = "session_expired"


class SessionUntrusted(InvalidSession):
    """The access token was not issued for this service."""

    code = "session_untrusted"


class SessionRevoked(InvalidSession):
    """The session was ended: sign in again."""

    code = "session_revoked"


class SessionsUnavailable(Exception):
    """Sessions can't be checked right now."""


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in: all that the service needs of them. Times are seconds since the epoch."""

    account: str
    session_id: str
    expires_at: int
    anonymous: bool
    #: When the token was issued. Unknown counts as the earliest: after the account was erased such a token is refused.
    issued_at: int = 0


class Sessions:
    """Verifies tokens of one auth service. Belongs to one event loop; close it."""

    def __init__(
        self,
        url: str,
        issuer: str,
        accounts: Accounts,
        *,
        audience: str = "authenticated",
        allow_anonymous: bool = False,
        api_key: str | None = None,
        jwks: JwksStore | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        for name in ("httpx", "httpcore", "hpack", "h2"):
            # At DEBUG some of them write request headers, the API key among them.
            logging.getLogger(name).setLevel(logging.WARNING)
        self._issuer = issuer
        self._audience = audience
        self._allow_anonymous = allow_anonymous
        self._accounts = accounts
        self._clock = clock
        self._jwks = jwks or JwksStore(f"{url}/.well-known/jwks.json")
        self._http = httpx.AsyncClient(timeout=5.0, follow_redirects=False)
        self._auth = AsyncGoTrueClient(
            url=url,
            headers={"apikey": api_key} if api_key else {},
            auto_refresh_token=False,
            persist_session=False,
            http_client=self._http,
        )
        self._confirmed: OrderedDict[str, float] = OrderedDict()
        self._asking: dict[str, asyncio.Task[bool]] = {}

    @property
    def keys_overdue(self) -> float | None:
        """How long the auth service's keys could not be renewed; see `JwksStore.overdue`."""
        return self._jwks.overdue

    async def verify(self, token: str) -> Session:
        """The session of an access token. Raises an InvalidSession, or SessionsUnavailable without any keys."""
        header, claims = _read(token)
        if header.get("alg") not in _KEY_TYPES or "crit" in header or not isinstance(header.get("kid"), str):
            raise SessionUntrusted
        self._check_claims(claims)
        try:
            key = await self._jwks.key(header["kid"])
        except JwksUnavailable:
            raise SessionsUnavailable from None
        if key is None or key.get("kty") != _KEY_TYPES[header["alg"]]:
            raise SessionUntrusted
        await self._check_signature(token, key)
        return Session(
            account=self._accounts.of(claims["sub"]),
            session_id=claims["session_id"],
            expires_at=int(claims["exp"]),
            anonymous=claims.get("is_anonymous") is True,
            issued_at=int(claims["iat"]),
        )

    async def confirm(self, token: str, session: Session) -> None:
        """Ask the auth service whether a verified session still stands. Raises SessionRevoked.

        Answers are believed for a minute and forgotten with the next one after it. When the auth service is away, the
        verified token is enough.
        """
        known = self._confirmed.get(session.session_id)
        if known is not None and self._clock() - known < CONFIRM_SECONDS:
            return
        asking = self._asking.get(session.session_id)
        if asking is None:
            asking = asyncio.create_task(self._ask(token), name="confirm session")
            self._asking[session.session_id] = asking
            asking.add_done_callback(lambda _: self._asking.pop(session.session_id, None))
        if not await asyncio.shield(asking):
            self._confirmed.pop(session.session_id, None)
            raise SessionRevoked
        self._confirmed[session.session_id] = self._clock()
        self._confirmed.move_to_end(session.session_id)
        lapsed = self._clock() - CONFIRM_SECONDS
        while len(self._confirmed) > MAX_CONFIRMED or next(iter(self._confirmed.values()), math.inf) <= lapsed:
            self._confirmed.popitem(last=False)

    async def close(self) -> None:
        await self._jwks.close()
        await self._http.aclose()

    def _check_claims(self, claims: Mapping[str, Any]) -> None:
        now = self._clock()
        exp, iat, nbf = (_time(claims.get(name)) for name in ("exp", "iat", "nbf"))
        if exp is None or iat is None or ("nbf" in claims and nbf is None):
            raise SessionMalformed
        if exp <= now:
            raise SessionExpired
        if claims.get("iss") != self._issuer or claims.get("aud") != self._audience:
            raise SessionUntrusted
        # Tokens for other people's applications (OAuth server) are not sessions of ours.
        if claims.get("role") != "authenticated" or "client_id" in claims:
            raise SessionUntrusted
        if max(iat, nbf or 0) > now + LEEWAY_SECONDS or exp - iat > MAX_LIFE_SECONDS:
            raise SessionUntrusted
        if claims.get("is_anonymous") not in (None, False) and not self._allow_anonymous:
            raise SessionUntrusted
        if not (_is_uuid(claims.get("sub")) and _is_uuid(claims.get("session_id"))):
            raise SessionMalformed

    async def _check_signature(self, token: str, key: Mapping[str, Any]) -> None:
        try:
            verified = await self._auth.get_claims(token, cast("JWKSet", {"keys": [dict(key)]}))
        except (AuthError, ValidationError, ValueError, TypeError, KeyError):
            verified = None
        except Exception as error:
            # PyJWT and cryptography raise their own; whatever it is, this token isn't verified.
            log.warning("signature not checked: %s", type(error).__name__)
            verified = None
        if verified is None:
            raise SessionUntrusted

    async def _ask(self, token: str) -> bool:
        """False when the auth service says that the session is over; True when it stands or nobody can be asked."""
        assert token, "an empty token would ask about the client's own session"
        try:
            answer = await self._auth.get_user(token)
        except AuthApiError as error:
            if error.status in (401, 403, 404):
                return False
            log.warning("session not confirmed: status %s", error.status)
            return True
        except (AuthError, httpx.HTTPError) as error:
            log.warning("session not confirmed: %s", type(error).__name__)
            return True
        return answer is not None


def _read(token: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, unverified. Raises SessionMalformed."""
    if len(token) > MAX_TOKEN_LENGTH or not _TOKEN.fullmatch(token):
        raise SessionMalformed
    header, payload, signature = token.split(".")
    try:
        _decode(signature)
        parts = [json.loads(_decode(part)) for part in (header, payload)]
    except (ValueError, binascii.Error, RecursionError):
        raise SessionMalformed from None
    if not all(isinstance(part, dict) for part in parts):
        raise SessionMalformed
    return parts[0], parts[1]


def _decode(part: str) -> bytes:
    """Strict base64url without padding (RFC 7515 section 2): one spelling per value."""
    data = base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != part:
        raise ValueError("not canonical")
    return data


def _time(value: object) -> int | None:
    """A NumericDate (RFC 7519 section 2) of whole seconds, as Supabase writes it; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40 else None


def _is_uuid(value: object) -> bool:
    try:
        return isinstance(value, str) and str(uuid.UUID(value)) == value.lower()
    except ValueError:
        return False
