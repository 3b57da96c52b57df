"""The whole HTTP surface in one process: gateway, both replicas and the development sign-in behind one real server.

The server is the one that a replica has (uvicorn with httptools), so what a client sends goes through the same parser;
the waiting room is the one in memory and the engine is `mesh`.
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.queue.account import Accounts
from nanoswap.queue.issuer import DEMO_EMAIL, DEMO_PASSWORD, create_issuer
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.queue.session import Sessions
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.image_swap import create_image_swap
from nanoswap.serve.local import free_port
from nanoswap.serve.settings import Settings
from nanoswap.serve.video_swap import create_video_swap

#: Small, so that a run meets the limits too.
SETTINGS = Settings(
    redis_url="unix:///none", auth_url="http://127.0.0.1/auth/v1", auth_issuer="http://127.0.0.1/auth/v1",
    secret=bytes(32), max_image_pixels=500_000, upload_seconds=2.0, upload_video_seconds=2.0,
)  # fmt: skip
#: So many places that a run is not over after the third.
POLICY = replace(Policy(), max_tickets_per_account=1_000, horizon=1e9)


@dataclass(frozen=True, slots=True)
class Running:
    """A server at ``url``. ``sign_in`` gives a fresh access token of the demo account."""

    url: str

    def sign_in(self) -> str:
        body = {"email": DEMO_EMAIL, "password": DEMO_PASSWORD}
        answer = httpx.post(f"{self.url}/auth/v1/token?grant_type=password", json=body)
        return str(answer.raise_for_status().json()["access_token"])


def surface(url: str) -> ASGIApp:
    """Everything below ``url`` as one ASGI application."""
    auth = f"{url}/auth/v1"
    settings = replace(SETTINGS, auth_url=auth, auth_issuer=auth)
    room = MemoryRoom(POLICY)

    def sessions() -> Sessions:
        return Sessions(auth, auth, Accounts(settings.secret))

    engines = {"mesh": MeshEngine()}
    gateway = create_gateway(settings, room, sessions())
    image = create_image_swap(settings, room, sessions(), engines, gate=None)
    video = create_video_swap(settings, room, sessions(), engines, Encoder(preset="ultrafast"), gate=None)

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for app in (gateway, image, video):
                await stack.enter_async_context(app.router.lifespan_context(app))
            yield

    outer = Starlette(lifespan=life)
    below = {"/auth/": create_issuer(auth, origins=[url]), "/image/": image, "/video/": video}

    async def by_prefix(scope: Scope, receive: Receive, send: Send) -> None:
        # As the edge does it; Starlette's own mounts let no line break through.
        if scope["type"] == "lifespan":
            await outer(scope, receive, send)
            return
        prefix = next((prefix for prefix in below if scope["path"].startswith(prefix)), "")
        cut = "" if prefix in ("", "/auth/") else prefix.rstrip("/")
        inner = scope | {"path": scope["path"].removeprefix(cut)}
        await below.get(prefix, gateway)(inner, receive, send)

    return by_prefix


@contextmanager
def running() -> Iterator[Running]:
    """Serve in a thread as long as the block lasts."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    config = uvicorn.Config(
        surface(url), host="127.0.0.1", port=port, log_level="critical", access_log=False, loop="asyncio"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), name="server")
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("the server did not start")
            thread.join(0.02)
        yield Running(url)
    finally:
        server.should_exit = True
        thread.join(20)
