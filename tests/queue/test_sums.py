"""The sums on Redis and in memory: the same steps, the same answers."""

from collections.abc import AsyncIterator, Callable

import pytest
import redis

from nanoswap.queue.redis_sums import TURN_SECONDS, RedisSums
from nanoswap.queue.room import RoomUnavailable
from nanoswap.queue.sums import HEARD_SECONDS, MemorySums, SumStore

NOW = 1_800_000_000.0


class Clock:
    def __init__(self) -> None:
        self.seconds = NOW

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "redis"])
async def sums(request: pytest.FixtureRequest, redis_url: str, clock: Clock) -> AsyncIterator[SumStore]:
    makers: dict[str, Callable[[], SumStore]] = {
        "memory": lambda: MemorySums(clock=clock),
        "redis": lambda: RedisSums(redis_url, clock=lambda: round(clock() * 1000)),
    }
    made = makers[request.param]()
    yield made
    await made.close()


async def test_processes_add_up_and_nothing_goes_when_one_ends(sums: SumStore, clock: Clock) -> None:
    assert (await sums.read()).numbers == {}
    await sums.add("a", 1, {"x": 2, "y": 1}, None)
    await sums.add("b", 1, {"x": 5}, None)
    await sums.add("a", 2, {}, None)
    await sums.add("a", 3, {"x": 1}, None)
    clock.seconds += 10 * HEARD_SECONDS
    assert (await sums.read()).numbers == {"x": 8, "y": 1}


async def test_a_turn_that_is_sent_again_counts_once(sums: SumStore) -> None:
    for turn in (1, 1, 2, 1, 2):
        await sums.add("a", turn, {"x": 10}, None)
    assert (await sums.read()).numbers == {"x": 20}


async def test_age_is_that_of_the_oldest_keys_of_those_who_are_there(sums: SumStore, clock: Clock) -> None:
    await sums.add("a", 1, {}, None)
    assert (await sums.read()).keys_overdue is None
    await sums.add("a", 2, {}, 100.0)
    await sums.add("b", 1, {}, 400.0)
    clock.seconds += 5
    assert (await sums.read()).keys_overdue == 405.0
    clock.seconds += HEARD_SECONDS - 5
    await sums.add("a", 3, {}, 10.0)
    assert (await sums.read()).keys_overdue == 10.0, "b is gone"
    await sums.add("a", 4, {}, None)
    assert (await sums.read()).keys_overdue is None


async def test_an_emptied_store_begins_at_zero(redis_url: str) -> None:
    sums = RedisSums(redis_url)
    await sums.add("a", 1, {"x": 1000}, None)
    with redis.Redis.from_url(redis_url) as store:
        store.flushall()
        # Scripts too, as after a restart.
        store.script_flush()
    await sums.add("a", 2, {"x": 3}, None)
    assert (await sums.read()).numbers == {"x": 3}
    await sums.close()


async def test_keys_of_processes_lapse_and_name_nothing_but_them(redis_url: str) -> None:
    sums = RedisSums(redis_url)
    await sums.add("p1", 1, {"x": 1}, 5.0)
    with redis.Redis.from_url(redis_url, decode_responses=True) as store:
        assert {key.removeprefix("{nanoswap}:") for key in store.scan_iter()} == {"m", "mp:p1", "mh", "mk"}
        assert 0 < store.pttl("{nanoswap}:mp:p1") <= TURN_SECONDS * 1000
    await sums.close()


async def test_a_store_that_is_away_is_said_so() -> None:
    sums = RedisSums("unix:///nowhere/at/all")
    with pytest.raises(RoomUnavailable):
        await sums.read()
    with pytest.raises(RoomUnavailable):
        await sums.add("a", 1, {}, None)
    await sums.close()
