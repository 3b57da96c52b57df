"""The gateway's endpoints as a plain ASGI application, on the in-memory waiting room and a stand-in for sessions.

What needs the real parts (verification, Redis, Ray, pictures) is in test_service.py; here are the branches that a
running service takes rarely.
"""

from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy, RoomUnavailable
from nanoswap.queue.session import Session
from nanoswap.queue.ticket import Kind
from nanoswap.serve.application import bearer
from nanoswap.serve.gateway import create_gateway, wait_seconds
from nanoswap.serve.problems import Problem
from nanoswap.serve.settings import Settings

SETTINGS = Settings(
    redis_url="unix:///none",
    auth_url="https://p.supabase.co/auth/v1",
    auth_issuer="https://p.supabase.co/auth/v1",
    secret=bytes(32),
)
BODY = {"kind": "image", "bytes": 1000, "width": 100, "height": 100, "consent": "likeness-3"}


class Anyone:
    """Takes the token itself as the account's name."""

    async def verify(self, token: str) -> Session:
        return Session(account=token, session_id="s", expires_at=2**40, anonymous=False)

    async def confirm(self, token: str, session: Session) -> None: ...

    async def close(self) -> None: ...


class Away(MemoryRoom):
    """A store that can't be reached."""

    async def quota(self, account: str) -> None:  # type: ignore[override]
        raise RoomUnavailable


@pytest.fixture
async def room() -> MemoryRoom:
    return MemoryRoom(Policy())


@pytest.fixture
async def client(room: MemoryRoom) -> AsyncIterator[httpx.AsyncClient]:
    app = create_gateway(SETTINGS, room, Anyone())  # type: ignore[arg-type]
    async with app.router.lifespan_context(app), person(app, "ann") as client:
        yield client


def person(app: object, name: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    return httpx.AsyncClient(transport=transport, base_url="http://t", headers={"Authorization": f"Bearer {name}"})


async def test_free_slot_is_granted_in_the_very_answer(client: httpx.AsyncClient, room: MemoryRoom) -> None:
    await room.enlist("w", Kind.IMAGE, 1, 60)
    ticket = (await client.post("/v1/tickets", json=BODY)).json()
    assert ticket["state"] == "granted"
    assert ticket["grant"]
    assert ticket["links"]["swap"] == f"/image/v1/tickets/{ticket['id']}/swap"


async def test_without_a_worker_people_wait_in_order(client: httpx.AsyncClient) -> None:
    first = (await client.post("/v1/tickets", json=BODY)).json()
    second = (await client.post("/v1/tickets", json=BODY)).json()
    assert (first["position"], second["position"]) == (1, 2)
    line = (await client.get("/v1/queue")).json()["image"]
    assert (line["waiting"], line["workers"], line["eta"]) == (2, 0, None)
    ready = await client.get("/readyz")
    assert ready.status_code == 503


async def test_somebody_elses_ticket_is_not_there(client: httpx.AsyncClient) -> None:
    ticket = (await client.post("/v1/tickets", json=BODY)).json()
    path = f"/v1/tickets/{ticket['id']}"
    eve = {"Authorization": "Bearer eve"}
    for method in ("GET", "DELETE"):
        answer = await client.request(method, path, headers=eve)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    stolen = await client.get(path, headers=eve | {"Ticket": ticket["token"]})
    assert stolen.status_code == 404


async def test_entity_tag_and_long_poll(client: httpx.AsyncClient, room: MemoryRoom) -> None:
    ticket = (await client.post("/v1/tickets", json=BODY)).json()
    path = f"/v1/tickets/{ticket['id']}"
    tag = (await client.get(path)).headers["etag"]
    unchanged = await client.get(path, headers={"If-None-Match": tag})
    assert unchanged.status_code == 304
    await room.enlist("w", Kind.IMAGE, 1, 60)
    changed = await client.get(path, headers={"If-None-Match": tag, "Prefer": "wait=10"})
    assert changed.status_code == 200
    assert changed.json()["state"] == "granted"


async def test_cancel_is_idempotent_and_final(client: httpx.AsyncClient) -> None:
    ticket = (await client.post("/v1/tickets", json=BODY)).json()
    path = f"/v1/tickets/{ticket['id']}"
    assert [(await client.delete(path)).status_code for _ in range(2)] == [204, 204]
    assert (await client.get(path)).json()["state"] == "canceled"


async def test_forgotten_ticket_comes_back_by_its_token_only(room: MemoryRoom) -> None:
    before = create_gateway(SETTINGS, room, Anyone())  # type: ignore[arg-type]
    async with before.router.lifespan_context(before), person(before, "ann") as client:
        ticket = (await client.post("/v1/tickets", json=BODY)).json()
    empty = MemoryRoom(Policy())
    after = create_gateway(SETTINGS, empty, Anyone())  # type: ignore[arg-type]
    path = f"/v1/tickets/{ticket['id']}"
    async with after.router.lifespan_context(after), person(after, "ann") as client:
        assert (await client.get(path)).status_code == 404
        assert (await client.get(path, headers={"Ticket": ticket["token"] + "x"})).status_code == 404
        eve = {"Authorization": "Bearer eve", "Ticket": ticket["token"]}
        assert (await client.get(path, headers=eve)).status_code == 404
        back = await client.get(path, headers={"Ticket": ticket["token"]})
        assert back.status_code == 200
        assert back.json()["created_at"] == ticket["created_at"]


async def test_unreachable_store_is_said_so() -> None:
    app = create_gateway(SETTINGS, Away(Policy()), Anyone())  # type: ignore[arg-type]
    async with person(app, "ann") as client:
        answer = await client.get("/v1/quota")
    assert (answer.status_code, answer.json()["code"]) == (503, "room_unavailable")
    assert answer.headers["retry-after"]


CLIP = BODY | {"kind": "video", "width": 1280, "height": 720, "frames": 300}


async def test_kind_without_a_line_is_refused(room: MemoryRoom) -> None:
    app = create_gateway(replace(SETTINGS, video_replicas=0), room, Anyone())  # type: ignore[arg-type]
    async with person(app, "ann") as client:
        answer = await client.post("/v1/tickets", json=CLIP)
        queue = (await client.get("/v1/queue")).json()
    assert answer.json()["code"] == "unknown_kind"
    assert (queue["video"], queue["limits"]["video"]) == (None, None)


async def test_clips_have_a_line_and_limits_of_their_own(client: httpx.AsyncClient, room: MemoryRoom) -> None:
    await room.enlist("w", Kind.VIDEO, 1, 60)
    assert (await client.post("/v1/tickets", json=BODY)).json()["state"] == "waiting"
    ticket = (await client.post("/v1/tickets", json=CLIP)).json()
    assert ticket["state"] == "granted"
    assert ticket["links"]["swap"] == f"/video/v1/tickets/{ticket['id']}/swap"
    queue = (await client.get("/v1/queue")).json()
    assert queue["limits"]["video"]["max_frames"] == SETTINGS.max_video_frames


@pytest.mark.parametrize(
    "wrong", [{"width": 7680, "height": 4320}, {"frames": 100_000}, {"bytes": 2**40}], ids=lambda one: next(iter(one))
)
async def test_clip_beyond_the_limits_gets_no_place(client: httpx.AsyncClient, wrong: dict[str, int]) -> None:
    answer = await client.post("/v1/tickets", json=CLIP | wrong)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert answer.json()["part"] == next(iter(wrong))


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic abc"])
def test_bearer_is_required(header: str) -> None:
    with pytest.raises(Problem) as caught:
        bearer(header)
    assert caught.value.code == "session_missing"


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("", 0),
        ("wait=5", 5),
        ("respond-async, Wait=7", 7),
        ("wait=999", 25),
        ("wait=-1", 0),
        ("wait=" + "9" * 5000, 25),
    ],
)
def test_prefer_wait(prefer: str, seconds: float) -> None:
    assert wait_seconds(prefer) == seconds


async def test_page_settings_reach_the_policy(client: httpx.AsyncClient) -> None:
    policy = (await client.get("/healthz")).headers["content-security-policy"]
    assert "connect-src 'self' https://p.supabase.co;" in policy
    assert replace(SETTINGS, host="0.0.0.0").auth_origin == "https://p.supabase.co"
