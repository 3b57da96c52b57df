"""A real Redis for the whole run, emptied before each test."""

from collections.abc import Iterator

import pytest
import redis

from nanoswap.queue.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    with redis.Redis.from_url(redis_server.url) as store:
        store.flushall()
    return redis_server.url
