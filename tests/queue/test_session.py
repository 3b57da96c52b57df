"""Every attack token, through the real verifier and a real key server over HTTP."""

import asyncio
import base64
import hmac
import json
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from joserfc import jwk, jwt
from joserfc.jws import JWSRegistry

from nanoswap.queue.account import Accounts
from nanoswap.queue.jwks import COOL_DOWN_SECONDS, FIRST_SECONDS, STALE_SECONDS, TTL_SECONDS, JwksStore
from nanoswap.queue.session import (
    MAX_TOKEN_LENGTH,
    InvalidSession,
    SessionExpired,
    SessionMalformed,
    SessionRevoked,
    Sessions,
    SessionsUnavailable,
    SessionUntrusted,
)

ALGORITHMS = ["ES256", "RS256", "HS256", "EdDSA", "Ed25519", "PS256", "none"]
SUB = "0f0e0d0c-0b0a-4908-8706-050403020100"


class Issuer:
    """A small auth server: it serves what it is told to and counts what it is asked."""

    def __init__(self) -> None:
        self.es = jwk.ECKey.generate_key("P-256", {"kid": "es", "use": "sig", "alg": "ES256"})
        self.rs = jwk.RSAKey.generate_key(2048, {"kid": "rs", "use": "sig", "alg": "RS256"})
        self.keys: list[dict[str, Any]] = [self.es.as_dict(private=False), self.rs.as_dict(private=False)]
        self.up = True
        self.user_status = 200
        self.asked: list[str] = []
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path.rsplit("/", 1)[-1])
                if not issuer.up:
                    self.send_error(503)
                    return
                if self.path.endswith("jwks.json"):
                    self.answer(200, {"keys": issuer.keys})
                else:
                    made = "2026-01-01T00:00:00Z"
                    user = {
                        "id": SUB,
                        "aud": "authenticated",
                        "app_metadata": {},
                        "user_metadata": {},
                        "created_at": made,
                    }
                    failed = {"code": issuer.user_status, "error_code": "session_not_found", "msg": "no session"}
                    self.answer(issuer.user_status, user if issuer.user_status == 200 else failed)

            def answer(self, status: int, body: object) -> None:
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/auth/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def claims(self, **changes: Any) -> dict[str, Any]:
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": "authenticated",
            "role": "authenticated",
            "sub": SUB,
            "session_id": "11111111-2222-4333-8444-555555555555",
            "iat": now,
            "exp": now + 3600,
            "email": "somebody@example.com",
            "is_anonymous": False,
        } | changes
        return {name: value for name, value in claims.items() if value is not ...}

    def token(self, key: Any = None, header: dict[str, Any] | None = None, **changes: Any) -> str:
        signing = key or self.es
        algorithm = {"EC": "ES256", "RSA": "RS256", "oct": "HS256", "OKP": "Ed25519"}[signing.key_type]
        head = {"alg": algorithm, "kid": signing.kid, "typ": "JWT"} | (header or {})
        head = {name: value for name, value in head.items() if value is not ...}
        registry = JWSRegistry(algorithms=ALGORITHMS, strict_check_header=False)
        return jwt.encode(head, self.claims(**changes), signing, registry=registry)

    def sessions(self, **options: Any) -> Sessions:
        return Sessions(self.url, self.url, Accounts(b"k" * 32), **options)

    def fetches(self) -> int:
        return self.asked.count("jwks.json")


@pytest.fixture(scope="module")
def shared() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.server.shutdown()
    issuer.server.server_close()


@pytest.fixture
def issuer(shared: Issuer) -> Issuer:
    shared.up, shared.user_status = True, 200
    shared.keys = [shared.es.as_dict(private=False), shared.rs.as_dict(private=False)]
    shared.asked.clear()
    return shared


def raw(part: object) -> str:
    data = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


async def verify(issuer: Issuer, token: str, **options: Any) -> Any:
    sessions = issuer.sessions(**options)
    try:
        return await sessions.verify(token)
    finally:
        await sessions.close()


async def test_honest_tokens_are_accepted_and_carry_no_identity(issuer: Issuer) -> None:
    for key in (issuer.es, issuer.rs):
        session = await verify(issuer, issuer.token(key))
        assert session.account == Accounts(b"k" * 32).of(SUB)
        assert SUB not in repr(session)
        assert "somebody" not in repr(session)
    assert "user" not in issuer.asked, "verification asked the auth server about the person"


async def test_anonymous_only_where_allowed(issuer: Issuer) -> None:
    token = issuer.token(is_anonymous=True)
    with pytest.raises(SessionUntrusted):
        await verify(issuer, token)
    assert (await verify(issuer, token, allow_anonymous=True)).anonymous


def untrusted(issuer: Issuer) -> dict[str, str]:
    """Well-formed tokens that must not be believed."""
    other = jwk.ECKey.generate_key("P-256", {"kid": "es"})
    ed = jwk.OKPKey.generate_key("Ed25519", {"kid": "ed"})
    default = jwk.OctKey.import_key("super-secret-jwt-token-with-at-least-32-characters-long", {"kid": "es"})
    confused = f"{raw({'alg': 'HS256', 'kid': 'es'})}.{raw(issuer.claims())}"
    confused += "." + raw(hmac.digest(issuer.es.as_pem(private=False), confused.encode(), "sha256"))
    now = int(time.time())
    head, body, signature = issuer.token().split(".")
    swapped = raw(issuer.claims(sub=str(uuid.uuid4())))
    return {
        "alg none": f"{raw({'alg': 'none', 'kid': 'es'})}.{body}.{raw(b'x')}",
        "alg none without kid": f"{raw({'alg': 'none'})}.{body}.{raw(b'x')}",
        "HS256 keyed with the public key": confused,
        "HS256 with the published default secret": issuer.token(default),
        "HS256 without kid": issuer.token(default, {"kid": ...}),
        "anon key": issuer.token(default, iss="supabase", role="anon", sub=...),
        "wrong aud": issuer.token(aud="other"),
        "aud list": issuer.token(aud=["authenticated", "other"]),
        "OIDC id token": issuer.token(aud="client-id", role=...),
        "OAuth client token": issuer.token(client_id="app"),
        "wrong iss": issuer.token(iss="https://other.supabase.co/auth/v1"),
        "service role": issuer.token(role="service_role"),
        "nbf in an hour": issuer.token(nbf=now + 3600),
        "iat in an hour": issuer.token(iat=now + 3600, exp=now + 7200),
        "exp in the year 3000": issuer.token(exp=32_503_680_000),
        "unknown kid": issuer.token(header={"kid": "unknown"}),
        "embedded jwk": issuer.token(other, {"kid": "x", "jwk": other.as_dict(private=False)}),
        "jku": issuer.token(other, {"kid": "x", "jku": "http://127.0.0.1:1/keys"}),
        "path kid": issuer.token(header={"kid": "../../../../dev/null"}),
        "no kid": issuer.token(header={"kid": ...}),
        "numeric kid": f"{raw({'alg': 'ES256', 'kid': 7})}.{body}.{signature}",
        "crit": f"{raw({'alg': 'ES256', 'kid': 'es', 'crit': ['x'], 'x': 1})}.{body}.{signature}",
        "zero signature": f"{head}.{body}.{raw(bytes(64))}",
        "swapped payload": f"{head}.{swapped}.{signature}",
        "attacker's key under our kid": issuer.token(other),
        "RS256 header on an EC key": issuer.token(header={"alg": "ES256", "kid": "rs"}),
        "EdDSA": issuer.token(ed),
    }


def malformed(issuer: Issuer) -> dict[str, str]:
    token = issuer.token()
    head, body, signature = token.split(".")
    return {
        "empty": "",
        "secret key": "sb_secret_abcdefghijklmnop",
        "two parts": f"{head}.{body}",
        "junk in the signature": f"{head}.{body}.{signature[:10]}!{signature[10:]}",
        "newline": token + "\n",
        "padding": f"{head}.{body}.{signature}==",
        "other spelling": f"{head}.{body}.{signature[:-1]}{chr(ord(signature[-1]) + 1)}",
        "one megabyte": f"{head}.{raw(b'x' * 1_000_000)}.{signature}",
        "100 kB kid": issuer.token(header={"kid": "k" * 100_000}),
        "just too long": f"{head}.{body}.{'A' * MAX_TOKEN_LENGTH}",
        "not json": f"{raw(b'nope')}.{body}.{signature}",
        "a list": f"{raw([])}.{body}.{signature}",
        "no exp": issuer.token(exp=...),
        "text exp": issuer.token(exp="tomorrow"),
        "sub not a UUID": issuer.token(sub="admin"),
        "no session": issuer.token(session_id=...),
        "deep": f"{raw(b'[' * 2000)}.{body}.{signature}",
    }


async def outcome(issuer: Issuer, token: str) -> type[InvalidSession] | None:
    """How a fresh verifier refuses a token; None when it believes it."""
    try:
        await verify(issuer, token)
    except InvalidSession as error:
        return type(error) if "somebody" not in str(error) else None
    return None


async def test_attacks_are_not_believed_and_reach_nobody(issuer: Issuer) -> None:
    found = {name: await outcome(issuer, token) for name, token in untrusted(issuer).items()}
    assert found == dict.fromkeys(found, SessionUntrusted)
    assert "user" not in issuer.asked, "an attack reached the auth server"


async def test_malformed_tokens_never_reach_the_network(issuer: Issuer) -> None:
    found = {name: await outcome(issuer, token) for name, token in malformed(issuer).items()}
    assert found == dict.fromkeys(found, SessionMalformed)
    assert issuer.asked == []


async def test_expired(issuer: Issuer) -> None:
    now = int(time.time())
    with pytest.raises(SessionExpired):
        await verify(issuer, issuer.token(iat=now - 100, exp=now - 1))


async def test_small_clock_differences_are_forgiven(issuer: Issuer) -> None:
    now = int(time.time())
    assert await verify(issuer, issuer.token(iat=now + 20, nbf=now + 20))


async def test_fifty_unknown_keys_cause_one_fetch(issuer: Issuer) -> None:
    sessions = issuer.sessions()
    await sessions.verify(issuer.token())
    assert issuer.fetches() == 1
    for number in range(50):
        with pytest.raises(InvalidSession):
            await sessions.verify(issuer.token(header={"kid": f"unknown-{number}"}))
    # The first fetch was moments ago: the cool-down covers them all.
    assert issuer.fetches() <= 2
    await sessions.close()


async def test_hundred_at_once_cause_one_fetch(issuer: Issuer) -> None:
    sessions = issuer.sessions()
    token = issuer.token()
    await asyncio.gather(*(sessions.verify(token) for _ in range(100)))
    assert issuer.fetches() == 1
    await sessions.close()


async def test_without_any_keys_the_auth_services_return_is_found_soon(issuer: Issuer) -> None:
    now = 0.0
    sessions = issuer.sessions(jwks=JwksStore(f"{issuer.url}/.well-known/jwks.json", clock=lambda: now))
    issuer.up = False
    with pytest.raises(SessionsUnavailable):
        await sessions.verify(issuer.token())
    issuer.up = True
    with pytest.raises(SessionsUnavailable):
        await sessions.verify(issuer.token())
    assert issuer.fetches() == 1, "not at every request"
    assert sessions.keys_overdue == 0.0
    now += 1.5
    assert sessions.keys_overdue == 1.5
    now += FIRST_SECONDS - 1.5
    assert await sessions.verify(issuer.token())
    assert sessions.keys_overdue == 0.0
    await sessions.close()


async def test_rotation_staleness_and_revocation(issuer: Issuer) -> None:
    now = 0.0
    store = JwksStore(f"{issuer.url}/.well-known/jwks.json", clock=lambda: now)
    sessions = issuer.sessions(jwks=store)
    assert sessions.keys_overdue is None
    await sessions.verify(issuer.token())
    assert sessions.keys_overdue == 0.0
    new = jwk.ECKey.generate_key("P-256", {"kid": "new", "use": "sig", "alg": "ES256"})
    issuer.keys.append(new.as_dict(private=False))
    now += COOL_DOWN_SECONDS
    assert await sessions.verify(issuer.token(new)), "a new key is fetched when it is first seen"
    # The server goes away: keys serve on for an hour past their life, then no more.
    issuer.up = False
    now += TTL_SECONDS + STALE_SECONDS - 1
    assert sessions.keys_overdue == 0.0, "nobody has asked for newer ones"
    assert await sessions.verify(issuer.token(new))
    assert sessions.keys_overdue == TTL_SECONDS + STALE_SECONDS - 1, "what counts is when they were fetched"
    now += 60
    with pytest.raises(SessionsUnavailable):
        await sessions.verify(issuer.token(new))
    # Back, with the old key revoked.
    issuer.up = True
    issuer.keys = [new.as_dict(private=False)]
    now += COOL_DOWN_SECONDS
    assert await sessions.verify(issuer.token(new))
    with pytest.raises(SessionUntrusted):
        await sessions.verify(issuer.token())
    await sessions.close()


async def test_revoked_key_is_gone_when_its_life_is_over(issuer: Issuer) -> None:
    now = 0.0
    store = JwksStore(f"{issuer.url}/.well-known/jwks.json", clock=lambda: now)
    sessions = issuer.sessions(jwks=store)
    await sessions.verify(issuer.token())
    issuer.keys = [issuer.rs.as_dict(private=False)]
    now += TTL_SECONDS + 1
    with pytest.raises(SessionUntrusted):
        await sessions.verify(issuer.token())
    await sessions.close()


async def test_foreign_key_types_do_no_harm(issuer: Issuer) -> None:
    ed = jwk.OKPKey.generate_key("Ed25519", {"kid": "ed", "use": "sig"})
    odd: list[Any] = [ed.as_dict(private=False), {"kty": "oct", "k": "AA", "kid": "o"}, {"kid": 5}, "text", None]
    encryption = issuer.es.as_dict(private=False) | {"kid": "enc", "use": "enc"}
    issuer.keys = [*odd, encryption, *issuer.keys]
    assert await verify(issuer, issuer.token())
    with pytest.raises(SessionUntrusted):
        await verify(issuer, issuer.token(header={"kid": "enc"}))


async def test_confirm_asks_once_a_minute_and_hears_of_sign_out(issuer: Issuer) -> None:
    now = time.time()
    sessions = issuer.sessions(clock=lambda: now)
    token = issuer.token()
    session = await sessions.verify(token)
    await asyncio.gather(*(sessions.confirm(token, session) for _ in range(20)))
    assert issuer.asked.count("user") == 1
    issuer.user_status = 403
    await sessions.confirm(token, session)
    now += 61
    with pytest.raises(SessionRevoked):
        await sessions.confirm(token, session)
    issuer.up = False
    await sessions.confirm(token, session)  # nobody can be asked: the verified token is enough
    await sessions.close()


async def test_who_was_confirmed_is_forgotten_with_the_next_one_after_a_minute(issuer: Issuer) -> None:
    now = time.time()
    sessions = issuer.sessions(clock=lambda: now)
    names = [f"{number:08d}-2222-4333-8444-555555555555" for number in range(3)]
    for name in names:
        token = issuer.token(session_id=name)
        await sessions.confirm(token, await sessions.verify(token))
        now += 31
    assert list(sessions._confirmed) == names[1:], "kept for longer than /privacy says"
    await sessions.close()
