"""Rate limits: of an address before anything else is done, of an account as soon as it is known.

They keep one person from taking the service from others by asking too often; who may swap next is the waiting room's
business. All are so many a minute, at once if somebody likes (``queue/rate.py``). A page that waits asks some twenty
times a minute, so a class of thirty behind one address fits twice into its 1200. A request that ends in 401 costs its
address ten: guessing tokens is what a stranger does. Files of the page cost nothing, they are bytes in memory.

When the store is away everybody is let through: a turn needs the store anyway, what doesn't is cheap or bounded by a
semaphore, and a page that says "too many requests" to everybody would be a lie. Only ``Retry-After`` is sent with a
refusal: the RateLimit fields are a draft whose syntax has changed three times.
"""

import logging
from collections.abc import Sequence

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanoswap.queue.rate import Charge, Rate, RateStore
from nanoswap.queue.room import RoomUnavailable
from nanoswap.serve.client_address import client_address
from nanoswap.serve.problems import Problem
from nanoswap.serve.settings import Settings

log = logging.getLogger(__name__)

#: What a request without a good session costs its address, in requests.
STRANGER_COST = 10


class RateLimits:
    """The limits of the settings over one store. ``store`` None, or a rate of 0: nobody counts."""

    def __init__(self, settings: Settings, store: RateStore | None) -> None:
        self._store, self._away = store, False
        self._proxies = settings.trusted_proxies
        self._address = Rate("address", settings.rate_address)
        self._account = Rate("account", settings.rate_account)
        self._costly = {"tickets": Rate("tickets", settings.rate_tickets), "faces": Rate("faces", settings.rate_faces)}

    async def of_address(self, scope: Scope) -> None:
        """Charge the address of a request. Raises Problem ``too_many_requests``."""
        await self._spend([Charge(self._address, client_address(scope, self._proxies))])

    async def of_stranger(self, scope: Scope) -> None:
        """Charge the address for a request that had no good session, on top."""
        await self._spend([Charge(self._address, client_address(scope, self._proxies), STRANGER_COST - 1, owed=True)])

    async def of_account(self, account: str, costly: str | None = None) -> None:
        """Charge an account for a request; ``costly``: tickets or faces, which have limits of their own.

        Raises Problem ``too_many_requests``.
        """
        rates = [self._account] if costly is None else [self._account, self._costly[costly]]
        await self._spend([Charge(rate, account) for rate in rates])

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    async def _spend(self, charges: Sequence[Charge]) -> None:
        counted = [charge for charge in charges if charge.rate.per_minute]
        if self._store is None or not counted:
            return
        try:
            wait = await self._store.spend(counted)
        except RoomUnavailable:
            if not self._away:
                # Once, not per request: the file of a replica's log has no end.
                log.warning("requests not counted: the store is away")
            self._away = True
            return
        self._away = False
        if wait:
            raise Problem("too_many_requests", retry_after=wait)


class AddressLimit:
    """The ASGI layer that charges addresses. Requests for pages and for ``/healthz`` pass."""

    def __init__(self, app: ASGIApp, limits: RateLimits) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not ("/v1/" in scope["path"] or scope["path"] == "/readyz"):
            await self._app(scope, receive, send)
            return
        try:
            await self._limits.of_address(scope)
        except Problem as problem:
            await problem.response()(scope, receive, send)
            return
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        await self._app(scope, receive, watched)
        if status == 401:
            await self._limits.of_stranger(scope)
