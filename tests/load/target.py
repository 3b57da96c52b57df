"""The whole service on this machine, with a store and an auth service that whoever loads it can take away."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from nanoswap.queue.redis_server import RedisServer
from nanoswap.serve.development_certificate import write_development_certificate
from nanoswap.serve.process_memory import tree
from tests.load.accounts import AuthService
from tests.serve.conftest import start_service, stop_service
from tests.serve.processes import resident


@dataclass(frozen=True, slots=True)
class Target:
    """A running service. ``root``: the first process of the service."""

    url: str
    root: int
    redis: RedisServer
    auth: AuthService


@contextmanager
def target(**environment: str) -> Iterator[Target]:
    """A service whose store and auth service can be taken away."""
    with AuthService() as auth, RedisServer() as redis, tempfile.TemporaryDirectory() as folder:
        chain, key = write_development_certificate(Path(folder))
        service = start_service(
            NANOSWAP_AUTH_URL=auth.url,
            REDIS_URL=redis.url,
            NANOSWAP_REGION="elsewhere",
            NANOSWAP_GATE="off",
            NANOSWAP_LABEL="off",
            NANOSWAP_C2PA_CERTIFICATE=str(chain),
            NANOSWAP_C2PA_KEY=str(key),
            **environment,
        )
        try:
            yield Target(service.url, service.process.pid, redis, auth)
        finally:
            stop_service(service)


def held(root: int) -> int:
    """Bytes that the processes of the service hold for themselves."""
    total = 0
    for pid in tree(root):
        try:
            total += resident(pid)
        except OSError:
            continue  # it has just ended
    return total
