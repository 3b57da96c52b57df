"""What both HTTP applications share: problems as answers, security headers, and who is asking."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Header
from starlette.types import ASGIApp

from nanoswap import __version__
from nanoswap.queue.room import WaitingRoom
from nanoswap.queue.session import Session, SessionRevoked, Sessions
from nanoswap.serve import problems
from nanoswap.serve.body_limit import BodyLimit
from nanoswap.serve.containment import Containment
from nanoswap.serve.headers import SecurityHeaders
from nanoswap.serve.meter import Meter
from nanoswap.serve.problems import Problem
from nanoswap.serve.rate_limits import AddressLimit, RateLimits
from nanoswap.serve.requests import CountRequests
from nanoswap.serve.settings import Settings


class _Application(FastAPI):
    """Puts three layers outside of everything: the framework answers what nobody foresaw from its outermost layer, and
    raises it again, beyond any middleware that it is given."""

    auth_origin = ""
    meter: Meter
    prefix = ""

    def build_middleware_stack(self) -> ASGIApp:
        answering = SecurityHeaders(Containment(super().build_middleware_stack()), self.auth_origin)
        return CountRequests(answering, self.meter, self.prefix)


def application(
    title: str,
    settings: Settings,
    limits: RateLimits,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
    *,
    small_bodies: bool = False,
    meter: Meter,
    prefix: str = "",
    keys_overdue: Callable[[], float | None],
) -> FastAPI:
    """An application without endpoints. It closes ``limits`` and ``meter`` when it stops. ``small_bodies``: see
    BodyLimit; ``prefix``: see CountRequests; ``keys_overdue``: see Meter.

    The OpenAPI document is ours (``schema.py``), so FastAPI's own is off.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with meter.running(keys_overdue), lifespan(app):
            yield
        await limits.close()

    app = _Application(title=title, version=__version__, lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    app.auth_origin = settings.auth_origin
    app.meter, app.prefix = meter, prefix
    problems.install(app)
    if small_bodies:
        app.add_middleware(BodyLimit)
    # Added last, so it is asked first.
    app.add_middleware(AddressLimit, limits=limits)
    return app


def signed_in(
    sessions: Sessions, room: WaitingRoom, limits: RateLimits, costly: str | None = None
) -> Callable[[str], Coroutine[Any, Any, Session]]:
    """A dependency that verifies the access token of a request, and that its account wasn't erased since, and charges
    the account. ``costly``: see RateLimits.

    It is also what keeps other sites' pages out: a browser adds no Authorization header by itself, and asks this
    service's leave (a CORS preflight, never given) before it lets a foreign page add one.
    """

    async def session(authorization: Annotated[str, Header(include_in_schema=False)] = "") -> Session:
        who = await sessions.verify(bearer(authorization))
        await limits.of_account(who.account, costly)
        if await room.denied(who.account, who.issued_at):
            raise SessionRevoked
        return who

    return session


def bearer(authorization: str) -> str:
    """The token of an Authorization header. Raises Problem ``session_missing``."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Problem("session_missing", "Send 'Authorization: Bearer ACCESS_TOKEN'.")
    return token.strip()
