"""Deleting what is kept of a person, by themselves and by the call of the database, on both stores."""

import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace

import httpx
import pytest
import redis

from nanoswap.queue.account import Accounts
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.redis_room import RedisRoom
from nanoswap.queue.redis_server import RedisServer
from nanoswap.queue.room import Policy, WaitingRoom
from nanoswap.queue.session import LEEWAY_SECONDS, Session
from nanoswap.queue.ticket import Kind
from nanoswap.serve.application import signed_in
from nanoswap.serve.body_limit import MAX_BODY_BYTES
from nanoswap.serve.erasure import HOOK_PATH, install
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.image_swap import create_image_swap
from nanoswap.serve.public_settings import PublicSettings
from nanoswap.serve.rate_limits import RateLimits
from nanoswap.serve.settings import Settings
from nanoswap.serve.webhook import TOLERANCE_SECONDS, WebhookKey
from tests.serve.test_gateway import BODY, SETTINGS

KEY = WebhookKey(bytes(range(32)))
HOOKED = replace(SETTINGS, public=PublicSettings(webhook=KEY))
SUB = str(uuid.UUID(int=7))
ACCOUNT = Accounts(SETTINGS.secret).of(SUB)
NOW = 1_900_000_000


class Dated:
    """Sessions whose token is ``SUB@SECONDS``: whose it is, and when it was issued."""

    async def verify(self, token: str) -> Session:
        sub, _, issued = token.partition("@")
        account = Accounts(SETTINGS.secret).of(sub)
        return Session(account=account, session_id="s", expires_at=2**40, anonymous=False, issued_at=int(issued))

    async def confirm(self, token: str, session: Session) -> None: ...

    async def close(self) -> None: ...


@dataclass
class Scene:
    """A gateway at a moment that the test chooses, and its room."""

    room: WaitingRoom
    client: httpx.AsyncClient
    now: float = NOW

    def token(self, issued: float, sub: str = SUB) -> dict[str, str]:
        return {"Authorization": f"Bearer {sub}@{int(issued)}"}

    async def call(self, body: bytes, *, at: float | None = None, key: WebhookKey = KEY) -> httpx.Response:
        stamp = int(self.now if at is None else at)
        headers = {
            "webhook-id": "msg_1",
            "webhook-timestamp": str(stamp),
            "webhook-signature": key.sign("msg_1", stamp, body),
        }
        return await self.client.post(HOOK_PATH, content=body, headers=headers)


def body(sub: str = SUB) -> bytes:
    return json.dumps({"id": sub}).encode()


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=["memory", "redis"])
async def scene(request: pytest.FixtureRequest, redis_server: RedisServer) -> AsyncIterator[Scene]:
    made: list[Scene] = []

    def clock() -> int:
        return int((made[0].now if made else NOW) * 1000)

    room: WaitingRoom = MemoryRoom(Policy(), clock=clock)
    if request.param == "redis":
        with redis.Redis.from_url(redis_server.url) as store:
            store.flushall()
        room = RedisRoom(redis_server.url, Policy(), clock=clock)
    app = create_gateway(SETTINGS, room, Dated())  # type: ignore[arg-type]
    # Once more, with the secret and a clock; what was installed before would answer first.
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != "/v1/account"]
    install(app, HOOKED, room, signed_in(Dated(), room, RateLimits(HOOKED, None)), lambda: made[0].now)  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        made.append(Scene(room, client))
        yield made[0]
    await room.close()


async def take_a_place(scene: Scene, issued: float) -> httpx.Response:
    return await scene.client.post("/v1/tickets", json=BODY, headers=scene.token(issued))


async def test_person_deletes_what_is_kept_and_may_sign_in_again_a_second_later(scene: Scene) -> None:
    await scene.room.enlist("w", Kind.IMAGE, 1, 60)
    ticket = (await take_a_place(scene, NOW - 5)).json()
    await scene.room.redeem(ticket["id"], ACCOUNT, ticket["grant"], "w")
    deleted = await scene.client.delete("/v1/account", headers=scene.token(NOW - 5))
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert deleted.headers["cache-control"] == "no-store"
    assert not await scene.room.renew(ticket["id"], "w"), "the swap goes on"
    for issued in (NOW - 3600, NOW - 5, NOW):
        refused = await scene.client.get("/v1/quota", headers=scene.token(issued))
        assert (refused.status_code, refused.json()["code"]) == (401, "session_revoked")
    fresh = scene.token(NOW + 1)
    quota = await scene.client.get("/v1/quota", headers=fresh)
    assert (quota.status_code, quota.json()["open_tickets"]) == (200, 0)
    assert quota.json()["refill_seconds"] > 0, "what the running swap costs is not dropped by a request"
    sealed = fresh | {"Ticket": ticket["token"]}
    assert (await scene.client.get(ticket["links"]["self"], headers=sealed)).status_code == 404
    other = await scene.client.get("/v1/quota", headers=scene.token(NOW - 5, str(uuid.UUID(int=8))))
    assert other.status_code == 200


async def test_token_of_a_sign_in_service_whose_clock_is_ahead_is_refused_too(scene: Scene) -> None:
    await scene.client.delete("/v1/account", headers=scene.token(NOW + 20))
    assert (await scene.client.get("/v1/quota", headers=scene.token(NOW + 20))).status_code == 401


async def test_deleting_needs_a_session(scene: Scene) -> None:
    assert (await scene.client.delete("/v1/account")).json()["code"] == "session_missing"


async def test_deleted_account_is_erased_and_its_tokens_are_refused(scene: Scene) -> None:
    ticket = (await take_a_place(scene, NOW - 5)).json()
    called = await scene.call(body())
    assert (called.status_code, called.content) == (204, b"")
    quota = await scene.room.quota(ACCOUNT)
    assert (quota.open_tickets, quota.refill_seconds) == (0, 0)
    for issued in (NOW - 5, NOW + LEEWAY_SECONDS):
        assert (await scene.client.get("/v1/quota", headers=scene.token(issued))).status_code == 401
        sealed = scene.token(issued) | {"Ticket": ticket["token"]}
        assert (await scene.client.get(ticket["links"]["self"], headers=sealed)).status_code == 401


async def test_call_that_comes_again_changes_nothing(scene: Scene) -> None:
    await scene.call(body(), at=NOW)
    scene.now = NOW + 60
    fresh = scene.now - 1
    assert (await take_a_place(scene, fresh)).status_code == 201
    assert (await scene.call(body(), at=NOW)).status_code == 204
    assert (await scene.client.get("/v1/quota", headers=scene.token(fresh))).json()["open_tickets"] == 1
    scene.now = NOW + TOLERANCE_SECONDS + 1
    late = await scene.call(body(), at=NOW)
    assert (late.status_code, late.json()["code"]) == (403, "call_untrusted")


async def test_call_of_somebody_else_is_refused_and_erases_nothing(scene: Scene) -> None:
    await take_a_place(scene, NOW - 5)
    for answer in (
        await scene.call(body(), key=WebhookKey(bytes(32))),
        await scene.client.post(HOOK_PATH, content=body()),
        await scene.client.post(HOOK_PATH, content=body(), headers=scene.token(NOW)),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "call_untrusted")
    assert (await scene.room.quota(ACCOUNT)).open_tickets == 1


@pytest.mark.parametrize(
    "wrong",
    [
        # What a database's stock webhook would send.
        json.dumps(
            {"type": "DELETE", "table": "users", "old_record": {"id": SUB, "email": "canary@x.example"}}
        ).encode(),
        json.dumps({"id": SUB, "email": "canary@x.example"}).encode(),
        b'{"id": "canary@x.example"}',
        b"[]",
        b"{",
        b"\xff\xfe",
        b"[" * 900,
    ],
    ids=["row", "more", "no id", "list", "cut", "bytes", "deep"],
)
async def test_signed_body_with_anything_but_the_id_is_refused_and_not_repeated(
    scene: Scene, wrong: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    await take_a_place(scene, NOW - 5)
    with caplog.at_level(logging.DEBUG):
        answer = await scene.call(wrong)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")
    assert "canary" not in answer.text + caplog.text
    assert (await scene.room.quota(ACCOUNT)).open_tickets == 1


async def test_long_body_is_not_read_to_its_end(scene: Scene) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 512
            assert read < 100 * MAX_BODY_BYTES
            yield bytes(512)

    answer = await scene.client.post(HOOK_PATH, content=endless())
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_id_is_the_one_of_the_tokens_however_it_is_written(scene: Scene) -> None:
    await take_a_place(scene, NOW - 5)
    await scene.call(body(SUB.upper()))
    assert (await scene.room.quota(ACCOUNT)).open_tickets == 0


async def test_without_a_secret_the_address_does_not_exist() -> None:
    app = create_gateway(SETTINGS, MemoryRoom(Policy()), Dated())  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        there, nowhere = await client.post(HOOK_PATH, content=body()), await client.post("/v1/hooks/none", content=b"")
    assert (there.status_code, there.content) == (nowhere.status_code, nowhere.content)
    assert there.status_code == 404
    assert HOOK_PATH not in json.dumps(app.openapi())


async def test_replica_refuses_the_tokens_too() -> None:
    """Looking for faces takes no ticket: nothing but the token stands before it."""
    room = MemoryRoom(Policy(), clock=lambda: NOW * 1000)
    app = create_image_swap(SETTINGS, room, Dated(), {}, gate=None)  # type: ignore[arg-type]
    await room.erase(ACCOUNT, NOW, forgive=True)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        codes = [
            (await client.post("/v1/faces", headers={"Authorization": f"Bearer {SUB}@{issued}"})).json()["code"]
            for issued in (NOW, NOW + 1)
        ]
    assert codes[0] == "session_revoked"
    assert codes[1] != "session_revoked"


def test_settings_name_the_secret() -> None:
    environment = {
        "SUPABASE_URL": "https://project.supabase.co/",
        "NANOSWAP_SECRET": "s" * 32,
        "REDIS_URL": "redis://127.0.0.1:6379/0",
        "NANOSWAP_WEBHOOK_SECRET": "v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    }
    assert Settings.from_environment(environment).public.webhook is not None
