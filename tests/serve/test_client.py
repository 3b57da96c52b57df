"""The client against a small real server that can be told to misbehave."""

import asyncio
import hashlib
import json
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from nanoswap.client import AsyncClient, Busy, Client, MediaError, RequestError, SessionError, SwapEnded, Unavailable
from nanoswap.serve import client as module
from nanoswap.serve.local import free_port

RESULT = b"\xff\xd8 a swapped picture"
CONFIG = {
    "consent": {"id": "likeness-1", "text": "Agreed."},
    "limits": {"image": {"max_bytes": 10**7, "max_pixels": 10**7, "max_side": 10**4}},
    "links": {"tickets": "/v1/tickets", "faces": "/image/v1/faces"},
}


class Double:
    """Follows the API as far as a client sees it. ``script`` holds what goes wrong, consumed one by one."""

    def __init__(self) -> None:
        self.script: dict[str, list[Any]] = {}
        self.keys: list[str] = []
        self.uploads: list[str] = []
        self.state = "granted"
        self.grant = 1
        self.deleted = False
        self.tokens: list[str] = []
        routes = [
            Route("/v1/config", self.config),
            Route("/v1/tickets", self.join, methods=["POST"]),
            Route("/v1/tickets/t", self.look),
            Route("/v1/tickets/t", self.cancel, methods=["DELETE"]),
            Route("/v1/tickets/t/events", self.events),
            Route("/image/v1/tickets/t/swap", self.swap, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    def wrong(self, where: str) -> Any:
        return self.script[where].pop(0) if self.script.get(where) else None

    def ticket(self) -> dict[str, Any]:
        grant = f"grant-{self.grant}" if self.state == "granted" else None
        here = "/v1/tickets/t"
        links = {"self": here, "events": f"{here}/events", "swap": f"/image{here}/swap", "cancel": here}
        return {
            "id": "t", "state": self.state, "position": 1, "eta": {"p50": 1, "p90": 2}, "grant": grant,
            "token": "sealed", "progress": None, "problem": None, "links": links,
        }  # fmt: skip

    async def config(self, _: Request) -> Response:
        return JSONResponse(CONFIG)

    async def join(self, request: Request) -> Response:
        self.keys.append(request.headers["idempotency-key"])
        if failure := self.wrong("join"):
            return failure
        return JSONResponse(self.ticket(), 201)

    async def look(self, request: Request) -> Response:
        return JSONResponse(self.ticket(), headers={"ETag": f'"{self.state}"'})

    async def cancel(self, _: Request) -> Response:
        self.deleted = True
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        self.tokens.append(request.headers.get("ticket", ""))
        if failure := self.wrong("events"):
            return failure

        async def snapshots() -> Any:
            for _ in range(40):
                yield f"event: ticket\ndata: {json.dumps(self.ticket())}\n\n"
                if self.state in ("canceled", "expired", "failed"):
                    return
                await asyncio.sleep(0.05)

        return StreamingResponse(snapshots(), media_type="text/event-stream")

    async def swap(self, request: Request) -> Response:
        await request.body()
        self.uploads.append(request.headers["grant"])
        failure = self.wrong("swap")
        if failure == "lost":
            self.state = "parked"

            async def later() -> None:
                await asyncio.sleep(0.2)
                self.grant += 1
                self.state = "granted"

            self.later = asyncio.create_task(later())
            return problem(503, "lost_turn")
        if failure is not None:
            return failure
        digest = b64encode(hashlib.sha256(RESULT).digest()).decode()
        headers = {"X-Faces": "1", "X-Gpu-Seconds": "0.5", "Content-Digest": f"sha-256=:{digest}:"}
        return Response(RESULT, media_type="image/jpeg", headers=headers)


def problem(status: int, code: str, **headers: str) -> Response:
    return JSONResponse(
        {"code": code, "title": "No", "status": status}, status, {k.replace("_", "-"): v for k, v in headers.items()}
    )


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Double, str]]:
    monkeypatch.setattr(module, "_BASE_SECONDS", 0.01)
    made, port = Double(), free_port()
    server = uvicorn.Server(uvicorn.Config(made.app, port=port, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield made, f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def swap(url: str, hopper: bytes, **options: Any) -> Any:
    with Client(url, token="token", timeout=20) as client:
        return client.swap(hopper, hopper, consent=True, **options)


def test_swap_saves_the_result_whole(double: tuple[Double, str], hopper: bytes, tmp_path: Path) -> None:
    made, url = double
    seen: list[str] = []
    result = swap(url, hopper, watch=lambda ticket: seen.append(ticket["state"]))
    assert (result.data, result.faces, result.gpu_seconds) == (RESULT, 1, 0.5)
    assert result.save(tmp_path / "out.jpg").read_bytes() == RESULT
    assert [path.name for path in tmp_path.iterdir()] == ["out.jpg"]
    assert seen[0] == "granted"
    assert made.uploads == ["grant-1"]


def test_join_is_retried_with_the_same_key(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.script["join"] = [problem(503, "room_unavailable", Retry_After="1"), problem(502, "internal")]
    started = time.monotonic()
    assert swap(url, hopper).data == RESULT
    assert time.monotonic() - started >= 1.0, "Retry-After was not honoured"
    assert len(made.keys) == 3
    assert len(set(made.keys)) == 1


def test_lost_turn_goes_back_for_another_grant(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.script["swap"] = ["lost", "lost"]
    assert swap(url, hopper).data == RESULT
    assert made.uploads == ["grant-1", "grant-2", "grant-3"]


def test_broken_streams_end_in_long_polling(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.state = "waiting"
    made.script["events"] = [problem(502, "internal") for _ in range(3)]

    async def go() -> bytes:
        async with AsyncClient(url, token="token", timeout=20) as client:
            task = asyncio.create_task(client.swap(hopper, hopper, consent=True))
            await asyncio.sleep(0.5)
            made.state = "granted"
            return (await task).data

    assert asyncio.run(go()) == RESULT
    assert set(made.tokens) == {"sealed"}, "the sealed ticket was not sent along"


@pytest.mark.parametrize(
    ("where", "failure", "error"),
    [
        ("join", problem(429, "quota", Retry_After="60"), Busy),
        ("join", problem(401, "session_expired"), SessionError),
        ("join", problem(422, "consent_missing"), RequestError),
        ("swap", problem(422, "no_face"), MediaError),
        (
            "swap",
            Response(RESULT, headers={"Content-Digest": "sha-256=:AAAA:", "Content-Type": "image/jpeg"}),
            Unavailable,
        ),
    ],
)
def test_failures_have_types(
    double: tuple[Double, str], hopper: bytes, where: str, failure: Response, error: type[Exception]
) -> None:
    made, url = double
    made.script[where] = [failure] * 6
    with pytest.raises(error):
        swap(url, hopper)


def test_ended_ticket_is_an_error(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.state = "expired"
    with pytest.raises(SwapEnded):
        swap(url, hopper)


def test_timeout_gives_the_place_up(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.state = "waiting"
    with Client(url, token="token", timeout=0.5) as client, pytest.raises(Unavailable):
        client.swap(hopper, hopper, consent=True)
    assert made.deleted


def test_bad_input_is_refused_before_anything_is_sent(
    double: tuple[Double, str], hopper: bytes, tmp_path: Path
) -> None:
    made, url = double
    with Client(url, token="token") as client:
        with pytest.raises(RequestError):
            client.swap(hopper, hopper, consent=False)
        with pytest.raises(MediaError):
            client.swap(tmp_path / "missing.jpg", hopper, consent=True)
        with pytest.raises(MediaError):
            client.swap(hopper, b"not a picture", consent=True)
    with Client(url) as client, pytest.raises(SessionError):
        client.swap(hopper, hopper, consent=True)
    assert made.keys == []


def test_unreachable_service_is_said_so(hopper: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BASE_SECONDS", 0.01)
    with pytest.raises(Unavailable, match="can't be reached"):
        swap(f"http://127.0.0.1:{free_port()}", hopper)


def test_importing_the_client_is_light() -> None:
    code = (
        "import sys, nanoswap.client; print([name for name in ('ray', 'numpy', 'cv2', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
