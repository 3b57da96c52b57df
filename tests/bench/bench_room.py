"""The waiting room's operations per second on a real Redis, by length of the line.

Usage: ``python tests/bench/bench_room.py [length …]`` (default 100 10000 1000000). One connection, one call at a time
for join, grant and redeem; beats go in pipelines of 500 as the gateway sends them. The rival
is the same room at a hundred.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import redis

from nanoswap.queue.redis_room import RedisRoom
from nanoswap.queue.redis_script import PREFIX
from nanoswap.queue.redis_server import RedisServer
from nanoswap.queue.room import Policy
from nanoswap.queue.ticket import Declaration, Kind

CALLS = 1000
POLICY = Policy(max_tickets_per_account=10**9, max_waiting=10**9, horizon=1e12, presence=36_000.0, ahead=0)
DECLARATION = Declaration(kind=Kind.IMAGE, bytes=1000, width=100, height=100, frames=1, consent="likeness-3")


def fill(url: str, length: int) -> None:
    """Put people into the line as ``join`` would have, by pipelined commands."""
    now = int(time.time() * 1000)
    with redis.Redis.from_url(url) as store:
        store.flushall()
        pipeline = store.pipeline(transaction=False)
        for number in range(length):
            ticket, account = f"t_{number:020d}", f"{number:064x}"
            fields = {
                "acc": account, "kind": "image", "est": 500, "debt": 5000, "score": now + number, "joined": now,
                "attempts": 0, "predicted": -1, "bytes": 1, "width": 1, "height": 1, "frames": 1,
                "consent": "likeness-3", "state": "waiting",
            }  # fmt: skip
            pipeline.hset(f"{PREFIX}:t:{ticket}", mapping=fields)
            pipeline.zadd(f"{PREFIX}:q:image", {ticket: now + number})
            pipeline.zadd(f"{PREFIX}:hb", {ticket: now + 36_000_000})
            if number % 2000 == 1999:
                pipeline.execute()
        pipeline.execute()
        store.set(f"{PREFIX}:work:image", length * 500)


async def rate(calls: int, call: Callable[[int], Awaitable[object]], each: int = 1) -> float:
    """Best of three runs, operations per second."""
    best = 0.0
    for _ in range(3):
        started = time.perf_counter()
        for number in range(calls):
            await call(number)
        best = max(best, calls * each / (time.perf_counter() - started))
    return best


async def measure(url: str, length: int) -> dict[str, float]:
    room = RedisRoom(url, POLICY)
    found: dict[str, float] = {}
    found["join"] = await rate(
        CALLS // 3, lambda number: room.join(f"acc{time.time_ns()}", DECLARATION, 0.5, idempotency_key=None)
    )
    ids = [f"t_{number * max(1, length // 500):020d}" for number in range(min(500, length))]
    found["beat+rank"] = await rate(4, lambda _: room.beat(ids), len(ids))
    granted: list[str] = []

    async def grant(number: int) -> None:
        await room.enlist("w", Kind.IMAGE, len(granted) + 1, 3600)
        granted.extend(await room.grant(Kind.IMAGE))

    turns = min(300, length // 4)
    found["enlist+grant"] = await rate(turns // 3, grant)
    places = [place for place in await room.beat(granted) if place is not None]
    started = time.perf_counter()
    for place in places:
        await room.redeem(place.ticket.id, place.ticket.account, place.ticket.grant or "", "w")
    found["redeem"] = len(places) / (time.perf_counter() - started)
    await room.close()
    return found


def main() -> None:
    lengths = [int(word) for word in sys.argv[1:]] or [100, 10_000, 1_000_000]
    table: dict[int, dict[str, float]] = {}
    with RedisServer() as server:
        with redis.Redis.from_url(server.url) as store:
            store.config_set("maxmemory", "0")
        for length in lengths:
            fill(server.url, length)
            table[length] = asyncio.run(measure(server.url, length))
    names = list(next(iter(table.values())))
    print(f"{'per second':<14}" + "".join(f"{length:>14,}" for length in lengths) + f"{'cost, last/first':>18}")
    for name in names:
        values = [table[length][name] for length in lengths]
        print(f"{name:<14}" + "".join(f"{value:>14,.0f}" for value in values) + f"{values[0] / values[-1]:>17.2f}x")


if __name__ == "__main__":
    main()
