"""The whole service on one machine, from one command: Redis, sign-in, Ray, edge.

What is configured is used; what isn't is started here, private to this run and gone with it: a Redis on a unix socket
without persistence, a development issuer on loopback, an embedded Ray whose files live in memory where the system has
a memory file system. One folder holds every file of the run, and it is removed at the end.
"""

import logging
import math
import os
import random
import resource
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx

from nanoswap.queue.issuer import DEMO_EMAIL, DEMO_PASSWORD
from nanoswap.queue.redis_server import RedisServer
from nanoswap.serve.development_certificate import write_development_certificate
from nanoswap.serve.drain import longest_drain
from nanoswap.serve.haproxy import edge_environment
from nanoswap.serve.issuer_process import issuer_process
from nanoswap.serve.safety_settings import OFF, for_development
from nanoswap.serve.scratch import scratch
from nanoswap.serve.settings import DEVELOPMENT, Settings, new_secret
from nanoswap.serve.volatility import refuse_cores

log = logging.getLogger(__name__)

READY_SECONDS = 90.0
#: For what is answered at that moment; event streams are opened anew elsewhere, or not at all.
GATEWAY_SECONDS = 10.0
LOG_BYTES = 1_048_576  # of one file of Ray's own log
HOUR_MS = "3600000"
#: A replica's port isn't used again for half an hour, so there are many more than replicas.
SERVICE_PORTS = 250
OBJECT_STORE_BYTES = 78_643_200  # Ray's minimum: nothing of ours is ever in it


def run(environment: MutableMapping[str, str], *, say: Callable[[str], None]) -> int:
    """Serve until SIGINT or SIGTERM. ``environment`` is the process's own: Ray's workers inherit it."""
    # The edge holds what it passes on, and a core of it would be a file. All that starts from here inherits this.
    refuse_cores()
    stop, hurry = threading.Event(), threading.Event()
    with local_service(environment, hurry) as settings:
        # Not earlier: until now Ctrl-C is a KeyboardInterrupt that unwinds the start, and Ray sets handlers of its own.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        say(f"Nanoswap is ready: http://{settings.host}:{settings.port}")
        if settings.development:
            say(f"Demo account: {DEMO_EMAIL} / {DEMO_PASSWORD} (development sign-in at {settings.auth_url})")
        if not settings.safety.gate:
            say("No safety gate: for development only." if settings.development else f"Warning: {OFF}.")
        say("Ctrl-C stops it and removes everything it made.")
        while not stop.wait(0.5):
            pass
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: hurry.set())
        say("Stopping when the swaps that run are done; Ctrl-C again stops at once.")
    return 0


@contextmanager
def local_service(environment: MutableMapping[str, str], hurry: threading.Event) -> Iterator[Settings]:
    """Start everything that isn't configured and yield when the service answers. At the end swaps that run are waited
    for until ``hurry`` is set."""
    before = dict(environment)
    with ExitStack() as stack:
        folder = stack.enter_context(scratch(_warn))
        environment.update(child_environment(folder))
        environment.setdefault("NANOSWAP_SECRET", new_secret())
        environment.setdefault("NANOSWAP_PORT", "8000")
        if "REDIS_URL" not in environment:
            environment["REDIS_URL"] = stack.enter_context(RedisServer(parent=folder)).url
        if "SUPABASE_URL" not in environment and "NANOSWAP_AUTH_URL" not in environment:
            origin = f"http://127.0.0.1:{environment['NANOSWAP_PORT']}"
            environment["NANOSWAP_AUTH_URL"] = stack.enter_context(issuer_process([origin]))
            # Who brings a sign-in of their own, on loopback or not, may have people behind it.
            environment[DEVELOPMENT] = "1"
            for_development(environment)
            _mark_development(environment, folder)
        # One machine: pictures and clips share its processor, or its one GPU.
        environment.setdefault("NANOSWAP_GPU_LOCK", str(folder / "gpu"))
        settings = Settings.from_environment(environment)
        # Here it is one line; in a replica it would be a start that never ends.
        settings.models.check(clips=settings.video_replicas > 0)
        settings.safety.check(settings.models)
        settings.provenance.load()
        ports = stack.enter_context(service_ports())
        environment.update(ray_environment(folder, longest_drain(settings), ports))
        stack.callback(_restore, environment, before)
        stack.enter_context(_ray(settings, folder, hurry))
        _wait_until_ready(settings)
        yield settings


def _mark_development(environment: MutableMapping[str, str], folder: Path) -> None:
    """Where people sign in with the development issuer, results are signed with a certificate of this run, and nothing
    is written into their pixels unless it is asked for."""
    environment.setdefault("NANOSWAP_LABEL", "off")
    if "NANOSWAP_C2PA_CERTIFICATE" not in environment and "NANOSWAP_C2PA_KEY" not in environment:
        chain, key = write_development_certificate(folder)
        environment.update(NANOSWAP_C2PA_CERTIFICATE=str(chain), NANOSWAP_C2PA_KEY=str(key))


def child_environment(folder: Path) -> dict[str, str]:
    """What every process below is told, so that it writes nowhere else."""
    temporary = folder / "t"
    temporary.mkdir()
    return {
        "TMPDIR": str(temporary),
        # No .pyc: their folders may be read-only, and where they aren't they are no business of a running service.
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def ray_environment(folder: Path, drain: float, ports: int) -> dict[str, str]:
    """What Ray must be told before it starts; each line closes a path by which media or data could leave. ``drain``:
    seconds that a swap may take. ``ports``: the first of this service's own: three for the edge, then the replicas'."""
    return edge_environment() | {
        # Ray gives every service of a machine the same ports for its replicas: the port of one that died could be
        # another service's before the edge has heard of it, and people would be sent there.
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(ports + 3),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(ports + SERVICE_PORTS - 2),
        # Bodies enter the replica's own server through HAProxy, not Ray's proxy and object store.
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "a"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "m"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "state"),
        # Nothing is sent to it (haproxy.py), and it would share its port with whoever has it.
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports + 1),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports + 2),
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        # Replicas that come or go make a new edge process; the old one lives until the longest result has been taken.
        "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(math.ceil(drain)),
        "RAY_SERVE_HAPROXY_MAXCONN": str(max_connections()),
        # An edge that died is made anew after the third look that misses it.
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
        # Only on the main loop is a slow reader's back-pressure real.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        # The scratch has an end. A file of Ray's log is put aside at one MiB, once, and what is logged
        # by the clock is logged once an hour (0 would be as often as the processor can).
        "RAY_ROTATION_MAX_BYTES": str(LOG_BYTES),
        "RAY_ROTATION_BACKUP_COUNT": "1",
        "RAY_event_stats_print_interval_ms": HOUR_MS,
        "RAY_debug_dump_period_milliseconds": HOUR_MS,
        # Loopback instead of the machine's address for every internal port of a one-machine cluster.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
    }


def _warn(message: str) -> None:
    print(f"Warning: {message}", file=sys.stderr)


def max_connections() -> int:
    """How many connections the edge may hold: each takes two descriptors, and some are needed besides."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 12_000
    return most if hard == resource.RLIM_INFINITY else min(most, max(256, (hard - 1024) // 3))


def free_port() -> int:
    """A TCP port on loopback that nothing listens on at this moment. It is none of those that systems give to outgoing
    connections, of which one might take it before it is bound, nor of Ray's workers' (10002 to 19999)."""
    while True:
        port = random.randrange(20_000, 22_000)
        if not _taken(port):
            return port


@contextmanager
def service_ports() -> Iterator[int]:
    """The first of SERVICE_PORTS ports for the inside of one service, which has them to itself while the block runs.

    The last of them is held by a socket that takes nothing: until the first replica is there, another service that
    starts would find them all free.
    """
    while True:
        first = random.randrange(22_000, 32_000, SERVICE_PORTS)
        with socket.socket() as claim:
            try:
                claim.bind(("127.0.0.1", first + SERVICE_PORTS - 1))
            except OSError:
                continue
            if not any(map(_taken, range(first, first + 16))):
                yield first
                return


def _taken(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


@contextmanager
def _ray(settings: Settings, folder: Path, hurry: threading.Event) -> Iterator[None]:
    # Imported here: Ray Serve reads its environment once, when it is imported.
    import ray
    from ray import serve

    from nanoswap.serve.app import QUIET, applications

    ray.init(
        num_cpus=max(4, os.cpu_count() or 1),
        include_dashboard=False,
        _temp_dir=str(folder / "ray"),
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    try:
        serve.start(http_options={"host": settings.host, "port": settings.port}, logging_config=QUIET)
        chosen = applications(settings).items()
        # At once: a replica's start is mostly imports and waiting. One after the other took 31 s, so it takes 17.
        serve.run_many([serve.RunTarget(app, name=name, route_prefix=prefix) for name, (prefix, app) in chosen])
        yield
    finally:
        with suppress(Exception):
            _drain(settings, hurry)
        ray.shutdown()


def _drain(settings: Settings, hurry: threading.Event) -> None:
    """End the replicas that swap when they have done what they began, then the gateway: until then it tells people how
    their swaps went."""
    from ray import serve

    for names, seconds in ((("image", "video"), longest_drain(settings)), (("gateway",), GATEWAY_SECONDS)):
        there = set(serve.status().applications).intersection(names)
        for name in there:
            serve.delete(name, _blocking=False)
        deadline = time.monotonic() + seconds
        while there.intersection(serve.status().applications) and time.monotonic() < deadline:
            if hurry.wait(0.2):
                return


def _wait_until_ready(settings: Settings) -> None:
    url = f"http://{settings.host}:{settings.port}/readyz"
    deadline = time.monotonic() + READY_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=2.0).status_code == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(f"the service did not become ready within {READY_SECONDS:g} s")


def _restore(environment: MutableMapping[str, str], before: dict[str, str]) -> None:
    for name in set(environment) - set(before):
        del environment[name]
    environment.update(before)
