"""A small real server that follows the API as far as a client sees it, and can be told to misbehave."""

import asyncio
import hashlib
import json
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from nanoswap.serve.local import free_port

RESULT = b"\xff\xd8 a swapped picture"
VIDEO = {"max_bytes": 10**8, "max_pixels": 10**7, "max_frames": 999, "max_seconds": 60, "max_fps": 120}
CONFIG = {
    "engines": [{"name": "flagship", "clips": False}, {"name": "mesh", "clips": True}],
    "consent": {"id": "likeness-3", "text": "Agreed."},
    "limits": {"image": {"max_bytes": 10**7, "max_pixels": 10**7, "max_side": 10**4}, "video": VIDEO},
    "links": {"tickets": "/v1/tickets", "faces": "/image/v1/faces"},
}


class Double:
    """Follows the API as far as a client sees it. ``script`` holds what goes wrong, consumed one by one."""

    def __init__(self) -> None:
        self.script: dict[str, list[Any]] = {}
        self.keys: list[str] = []
        self.uploads: list[str] = []
        #: Bodies of uploads, as they came.
        self.bodies: list[bytes] = []
        self.state = "granted"
        self.grant = 1
        self.deleted = False
        self.tokens: list[str] = []
        #: Snapshots in one event stream before it is cut.
        self.snapshots = 40
        self.forgotten = False
        self.joined: dict[str, Any] = {"kind": "image"}
        self.result: dict[str, Any] | None = None
        routes = [
            Route("/v1/config", self.config),
            Route("/v1/tickets", self.join, methods=["POST"]),
            Route("/v1/tickets/t", self.look),
            Route("/v1/tickets/t", self.cancel, methods=["DELETE"]),
            Route("/v1/tickets/t/events", self.events),
            Route("/image/v1/tickets/t/swap", self.swap, methods=["POST"]),
            Route("/video/v1/tickets/t/swap", self.swap_clip, methods=["POST"]),
        ]
        self.app = Starlette(routes=routes)

    def wrong(self, where: str) -> Any:
        return self.script[where].pop(0) if self.script.get(where) else None

    def ticket(self) -> dict[str, Any]:
        grant = f"grant-{self.grant}" if self.state == "granted" else None
        here = "/v1/tickets/t"
        links = {"self": here, "events": f"{here}/events", "swap": f"/{self.joined['kind']}{here}/swap", "cancel": here}
        return {
            "id": "t", "state": self.state, "position": 1, "eta": {"p50": 1, "p90": 2}, "grant": grant,
            "token": "sealed", "progress": None, "problem": None, "result": self.result, "links": links,
        }  # fmt: skip

    async def config(self, _: Request) -> Response:
        return JSONResponse(CONFIG)

    async def join(self, request: Request) -> Response:
        self.keys.append(request.headers["idempotency-key"])
        if failure := self.wrong("join"):
            return failure
        self.joined = await request.json()
        return JSONResponse(self.ticket(), 201)

    async def look(self, request: Request) -> Response:
        return JSONResponse(self.ticket(), headers={"ETag": f'"{self.state}"'})

    async def cancel(self, _: Request) -> Response:
        self.deleted = True
        return Response(status_code=204)

    async def events(self, request: Request) -> Response:
        self.tokens.append(request.headers.get("ticket", ""))
        if self.forgotten and self.tokens[-1] != "sealed":
            return problem(404, "not_found")
        self.forgotten = False
        if failure := self.wrong("events"):
            return failure

        async def snapshots() -> Any:
            for _ in range(self.snapshots):
                yield f"event: ticket\ndata: {json.dumps(self.ticket())}\n\n"
                if self.state in ("canceled", "expired", "failed", "succeeded"):
                    return
                await asyncio.sleep(0.05)

        return StreamingResponse(snapshots(), media_type="text/event-stream")

    async def swap(self, request: Request) -> Response:
        self.bodies.append(await request.body())
        self.uploads.append(request.headers["grant"])
        failure = self.wrong("swap")
        if failure == "wiped":
            # The store forgot the ticket; the sealed copy brings it back, with another grant.
            self.forgotten = True
            self.grant += 1
            return problem(404, "not_found")
        if failure == "delivered":
            self.state = "succeeded"
            return Response(RESULT[:4], headers={"Content-Length": str(len(RESULT))})
        if failure in ("lost", "broken"):
            self.state = "parked"

            async def later() -> None:
                await asyncio.sleep(0.2)
                self.grant += 1
                self.state = "granted"

            self.later = asyncio.create_task(later())
            # The edge's word for a replica that ended while it worked.
            return problem(503, "lost_turn") if failure == "lost" else problem(502, "unavailable", Retry_After="1")
        if failure is not None:
            return failure
        digest = b64encode(hashlib.sha256(RESULT).digest()).decode()
        headers = {"X-Faces": "1", "X-Gpu-Seconds": "0.5", "Content-Digest": f"sha-256=:{digest}:"}
        return Response(RESULT, media_type="image/jpeg", headers=headers)

    async def swap_clip(self, request: Request) -> Response:
        """A clip is sent in parts; ``cut`` breaks off after the first, ``bent`` changes one on its way."""
        self.bodies.append(await request.body())
        self.uploads.append(request.headers["grant"])
        failure = self.wrong("swap")
        digest = hashlib.sha256(b"other" if failure == "bent" else RESULT * 2).hexdigest()

        async def parts() -> Any:
            yield RESULT
            await asyncio.sleep(0.05)
            if failure == "cut":
                self.grant += 1
                raise ConnectionResetError
            self.state, self.result = "succeeded", {"bytes": 2 * len(RESULT), "sha256": digest, "gpu_seconds": 1.5}
            yield RESULT

        return StreamingResponse(parts(), media_type='video/mp4; codecs="avc1.640028"', headers={"X-Frames": "30"})


def problem(status: int, code: str, **headers: str) -> Response:
    return JSONResponse(
        {"code": code, "title": "No", "status": status}, status, {k.replace("_", "-"): v for k, v in headers.items()}
    )


@contextmanager
def running(double: Double) -> Iterator[str]:
    """Serve it on loopback; yields its address."""
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(double.app, port=port, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
