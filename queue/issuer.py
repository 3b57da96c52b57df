"""The sign-in of a local run: an issuer that speaks to auth-js and supabase-py as Supabase Auth does.

It exists so that the same verification runs with no Supabase project, and for nothing else: it binds loopback only, has
one demo account whose password is public, signs with a key made at start and never written, and refuses to run where a
Supabase project is configured. ``python -m nanoswap.queue.issuer --port N --origin URL``.
"""

import argparse
import asyncio
import ctypes
import os
import secrets
import signal
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

DEMO_EMAIL = "demo@nanoswap.example"
DEMO_PASSWORD = "demo-demo"
LIFE_SECONDS = 3600
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_PR_SET_PDEATHSIG = 1


class IssuerRefused(RuntimeError):
    """The development issuer runs on loopback only, and never beside a Supabase project."""

    def __init__(self) -> None:
        super().__init__((type(self).__doc__ or "").strip())


def refuse_outside_development(host: str, environment: Mapping[str, str]) -> None:
    """Raises IssuerRefused unless ``host`` is loopback and no Supabase project is configured."""
    if host not in _LOOPBACK or environment.get("SUPABASE_URL"):
        raise IssuerRefused


class _Issuer:
    def __init__(self, url: str) -> None:
        self._url = url
        self._key = ECKey.generate_key("P-256", {"kid": secrets.token_hex(8), "use": "sig", "alg": "ES256"})
        self._user = str(uuid.uuid4())
        #: session id -> refresh token
        self._sessions: dict[str, str] = {}

    def routes(self) -> list[Route]:
        get, post = ["GET"], ["POST"]
        table = [
            ("/.well-known/jwks.json", self.jwks, get),
            ("/health", self.health, get),
            ("/settings", self.settings, get),
            ("/token", self.token, post),
            ("/user", self.user, get),
            ("/logout", self.logout, post),
            ("/signup", self.closed, post),
        ]
        return [Route(f"/auth/v1{path}", endpoint, methods=methods) for path, endpoint, methods in table]

    async def jwks(self, _: Request) -> Response:
        key = self._key.as_dict(private=False) | {"key_ops": ["verify"]}
        return JSONResponse({"keys": [key]}, headers={"Cache-Control": "public, max-age=600"})

    async def health(self, _: Request) -> Response:
        return JSONResponse({"name": "nanoswap development issuer"})

    async def settings(self, _: Request) -> Response:
        return JSONResponse({"external": {"email": True}, "disable_signup": True})

    async def closed(self, _: Request) -> Response:
        return _error(422, "signup_disabled")

    async def token(self, request: Request) -> Response:
        body = await _json(request)
        match request.query_params.get("grant_type"):
            case "password":
                given = (str(body.get("email", "")).lower(), str(body.get("password", "")))
                if given != (DEMO_EMAIL, DEMO_PASSWORD):
                    return _error(400, "invalid_credentials")
                return JSONResponse(self._session(str(uuid.uuid4())))
            case "refresh_token":
                token = str(body.get("refresh_token", ""))
                for session, refresh in self._sessions.items():
                    if secrets.compare_digest(refresh.encode(), token.encode()):
                        return JSONResponse(self._session(session))
                return _error(400, "refresh_token_not_found")
        return _error(400, "unsupported_grant_type")

    async def user(self, request: Request) -> Response:
        return JSONResponse(self._account()) if self._session_of(request) else _error(403, "session_not_found")

    async def logout(self, request: Request) -> Response:
        session = self._session_of(request)
        if session is None:
            return _error(403, "session_not_found")
        del self._sessions[session]
        return Response(status_code=204)

    def _session_of(self, request: Request) -> str | None:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        try:
            claims = jwt.decode(token, self._key, algorithms=["ES256"]).claims
        except Exception:  # whatever is wrong with it, it isn't a session
            return None
        session = claims.get("session_id")
        return session if claims.get("exp", 0) > time.time() and session in self._sessions else None

    def _session(self, session: str) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self._url,
            "aud": "authenticated",
            "role": "authenticated",
            "sub": self._user,
            "email": DEMO_EMAIL,
            "phone": "",
            "aal": "aal1",
            "amr": [{"method": "password", "timestamp": now}],
            "session_id": session,
            "is_anonymous": False,
            "iat": now,
            "exp": now + LIFE_SECONDS,
        }
        self._sessions[session] = secrets.token_urlsafe(16)
        return {
            "access_token": jwt.encode({"alg": "ES256", "kid": self._key.kid, "typ": "JWT"}, claims, self._key),
            "token_type": "bearer",
            "expires_in": LIFE_SECONDS,
            "expires_at": now + LIFE_SECONDS,
            "refresh_token": self._sessions[session],
            "user": self._account(),
        }

    def _account(self) -> dict[str, Any]:
        made = "2026-01-01T00:00:00Z"
        return {
            "id": self._user,
            "aud": "authenticated",
            "role": "authenticated",
            "email": DEMO_EMAIL,
            "app_metadata": {"provider": "email", "providers": ["email"]},
            "user_metadata": {},
            "identities": [],
            "is_anonymous": False,
            "created_at": made,
            "updated_at": made,
        }


def create_issuer(url: str, *, origins: Sequence[str]) -> Starlette:
    """The issuer as an ASGI application. ``url`` is its base, ending in ``/auth/v1``; ``origins`` may call it."""
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        max_age=600,
    )
    return Starlette(routes=_Issuer(url).routes(), middleware=[cors])


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _error(status: int, code: str) -> Response:
    return JSONResponse({"code": status, "error_code": code, "msg": code.replace("_", " ")}, status)


async def _end_with_parent(server: uvicorn.Server) -> None:
    parent = os.getppid()
    while os.getppid() == parent:
        await asyncio.sleep(0.5)
    server.should_exit = True


async def _serve(port: int, origins: Sequence[str]) -> None:
    app = create_issuer(f"http://127.0.0.1:{port}/auth/v1", origins=origins)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", loop="asyncio"))
    watch = asyncio.create_task(_end_with_parent(server))
    await server.serve()
    watch.cancel()


def main() -> None:
    parser = argparse.ArgumentParser(description="Nanoswap's development sign-in, loopback only.")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--origin", action="append", default=[])
    arguments = parser.parse_args()
    refuse_outside_development("127.0.0.1", os.environ)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    asyncio.run(_serve(arguments.port, arguments.origin))


if __name__ == "__main__":
    main()
