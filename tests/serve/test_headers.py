"""The security headers on every answer of every application, and nobody let in from another site's page."""

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from nanoswap.pipelines.mp4 import Encoder
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.image_swap import create_image_swap
from nanoswap.serve.site import PAGES
from nanoswap.serve.video_swap import create_video_swap
from tests.serve.test_gateway import BODY, SETTINGS, Anyone

DOCUMENT = json.loads(resources.files("nanoswap.serve").joinpath("openapi.json").read_text())
SAFE = {"get", "head", "options"}
ELSEWHERE = "https://evil.example"


class Broken(MemoryRoom):
    """A store that fails in a way that nobody foresaw."""

    async def quota(self, account: str) -> Any:
        raise RuntimeError("canary")

    async def redeem(self, *_: Any) -> Any:
        raise RuntimeError("canary")


def applications() -> dict[str, FastAPI]:
    """Prefix of the address -> application, as the edge has them."""
    room: Any = Broken(Policy())
    sessions: Any = Anyone()
    return {
        "/image": create_image_swap(SETTINGS, room, sessions, {}, gate=None),
        "/video": create_video_swap(SETTINGS, room, sessions, {}, Encoder(), gate=None),
        "": create_gateway(SETTINGS, room, sessions),
    }


async def ask(method: str, path: str, **request: Any) -> httpx.Response:
    prefix, app = next((prefix, app) for prefix, app in applications().items() if path.startswith(prefix))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        return await client.request(method, path.removeprefix(prefix), **request)


def operations() -> Iterator[tuple[str, str]]:
    """Method and address of all that the document lists, and of what it leaves out."""
    for path, item in DOCUMENT["paths"].items():
        for method in item:
            yield method.upper(), path.replace("{ticket_id}", "t_x")
    for path in (*PAGES, "/openapi.json", "/web/app.js", "/.well-known/security.txt", "/nowhere"):
        yield "GET", path
    yield "POST", "/v1/tickets/t_x/events"


EVERY = sorted(set(operations()))
CHANGING = [(method, path) for method, path in EVERY if method.lower() not in SAFE]


def guarded(answer: httpx.Response) -> None:
    """All headers, each once, with the words that matter."""
    headers = answer.headers
    age, *rest = headers["strict-transport-security"].split("; ")
    assert int(age.removeprefix("max-age=")) >= 31_536_000
    assert "includeSubDomains" in rest
    policy = dict(one.split(" ", 1) for one in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cross-origin-embedder-policy"] == "require-corp"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "camera=(self)" in headers["permissions-policy"]
    assert "microphone=()" in headers["permissions-policy"]
    for name in ("content-security-policy", "strict-transport-security", "x-content-type-options"):
        assert len(headers.get_list(name)) == 1
    assert "set-cookie" not in headers


def not_shared(answer: httpx.Response) -> None:
    """No other origin may read it."""
    assert [name for name in answer.headers if name.startswith("access-control-")] == []


@pytest.mark.parametrize(("method", "path"), EVERY)
async def test_every_answer_has_the_headers_and_is_for_this_origin_only(method: str, path: str) -> None:
    for headers in ({}, {"Authorization": "Bearer ann", "Origin": ELSEWHERE, "Grant": "g"}):
        answer = await ask(method, path, headers=headers)
        guarded(answer)
        not_shared(answer)
        if answer.content:
            assert answer.headers["content-type"]
        if answer.headers.get("content-type", "").startswith("text/"):
            assert "charset=utf-8" in answer.headers["content-type"]


@pytest.mark.parametrize("prefix", ["", "/image", "/video"])
async def test_errors_have_them_too(prefix: str) -> None:
    statuses = set()
    swap = {"Authorization": "Bearer ann", "Grant": "g", "Content-Type": "multipart/form-data; boundary=b"}
    for method, path, request in [
        ("GET", "/nowhere", {}),
        ("PATCH", "/v1/tickets/t_x/swap" if prefix else "/v1/tickets", {}),
        ("POST", "/v1/tickets/t_x/swap" if prefix else "/v1/tickets", {"json": {}}),
        ("POST", "/v1/tickets/t_x/swap", {"headers": swap, "content": b"--b--\r\n"}) if prefix else
        ("GET", "/v1/quota", {"headers": {"Authorization": "Bearer ann"}}),
    ]:  # fmt: skip
        answer = await ask(method, prefix + path, **request)
        guarded(answer)
        assert answer.headers["cache-control"] == "no-store"
        assert "canary" not in answer.text
        statuses.add(answer.status_code)
    assert {404, 405, 401, 500} <= statuses


@pytest.mark.parametrize(("method", "path"), EVERY)
async def test_no_other_site_is_ever_given_leave(method: str, path: str) -> None:
    asked = {
        "Origin": ELSEWHERE,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization",
    }
    answer = await ask("OPTIONS", path, headers=asked)
    assert not answer.is_success
    not_shared(answer)
    guarded(answer)


@pytest.mark.parametrize(("method", "path"), CHANGING)
@pytest.mark.parametrize("form", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "text/plain"])
async def test_what_a_form_of_another_site_can_send_changes_nothing(method: str, path: str, form: str) -> None:
    """A form, or fetch without a preflight, sends no Authorization header, and a cookie is nowhere read."""
    headers = {"Origin": ELSEWHERE, "Sec-Fetch-Site": "cross-site", "Content-Type": form, "Cookie": "session=ann"}
    answer = await ask(method, path, headers=headers, content=json.dumps(BODY))
    assert (answer.status_code, answer.json()["code"]) == (401, "session_missing")


def test_everything_that_changes_something_is_asked_for_by_a_method_that_says_so() -> None:
    assert {path for method, path in CHANGING} == {
        "/v1/account",
        "/v1/tickets",
        "/v1/tickets/t_x",
        "/v1/tickets/t_x/events",
        "/image/v1/faces",
        "/image/v1/tickets/t_x/swap",
        "/video/v1/tickets/t_x/swap",
    }


def test_no_address_takes_a_secret_or_anything_of_a_person() -> None:
    """Query strings end in logs: none is read."""
    for path, item in DOCUMENT["paths"].items():
        for operation in item.values():
            assert all(one["in"] != "query" for one in operation.get("parameters", [])), path
