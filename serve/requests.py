"""Counts every answer by its address's template and its status, as the outermost ASGI layer.

Never by the path: that has ids of tickets in it, and whatever somebody cares to ask for. The router leaves the route
that it found in the scope; where it found none, or was not asked, there is nothing to say.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanoswap.serve.meter import Meter
from nanoswap.serve.metrics import PAGE, REQUESTS, ROUTES, UNANSWERED, UNROUTED
from nanoswap.serve.site import PAGES


class CountRequests:
    """``prefix``: the application's, as in ROUTES (``/image``), empty for the gateway."""

    def __init__(self, app: ASGIApp, meter: Meter, prefix: str) -> None:
        self._app, self._meter, self._prefix = app, meter, prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = UNANSWERED

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            self._meter.count(REQUESTS, self._route(scope), status)

    def _route(self, scope: Scope) -> str:
        route = getattr(scope.get("route"), "path", None)
        if route is None:
            return UNROUTED
        template = f"{self._prefix}{route}"
        # Files of the page are many, come and go with it, and are all the same to an operator.
        return PAGE if template not in ROUTES and (route in PAGES or route.startswith("/web/")) else template
