"""The Ray Serve applications: one for the gateway, one for the image replicas, one for the video replicas.

Each deployment builds its own settings, room and sessions from the environment of its process, so Ray's control store,
which keeps deployment arguments in clear, never sees a secret. No media is ever an argument of a Ray call: each
deployment answers HTTP itself.
"""

import gc
import os

from fastapi import FastAPI
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy
from ray.serve.schema import LoggingConfig

from nanoswap.pipelines.compiled import compile_no_more
from nanoswap.pipelines.mp4 import Encoder, choose_encoder
from nanoswap.pipelines.process import prepare_process
from nanoswap.queue.account import Accounts
from nanoswap.queue.redis_rates import RedisRates
from nanoswap.queue.redis_room import RedisRoom
from nanoswap.queue.redis_sums import RedisSums
from nanoswap.queue.room import Policy
from nanoswap.queue.scaling import Rules
from nanoswap.queue.session import Sessions
from nanoswap.queue.ticket import Kind
from nanoswap.serve.autoscaling import LinePolicy
from nanoswap.serve.drain import drain_seconds
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.image_swap import create_image_swap
from nanoswap.serve.log_records import keep_logs_clean
from nanoswap.serve.loopback import keep_internal_ports_on_loopback
from nanoswap.serve.meter import Meter
from nanoswap.serve.settings import Settings
from nanoswap.serve.video_swap import create_video_swap
from nanoswap.serve.volatility import FREED_MEMORY, close_disks, require_plain_loop, require_volatile

#: Only a replica's process is started so, not Ray's own: they hold no media, and it costs them time. A replica can't
#: make the second file that putting a log aside would need.
VOLATILE = {"env_vars": FREED_MEMORY | {"RAY_ROTATION_MAX_BYTES": "0"}}
#: A line per request would fill the scratch.
QUIET = LoggingConfig(enable_access_log=False)


def _sessions(settings: Settings) -> Sessions:
    return Sessions(
        settings.auth_url,
        settings.auth_issuer,
        Accounts(settings.secret),
        allow_anonymous=settings.allow_anonymous,
        api_key=settings.auth_key,
    )


def _closed(app: FastAPI) -> FastAPI:
    """The application of a replica that has loaded everything: from here on its process makes no file."""
    require_plain_loop()
    compile_no_more()
    close_disks()
    # What is here now stays: the collector, which runs behind each request, needn't look at it.
    gc.collect()
    gc.freeze()
    return app


def _rates(settings: Settings) -> RedisRates:
    return RedisRates(settings.redis_url, settings.secret)


def _meter(settings: Settings) -> Meter:
    return Meter(RedisSums(settings.redis_url))


@serve.deployment
@serve.ingress()
class Gateway:
    """Page, tickets, events. CPU only."""

    def __init__(self) -> None:
        keep_logs_clean()
        self._settings = Settings.from_environment(os.environ)
        keep_internal_ports_on_loopback(self._settings.host)
        require_volatile()

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = self._settings
        room = RedisRoom(settings.redis_url, Policy())
        return _closed(create_gateway(settings, room, _sessions(settings), _rates(settings), _meter(settings)))


@serve.deployment
@serve.ingress()
class ImageSwap:
    """The process that owns the GPU and the pictures."""

    def __init__(self) -> None:
        keep_logs_clean()
        self._settings = Settings.from_environment(os.environ)
        keep_internal_ports_on_loopback(self._settings.host)
        require_volatile()
        self._gate = self._settings.safety.load(self._settings.models)
        self._marks = self._settings.provenance.load()
        self._meter = _meter(self._settings)
        self._engines = self._settings.models.load(told=self._meter.batches(Kind.IMAGE))

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = self._settings
        room = RedisRoom(settings.redis_url, Policy())
        sessions, rates = _sessions(settings), _rates(settings)
        return _closed(
            create_image_swap(
                settings,
                room,
                sessions,
                self._engines,
                rates,
                gate=self._gate,
                marks=self._marks,
                meter=self._meter,
            )
        )


@serve.deployment
@serve.ingress()
class VideoSwap:
    """The process that owns the GPU and the clips."""

    def __init__(self) -> None:
        keep_logs_clean()
        self._settings = Settings.from_environment(os.environ)
        keep_internal_ports_on_loopback(self._settings.host)
        require_volatile()
        self._gate = self._settings.safety.load(self._settings.models)
        self._marks = self._settings.provenance.load()
        self._meter = _meter(self._settings)
        self._engines = self._settings.models.load(clips=True, told=self._meter.batches(Kind.VIDEO))
        prepare_process()
        self._encoder = choose_encoder(Encoder(preset=self._settings.video_preset))

    def __serve_build_asgi_app__(self) -> FastAPI:
        settings = self._settings
        room = RedisRoom(settings.redis_url, Policy())
        sessions = _sessions(settings)
        rates = _rates(settings)
        return _closed(
            create_video_swap(
                settings,
                room,
                sessions,
                self._engines,
                self._encoder,
                rates,
                gate=self._gate,
                marks=self._marks,
                meter=self._meter,
            )
        )


def _deployment(decorated: object) -> serve.Deployment:
    """Ray's decorator makes a Deployment of a class, which its type stubs don't say."""
    assert isinstance(decorated, serve.Deployment)
    return decorated


def applications(settings: Settings) -> dict[str, tuple[str, serve.Application]]:
    """Name -> (route prefix, bound application)."""
    image = _swapper(ImageSwap, settings, Kind.IMAGE, settings.image_replicas, settings.image_gpus)
    gateway = (
        _deployment(Gateway)
        .options(
            num_replicas=settings.gateway_replicas,
            # Every open event stream is one ongoing request.
            max_ongoing_requests=10_000,
            graceful_shutdown_timeout_s=5.0,
            logging_config=QUIET,
            ray_actor_options={"num_cpus": 0.1, "runtime_env": VOLATILE},
        )
        .bind()
    )
    chosen = {"image": ("/image", image)}
    if settings.video_replicas:
        video = _swapper(VideoSwap, settings, Kind.VIDEO, settings.video_replicas, settings.video_gpus)
        chosen["video"] = ("/video", video)
    return chosen | {"gateway": ("/", gateway)}


def _swapper(decorated: object, settings: Settings, kind: Kind, replicas: int, gpus: float) -> serve.Application:
    rules = settings.rules(kind)
    deployment = _deployment(decorated)
    sized = deployment.options(num_replicas=replicas) if rules is None else _scaled(deployment, kind, rules)
    if settings.replicas_per_node is not None:
        sized = sized.options(max_replicas_per_node=settings.replicas_per_node)
    return sized.options(
        max_ongoing_requests=64,
        graceful_shutdown_timeout_s=drain_seconds(settings, kind),
        ray_actor_options={"num_cpus": 0.1, "num_gpus": gpus, "runtime_env": VOLATILE},
        health_check_period_s=5.0,
        logging_config=QUIET,
    ).bind()


def _scaled(deployment: serve.Deployment, kind: Kind, rules: Rules) -> serve.Deployment:
    config = AutoscalingConfig(
        min_replicas=rules.minimum,
        max_replicas=rules.maximum,
        # The policy knows itself when to wait.
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
            policy_function=LinePolicy, policy_kwargs={"kind": kind.value}
        ),
    )
    return deployment.options(autoscaling_config=config)
