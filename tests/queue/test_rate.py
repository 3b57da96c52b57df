"""Buckets, in memory and on a real Redis: the same rules, and nothing of a person in the store."""

import hashlib
import hmac
from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest
import redis

from nanoswap.queue.rate import Charge, MemoryRates, Rate, RateStore, bucket_name
from nanoswap.queue.redis_rates import RedisRates
from nanoswap.queue.room import RoomUnavailable

SECRET = b"s" * 32
FIVE, TWO = Rate("five", 5), Rate("two", 2)


class Clock:
    """Stands still until it is moved; ms."""

    def __init__(self) -> None:
        self.now = 1_800_000_000_000

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "redis"])
async def rates(request: pytest.FixtureRequest, clock: Clock, redis_url: str) -> AsyncIterator[RateStore]:
    memory = request.param == "memory"
    store: RateStore = MemoryRates(SECRET, clock=clock) if memory else RedisRates(redis_url, SECRET, clock=clock)
    yield store
    await store.close()


async def test_all_at_once_and_then_one_after_the_other(rates: RateStore, clock: Clock) -> None:
    one = [Charge(FIVE, "ann")]
    assert [await rates.spend(one) for _ in range(5)] == [0] * 5
    assert await rates.spend(one) == 12
    clock.now += 11_999
    assert await rates.spend(one) == 0.001
    clock.now += 1
    assert await rates.spend(one) == 0
    assert await rates.spend(one) == 12


async def test_owners_and_kinds_have_buckets_of_their_own(rates: RateStore) -> None:
    assert [await rates.spend([Charge(TWO, "ann")]) for _ in range(3)] == [0, 0, 30]
    assert await rates.spend([Charge(TWO, "bob")]) == 0
    assert await rates.spend([Charge(FIVE, "ann")]) == 0


async def test_all_charges_are_spent_or_none(rates: RateStore) -> None:
    both = [Charge(FIVE, "ann"), Charge(TWO, "ann")]
    assert [await rates.spend(both) for _ in range(4)] == [0, 0, 30, 30]
    # Two refusals took nothing of the larger bucket.
    assert [await rates.spend([Charge(FIVE, "ann")]) for _ in range(4)] == [0, 0, 0, 12]


async def test_what_is_owed_is_spent_without_asking_and_waited_for(rates: RateStore, clock: Clock) -> None:
    assert await rates.spend([Charge(FIVE, "eve", 7, owed=True)]) == 0
    assert await rates.spend([Charge(FIVE, "eve")]) == 36
    # Not for ever, whatever else is owed.
    assert await rates.spend([Charge(FIVE, "eve", 1000, owed=True)]) == 0
    assert await rates.spend([Charge(FIVE, "eve")]) == 72
    clock.now += 72_000
    assert await rates.spend([Charge(FIVE, "eve")]) == 0


async def test_one_bucket_charged_twice_at_once_is_charged_twice(rates: RateStore) -> None:
    assert await rates.spend([Charge(FIVE, "ann", 3), Charge(FIVE, "ann", 3)]) == 12
    assert await rates.spend([Charge(FIVE, "ann", 3), Charge(FIVE, "ann", 2)]) == 0
    assert await rates.spend([Charge(FIVE, "ann")]) == 12


async def test_more_than_a_bucket_holds_is_never_admitted(rates: RateStore) -> None:
    assert await rates.spend([Charge(TWO, "ann", 3)]) == 30
    assert await rates.spend([Charge(TWO, "ann", 2)]) == 0


async def test_the_store_holds_no_address_and_forgets(redis_url: str) -> None:
    rates = RedisRates(redis_url, SECRET)
    await rates.spend([Charge(TWO, "203.0.113.7")])
    await rates.close()
    with redis.Redis.from_url(redis_url) as store:
        keys = sorted(store.keys(), reverse=True)
        assert [key.rpartition(b":")[0] for key in keys] == [b"{nanoswap}", b"{nanoswap}:rate"]
        held = b"".join(keys) + b"".join(store.get(key) for key in keys)
        assert b"203.0.113.7" not in held
        assert b"two" not in held
        salt, name = store.get(keys[0]), keys[1].rpartition(b":")[2].decode()
        assert name == bucket_name(SECRET, salt, Charge(TWO, "203.0.113.7"))
        # With the store alone the name of an address can't be computed.
        for key in (salt, b"", hmac.digest(b"", b"nanoswap rate" + salt, "sha256")):
            assert not hmac.new(key, b"two\0203.0.113.7", hashlib.sha256).hexdigest().startswith(name)
        assert 0 < store.pttl(keys[0]) <= 86_400_000
        assert 0 < store.pttl(keys[1]) <= 30_000


async def test_processes_share_their_buckets_until_the_key_is_forgotten(redis_url: str) -> None:
    first, second = RedisRates(redis_url, SECRET), RedisRates(redis_url, SECRET)
    assert await first.spend([Charge(TWO, "ann", 2)]) == 0
    assert await second.spend([Charge(TWO, "ann")]) > 0
    with redis.Redis.from_url(redis_url) as store:
        store.delete("{nanoswap}:ratekey")
    third = RedisRates(redis_url, SECRET)
    assert await third.spend([Charge(TWO, "ann", 2)]) == 0
    for one in (first, second, third):
        await one.close()


async def test_processes_meet_again_a_minute_after_the_store_was_emptied(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr("nanoswap.queue.redis_rates.time", SimpleNamespace(monotonic=lambda: now))
    before, after = RedisRates(redis_url, SECRET), RedisRates(redis_url, SECRET)
    await before.spend([Charge(TWO, "ann")])
    with redis.Redis.from_url(redis_url) as store:
        store.flushall()
    now += 60
    assert await before.spend([Charge(TWO, "ann")]) == 0
    assert await after.spend([Charge(TWO, "ann")]) == 0
    assert await after.spend([Charge(TWO, "ann")]) > 0
    for one in (before, after):
        await one.close()


async def test_script_comes_back_after_the_server_has_forgotten_it(redis_url: str) -> None:
    rates = RedisRates(redis_url, SECRET)
    assert await rates.spend([Charge(TWO, "ann")]) == 0
    with redis.Redis.from_url(redis_url) as store:
        store.script_flush()
    assert await rates.spend([Charge(TWO, "ann")]) == 0
    assert await rates.spend([Charge(TWO, "ann")]) > 0
    await rates.close()


async def test_a_store_that_answers_and_refuses_is_not_away(redis_url: str) -> None:
    rates = RedisRates(redis_url, SECRET)
    await rates.spend([Charge(TWO, "ann")])
    with redis.Redis.from_url(redis_url) as store:
        (bucket,) = store.keys("*:rate:*")
        store.delete(bucket)
        store.lpush(bucket, "not a number")
    with pytest.raises(redis.ResponseError):
        await rates.spend([Charge(TWO, "ann")])
    await rates.close()


@pytest.mark.parametrize("command", ["CONFIG SET maxmemory 1", "REPLICAOF 127.0.0.1 1"])
async def test_a_store_that_may_not_write_is_as_good_as_away(redis_url: str, command: str) -> None:
    with redis.Redis.from_url(redis_url) as store:
        for fresh in (True, False):
            rates = RedisRates(redis_url, SECRET)
            if not fresh:
                await rates.spend([Charge(TWO, "bob")])
            store.execute_command(*command.split())
            try:
                with pytest.raises(RoomUnavailable):
                    await rates.spend([Charge(TWO, "ann")])
            finally:
                store.config_set("maxmemory", 0)
                store.replicaof("NO", "ONE")
            await rates.close()


async def test_store_that_is_away_says_so() -> None:
    rates = RedisRates("unix:///nowhere/redis.sock", SECRET)
    with pytest.raises(RoomUnavailable):
        await rates.spend([Charge(TWO, "ann")])
    await rates.close()
