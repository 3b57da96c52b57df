"""An auth service with as many accounts as a crowd needs, and that can be away: it publishes its key, and knows people.

People of the development issuer are one person, and the room would rightly give that one a tenth of a GPU. Here a
token for any account is signed on the spot, with the key that the real verifier fetches over HTTP.
"""

import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from joserfc import jwk, jwt
from joserfc.errors import JoseError

LIFE_SECONDS = 7200


class AuthService:
    """``with AuthService() as auth:``; ``auth.url`` is its address, ``stop`` and ``start`` take it away and back."""

    def __init__(self) -> None:
        self._key = jwk.ECKey.generate_key("P-256", {"kid": uuid.uuid4().hex, "use": "sig", "alg": "ES256"})
        self._port = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/auth/v1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Answer, on the same port as before. Does nothing where it already does."""
        if self._server is None:
            self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
            self._port = self._server.server_port
            threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def token(self) -> str:
        """An access token of somebody new."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": "authenticated",
            "role": "authenticated",
            "sub": str(uuid.uuid4()),
            "session_id": str(uuid.uuid4()),
            "is_anonymous": False,
            "iat": now,
            "exp": now + LIFE_SECONDS,
        }
        return jwt.encode({"alg": "ES256", "kid": self._key.kid, "typ": "JWT"}, claims, self._key)

    def user(self, authorization: str) -> tuple[int, bytes]:
        """What Supabase Auth answers about the session of a token: status and body."""
        try:
            claims = jwt.decode(authorization.removeprefix("Bearer "), self._key, algorithms=["ES256"]).claims
        except (JoseError, ValueError):
            return 403, json.dumps({"code": 403, "error_code": "bad_jwt", "msg": "invalid JWT"}).encode()
        made = "2026-01-01T00:00:00Z"
        account = {"id": claims["sub"], "aud": "authenticated", "app_metadata": {}, "user_metadata": {}}
        return 200, json.dumps(account | {"created_at": made}).encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self
        keys = json.dumps({"keys": [self._key.as_dict(private=False)]}).encode()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path.endswith("/.well-known/jwks.json"):
                    self.answer(200, keys)
                elif self.path.endswith("/user"):
                    self.answer(*service.user(self.headers.get("Authorization", "")))
                else:
                    self.answer(404, b"{}")

            def answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        return Handler
