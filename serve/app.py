"""The Ray Serve applications: one for the gateway, one for the image replicas. Video takes its place beside them.

Each deployment builds its own settings, room and sessions from the environment of its process, so Ray's control store,
which keeps deployment arguments in clear, never sees a secret. No media is ever an argument of a Ray call: each
deployment answers HTTP itself.
"""

import os

from fastapi import FastAPI
from ray import serve

from nanoswap.pipelines.engine import Engine
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.queue.account import Accounts
from nanoswap.queue.redis_room import RedisRoom
from nanoswap.queue.room import Policy
from nanoswap.queue.session import Sessions
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.image_swap import create_image_swap
from nanoswap.serve.loopback import keep_internal_ports_on_loopback
from nanoswap.serve.settings import Settings

#: Longest an image swap may still run while its replica drains.
DRAIN_SECONDS = 60.0


def _sessions(settings: Settings) -> Sessions:
    return Sessions(
        settings.auth_url,
        settings.auth_issuer,
        Accounts(settings.secret),
        allow_anonymous=settings.allow_anonymous,
        api_key=settings.auth_key,
    )


def load_engine(name: str) -> Engine:
    """The engine that the settings name. Raises ValueError for one that this build doesn't have."""
    if name != "mesh":
        raise ValueError(f"NANOSWAP_ENGINE must be 'mesh', not '{name}'")
    return MeshEngine()


@serve.deployment
@serve.ingress()
class Gateway:
    """Page, tickets, events. CPU only."""

    def __init__(self) -> None:
        self._settings = Settings.from_environment(os.environ)
        keep_internal_ports_on_loopback(self._settings.host)

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = self._settings
        return create_gateway(settings, RedisRoom(settings.redis_url, Policy()), _sessions(settings))


@serve.deployment
@serve.ingress()
class ImageSwap:
    """The process that owns the GPU and the pictures."""

    def __init__(self) -> None:
        self._settings = Settings.from_environment(os.environ)
        keep_internal_ports_on_loopback(self._settings.host)
        self._engine = load_engine(self._settings.engine)

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = self._settings
        room = RedisRoom(settings.redis_url, Policy())
        return create_image_swap(settings, room, _sessions(settings), self._engine)


def _deployment(decorated: object) -> serve.Deployment:
    """Ray's decorator makes a Deployment of a class, which its type stubs don't say."""
    assert isinstance(decorated, serve.Deployment)
    return decorated


def applications(settings: Settings) -> dict[str, tuple[str, serve.Application]]:
    """Name -> (route prefix, bound application), in the order in which they start."""
    image = (
        _deployment(ImageSwap)
        .options(
            num_replicas=settings.image_replicas,
            max_ongoing_requests=64,
            graceful_shutdown_timeout_s=DRAIN_SECONDS,
            ray_actor_options={"num_cpus": 0.1, "num_gpus": settings.image_gpus},
            health_check_period_s=5.0,
        )
        .bind()
    )
    gateway = (
        _deployment(Gateway)
        .options(
            num_replicas=settings.gateway_replicas,
            # Every open event stream is one ongoing request.
            max_ongoing_requests=10_000,
            graceful_shutdown_timeout_s=5.0,
            ray_actor_options={"num_cpus": 0.1},
        )
        .bind()
    )
    return {"image": ("/image", image), "gateway": ("/", gateway)}
