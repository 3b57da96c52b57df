"""How large a body the gateway reads: some kilobytes, before anybody looks at it.

A framework that parses JSON reads the whole body first and asks who it is from afterwards, so without this layer a
stranger could have this process hold as much as they like to send. What comes here is a place in line or the id of an
account, a few hundred bytes; the rest is refused by its stated length, or, where none is stated, as soon as it is more.
A body within the limit goes on in one piece. Pictures go to the replicas, which have limits of their own
(``upload.py``).
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from nanoswap.serve.problems import Problem

MAX_BODY_BYTES = 16 * 2**10


class BodyLimit:
    """The ASGI layer that answers 413 ``too_large`` (RFC 9110, 15.5.14) in place of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        whole = None if _stated_too_large(scope) else await _read(receive)
        if whole is None:
            await Problem("too_large", f"This address takes {MAX_BODY_BYTES} bytes.").response()(scope, receive, send)
            return
        waiting = [whole]

        async def once() -> Message:
            return waiting.pop() if waiting else await receive()

        await self._app(scope, once, send)


def _stated_too_large(scope: Scope) -> bool:
    stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    # A number of so many digits is too large, and Python would not read one of thousands.
    return stated.isdigit() and (len(stated) > 12 or int(stated) > MAX_BODY_BYTES)


async def _read(receive: Receive) -> Message | None:
    """The whole body as one message, or that the client has gone; None when it is too large."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return message
        body += message.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            return None
        if not message.get("more_body", False):
            return {"type": "http.request", "body": bytes(body), "more_body": False}
