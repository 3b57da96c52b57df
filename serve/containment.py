"""The last place an unforeseen exception reaches: it becomes an answer here and goes no further.

Starlette answers such an exception and then raises it again, and each server above writes it down with its message
(Ray's three times). Its class and place are logged, the person is told ``internal``, and when the head of an answer
has already left, the connection is cut by an answer without an end.
"""

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanoswap.serve.log_records import place
from nanoswap.serve.problems import Problem

log = logging.getLogger(__name__)


class Containment:
    """The outermost layer of an application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            log.error("unforeseen %s", place(error))
            if not begun:
                await Problem("internal").response()(scope, receive, send)
