"""Replicas that are to go: they give their slots back at once, and get as long as a swap may take."""

import asyncio
import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nanoswap.pipelines.mp4 import Encoder
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.queue.ticket import Kind
from nanoswap.serve import replica
from nanoswap.serve.drain import drain_seconds, draining, longest_drain
from nanoswap.serve.local import ray_environment
from nanoswap.serve.replica import enlisted
from nanoswap.serve.video_swap import create_video_swap
from tests.serve.test_gateway import SETTINGS, Anyone


async def _perform_graceful_shutdown(end: asyncio.Event) -> None:
    """Stands in for Ray's, by its name."""
    await end.wait()


async def test_a_replica_that_drains_offers_nothing_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replica, "BEAT_SECONDS", 0.01)
    room, end = MemoryRoom(Policy()), asyncio.Event()

    async def slots() -> int:
        return (await room.line(Kind.IMAGE)).slots

    async def become(wanted: int) -> None:
        async with asyncio.timeout(10):
            while await slots() != wanted:
                await asyncio.sleep(0.01)

    async with enlisted(room, "w", Kind.IMAGE, 3):
        await become(3)
        assert not draining()
        ending = asyncio.create_task(_perform_graceful_shutdown(end))
        await become(0)
        await asyncio.sleep(0.05)
        assert await slots() == 0
        end.set()
        await ending


async def test_a_video_replica_says_how_many_of_its_turns_it_works_on() -> None:
    """Without that, a clip that waits in it would be taken for one that is nearly done."""
    offers: list[tuple[Kind, int, int | None]] = []

    class Told(MemoryRoom):
        async def enlist(self, worker: str, kind: Kind, slots: int, alive: float, *, jobs: int | None = None) -> None:
            offers.append((kind, slots, jobs))

    settings = replace(SETTINGS, video_slots=3, video_jobs=2)
    app = create_video_swap(settings, Told(Policy()), Anyone(), {}, Encoder(), gate=None)  # type: ignore[arg-type]
    async with app.router.lifespan_context(app), asyncio.timeout(10):
        while not offers:
            await asyncio.sleep(0.01)
    assert set(offers) == {(Kind.VIDEO, 3, 2)}


def test_ray_still_calls_it_so() -> None:
    code = """
import inspect
from ray.serve._private.replica import Replica
name = "_perform_graceful_shutdown"
assert inspect.iscoroutinefunction(getattr(Replica, name))
assert f"create_task(\\n                self.{name}()" in inspect.getsource(Replica.perform_graceful_shutdown)
"""
    assert inspect.iscoroutinefunction(_perform_graceful_shutdown)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_they_get_longer_than_all_that_a_swap_may_take() -> None:
    settings = replace(SETTINGS, upload_seconds=31, swap_seconds=120, upload_video_seconds=121, swap_video_seconds=900)
    settings = replace(settings, deliver_seconds=800)
    # The turn before it, its own, and its result on the way out.
    assert drain_seconds(settings, Kind.IMAGE) > 31 + 3 * 120
    assert drain_seconds(settings, Kind.VIDEO) > 121 + 900 + 800
    assert longest_drain(settings) == drain_seconds(settings, Kind.VIDEO)
    assert longest_drain(replace(settings, video_replicas=0)) == drain_seconds(settings, Kind.IMAGE)


def test_an_old_edge_process_lives_as_long(tmp_path: Path) -> None:
    assert float(ray_environment(tmp_path, 1234.5, 22_000)["RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S"]) >= 1234.5
