"""The image replica as a plain ASGI application: the real endpoint and pixels, a waiting room in memory, an engine that
says what it was asked."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.engine import Engine, Pair, Request, Source
from nanoswap.pipelines.errors import Cancelled, ContentRefused
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.gate import Gate
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.swap import Found
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.image_swap import create_image_swap
from nanoswap.serve.settings import Settings
from tests.clips import portrait
from tests.serve.conftest import jpeg
from tests.serve.test_gateway import SETTINGS, Anyone, person
from tests.stand_ins.gate import MAGENTA

#: More than the threads that an event loop brings on any machine (32 at most).
MANY = 40


class Meeting(MeshEngine):
    """Paints nobody before so many are here at once, and finds faces only once."""

    def __init__(self, people: int) -> None:
        super().__init__()
        self.met = threading.Barrier(people, timeout=30)
        self.seeds: list[int] = []
        self.faces = super().detect(portrait("hopper"))

    def detect(self, rgb: np.ndarray) -> tuple[Face, ...]:
        return self.faces

    def swap(self, pairs: Sequence[Pair], source: Source, request: Request) -> list[Roi]:
        self.met.wait()
        self.seeds.append(request.seed)
        return [Roi(0, 0, 0, 0) for _ in pairs]


@asynccontextmanager
async def service(
    settings: Settings, room: MemoryRoom | None = None, *, gate: Gate | None = None, **engines: Engine
) -> AsyncIterator[tuple[object, object]]:
    """A gateway and an image replica that share a room."""
    room = room or MemoryRoom(Policy())
    gateway = create_gateway(settings, room, Anyone())  # type: ignore[arg-type]
    replica = create_image_swap(settings, room, Anyone(), engines, gate=gate)  # type: ignore[arg-type]
    async with AsyncExitStack() as stack:
        for app in (gateway, replica):
            await stack.enter_async_context(app.router.lifespan_context(app))
        yield gateway, replica


async def swap(apps: tuple[object, object], name: str, picture: bytes, **fields: str) -> httpx.Response:
    """One person's swap, from the place in line to the answer."""
    declared = {"kind": "image", "bytes": 2 * len(picture), "width": 512, "height": 600, "consent": "likeness-3"}
    gateway, replica = apps
    async with person(gateway, name) as line, person(replica, name) as here:
        ticket = (await line.post("/v1/tickets", json=declared)).json()
        while ticket["state"] == "waiting":
            await asyncio.sleep(0.02)
            ticket = (await line.get(ticket["links"]["self"])).json()
        path = ticket["links"]["swap"].removeprefix("/image")
        files = {"source": ("a", picture), "target": ("b", picture)}
        return await here.post(path, headers={"Grant": ticket["grant"]}, files=files, data=fields, timeout=60)


async def test_pictures_run_at_once_in_as_many_threads_as_there_are_slots(tmp_path: Path) -> None:
    engine = Meeting(MANY)
    settings = replace(SETTINGS, image_slots=MANY, gpu_lock=str(tmp_path / "gpu"))
    picture = jpeg(portrait("hopper"))
    async with service(settings, mesh=engine) as apps:
        answers = await asyncio.gather(*(swap(apps, f"p{one}", picture, seed=str(one)) for one in range(MANY)))
    assert [answer.status_code for answer in answers] == [200] * MANY
    # What each has asked for has reached the engine.
    assert sorted(engine.seeds) == list(range(MANY))


async def test_a_look_at_faces_that_is_given_up_keeps_its_picture_until_the_thread_has_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looking, held = threading.Event(), []

    def look(engine: object, target: bytearray, limits: object, cancel: CancelToken) -> Found:
        looking.set()
        for _ in range(200):
            if cancel.cancelled:
                time.sleep(0.2)  # time for a caller that doesn't wait to wipe it
                break
            time.sleep(0.05)
        held.append((cancel.cancelled, bytes(target)))
        raise Cancelled

    monkeypatch.setattr("nanoswap.serve.image_swap.find_faces", look)
    picture = jpeg(portrait("hopper"))
    async with service(SETTINGS, mesh=MeshEngine()) as (_, replica), person(replica, "ann") as here:
        task = asyncio.create_task(here.post("/v1/faces", files={"target": ("t", picture)}))
        assert await asyncio.to_thread(looking.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert held == [(True, picture)]


async def test_seed_that_is_none_is_refused_by_name() -> None:
    engine = Meeting(1)
    async with service(SETTINGS, mesh=engine) as apps:
        picture = jpeg(portrait("hopper"))
        answer = await swap(apps, "ann", picture, seed="4294967296")
        assert (answer.status_code, answer.json()["code"], answer.json()["part"]) == (422, "bad_request", "seed")
        assert "0 to 4294967295" in answer.json()["detail"]
        assert (await swap(apps, "ann", picture, seed="4294967295")).status_code == 200
    assert engine.seeds == [2**32 - 1]


async def ended(apps: tuple[object, object], name: str) -> dict[str, object]:
    """How the account stands, which has swapped once."""
    async with person(apps[0], name) as line:
        return dict((await line.get("/v1/quota")).json())


class Counting(MeshEngine):
    def __init__(self) -> None:
        super().__init__()
        self.painted = 0

    def swap(self, pairs: Sequence[Pair], source: Source, request: Request) -> list[Roi]:
        self.painted += len(pairs)
        return super().swap(pairs, source, request)


async def test_gate_refuses_in_one_sentence_and_the_account_pays_as_for_a_picture_without_a_face(gate: Gate) -> None:
    clean = portrait("hopper")
    marked = clean.copy()
    marked[-80:] = MAGENTA
    engine = Counting()
    # Of the first person the picture is intimate, of the second there is no face, the third is let through.
    async with service(SETTINGS, gate=gate, mesh=engine) as apps:
        refused = await swap(apps, "ann", jpeg(marked))
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.json() == {
            "type": "/problems#content_refused",
            "title": "This content isn't swapped here",
            "status": 422,
            "code": "content_refused",
            "detail": str(ContentRefused()),
        }
        assert engine.painted == 0
        faceless = await swap(apps, "bob", jpeg(np.full((600, 512, 3), 99, np.uint8)))
        assert faceless.json()["code"] == "no_face"
        spent = [await ended(apps, name) for name in ("ann", "bob")]
        for account in spent:
            assert account["open_tickets"] == 0
            # What was used, a fraction of a second, and not what was declared.
            assert 0 <= account["horizon_seconds"] - account["available_seconds"] < 5  # type: ignore[operator]
        assert (await swap(apps, "cho", jpeg(clean))).status_code == 200
    assert engine.painted == 1


async def test_replica_gives_the_gate_to_each_swap() -> None:
    class Refusing:
        def check_content(self, rgb: np.ndarray, faces: Sequence[Face]) -> None: ...

        def rinse(self) -> None: ...

        def check_ages(self, rgb: np.ndarray, faces: Sequence[Face]) -> None:
            raise ContentRefused

    async with service(SETTINGS, gate=Refusing(), mesh=Counting()) as apps:
        assert (await swap(apps, "ann", jpeg(portrait("hopper")))).json()["code"] == "content_refused"


async def test_a_picture_that_takes_too_long_is_refused_and_charged_what_it_took() -> None:
    room = MemoryRoom(Policy())
    settings = replace(SETTINGS, swap_seconds=0.0)
    picture = jpeg(portrait("hopper"))
    async with service(settings, room, mesh=Meeting(1)) as apps:
        answer = await swap(apps, "ann", picture)
        looked = await look(apps, "ann", picture)
        async with person(apps[0], "ann") as line:
            open_now = (await line.get("/v1/quota")).json()["open_tickets"]
    assert (answer.status_code, answer.json()["code"]) == (422, "timed_out")
    assert (looked.status_code, looked.json()["code"]) == (422, "timed_out")
    # The turn is over: it would take as long the next time.
    assert open_now == 0


async def look(apps: tuple[object, object], name: str, picture: bytes) -> httpx.Response:
    """One person's look at the faces of a picture."""
    async with person(apps[1], name) as here:
        return await here.post("/v1/faces", files={"target": ("t", picture)})
