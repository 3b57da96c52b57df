"""What both HTTP applications share: problems as answers, security headers, and who is asking."""

from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Header

from nanoswap import __version__
from nanoswap.queue.session import Session, Sessions
from nanoswap.serve import problems
from nanoswap.serve.containment import Containment
from nanoswap.serve.headers import SecurityHeaders
from nanoswap.serve.problems import Problem
from nanoswap.serve.rate_limits import AddressLimit, RateLimits
from nanoswap.serve.settings import Settings


def application(
    title: str,
    settings: Settings,
    limits: RateLimits,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]],
) -> FastAPI:
    """An application without endpoints. It closes ``limits`` when it stops.

    The OpenAPI document is ours (``schema.py``), so FastAPI's own is off.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        async with lifespan(app):
            yield
        await limits.close()

    app = FastAPI(title=title, version=__version__, lifespan=life, docs_url=None, redoc_url=None, openapi_url=None)
    problems.install(app)
    app.add_middleware(AddressLimit, limits=limits)
    # Outermost: a refusal carries the headers too.
    app.add_middleware(Containment)
    app.add_middleware(SecurityHeaders, auth_origin=settings.auth_origin)
    return app


def signed_in(
    sessions: Sessions, limits: RateLimits, costly: str | None = None
) -> Callable[[str], Coroutine[Any, Any, Session]]:
    """A dependency that verifies the access token of a request and charges its account. ``costly``: see RateLimits."""

    async def session(authorization: Annotated[str, Header(include_in_schema=False)] = "") -> Session:
        who = await sessions.verify(bearer(authorization))
        await limits.of_account(who.account, costly)
        return who

    return session


def bearer(authorization: str) -> str:
    """The token of an Authorization header. Raises Problem ``session_missing``."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Problem("session_missing", "Send 'Authorization: Bearer ACCESS_TOKEN'.")
    return token.strip()
