"""The headers that every answer carries, as a plain ASGI layer.

The page's policy allows scripts and styles from this origin only and turns on Trusted Types, so an injected string
can't become code. The one foreign address it may call is the auth service, which differs between deployments.
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

#: The same on every answer. The edge sends them too, with answers of its own.
STATIC = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=(), browsing-topics=()",
    "Referrer-Policy": "no-referrer",
    "Strict-Transport-Security": "max-age=63072000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
}


def content_security_policy(auth_origin: str) -> str:
    """The page's policy; ``auth_origin`` is where it signs in."""
    return "; ".join(
        [
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self' blob: data:",
            "media-src 'self' blob:",
            f"connect-src 'self' {auth_origin}",
            "manifest-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
        ]
    )


class SecurityHeaders:
    """Adds the headers to every HTTP response that doesn't set them itself."""

    def __init__(self, app: ASGIApp, auth_origin: str) -> None:
        self._app = app
        headers = STATIC | {"Content-Security-Policy": content_security_policy(auth_origin)}
        self._headers = [(name.lower().encode(), value.encode()) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                message["headers"] = [*message["headers"], *(h for h in self._headers if h[0] not in present)]
            await send(message)

        await self._app(scope, receive, send_with_headers)
