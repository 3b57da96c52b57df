"""The numbers of ``/metrics``: what is counted is what happened, and nothing that a person sent is in it."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from nanoswap.pipelines.errors import ContentRefused
from nanoswap.pipelines.gate import Gate
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy, RoomUnavailable
from nanoswap.queue.session import Session, SessionUntrusted
from nanoswap.queue.sums import MemorySums, Sums, SumStore
from nanoswap.queue.ticket import Kind
from nanoswap.serve import metrics
from nanoswap.serve.exposition import Reading, exposition
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.image_swap import create_image_swap
from nanoswap.serve.meter import Meter
from nanoswap.serve.metrics import ASKED, COUNTED, OTHER, PAGE, REQUESTS, ROUTES, UNANSWERED, UNROUTED
from nanoswap.serve.public_settings import PublicSettings
from nanoswap.serve.settings import Settings
from nanoswap.serve.turn_record import rounded_up
from nanoswap.serve.video_swap import create_video_swap
from nanoswap.serve.webhook import WebhookKey
from tests.clips import portrait
from tests.serve.conftest import jpeg
from tests.serve.test_gateway import BODY, SETTINGS, person
from tests.serve.test_verification import REPORT

TOKEN = "t" * 32
CANARY = "canary7f3a"
SHOWN = replace(SETTINGS, metrics_token=TOKEN)


class Anyone:
    """Takes the token itself as the account's name; its keys are a minute old."""

    keys_overdue = 60.0

    async def verify(self, token: str) -> Session:
        if token == TOKEN:
            raise SessionUntrusted
        return Session(account=token, session_id="s", expires_at=2**40, anonymous=False)

    async def confirm(self, token: str, session: Session) -> None: ...

    async def close(self) -> None: ...


class Refusing:
    """A gate that finds every picture unfit."""

    def check_content(self, rgb: object, faces: object) -> None:
        raise ContentRefused("content")

    def check_ages(self, rgb: object, faces: object) -> None: ...

    def rinse(self) -> None: ...


@dataclass(frozen=True, slots=True)
class House:
    """A gateway and an image replica with one room and one store of sums."""

    gateway: FastAPI
    replica: FastAPI
    room: MemoryRoom
    meters: tuple[Meter, Meter]

    async def text(self) -> str:
        for meter in self.meters:
            await meter.publish(60.0)
        async with person(self.gateway, TOKEN) as prometheus:
            answer = await prometheus.get("/metrics")
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        assert answer.headers["cache-control"] == "no-store"
        return answer.text

    async def numbers(self) -> dict[str, float]:
        return parsed(await self.text())


def parsed(text: str) -> dict[str, float]:
    """``name{label="value",…}`` -> value, as the official parser reads it."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found


async def house(stack: AsyncExitStack, settings: Settings = SHOWN, gate: Gate | None = None) -> House:
    room, sums = MemoryRoom(Policy()), MemorySums()
    meters = Meter(sums), Meter(sums)
    gateway = create_gateway(settings, room, Anyone(), meter=meters[0])  # type: ignore[arg-type]
    replica = create_image_swap(
        settings,
        room,
        Anyone(),
        {"mesh": MeshEngine()},
        gate=gate,
        meter=meters[1],  # type: ignore[arg-type]
    )
    for app in (gateway, replica):
        await stack.enter_async_context(app.router.lifespan_context(app))
    return House(gateway, replica, room, meters)


@pytest.fixture
async def here() -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        yield await house(stack)


async def swap(here: House, name: str, picture: bytes, **fields: str) -> httpx.Response:
    declared = BODY | {"bytes": 2 * len(picture), "width": 512, "height": 600}
    async with person(here.gateway, name) as line, person(here.replica, name) as process:
        ticket = (await line.post("/v1/tickets", json=declared)).json()
        while ticket["state"] == "waiting":
            await asyncio.sleep(0.02)
            ticket = (await line.get(ticket["links"]["self"])).json()
        path = ticket["links"]["swap"].removeprefix("/image")
        files = {"source": (f"{CANARY}.jpg", picture), "target": (f"{CANARY}.jpg", picture)}
        headers = {"Grant": ticket["grant"], "User-Agent": CANARY}
        return await process.post(path, headers=headers, files=files, data=fields, timeout=60)


async def test_without_a_token_there_is_no_such_address() -> None:
    async with AsyncExitStack() as stack:
        closed = await house(stack, SETTINGS)
        async with person(closed.gateway, TOKEN) as anybody:
            answer = await anybody.get("/metrics")
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", f"Bearer {TOKEN}x", f"bearer {TOKEN[:-1]}", TOKEN, "Bearer \xff"]
)
async def test_without_the_token_it_answers_as_an_address_that_is_not_there(here: House, header: str | None) -> None:
    transport = httpx.ASGITransport(here.gateway)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as anybody:
        headers = {} if header is None else {"Authorization": header.encode("latin-1")}
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
            answer = await anybody.request(method, "/metrics", headers=headers)  # type: ignore[arg-type]
            nowhere = await anybody.request(method, "/metricz")
            assert answer.status_code == nowhere.status_code == 404, method
            assert answer.content == nowhere.content, method


async def test_every_name_is_there_before_anything_has_happened(here: House) -> None:
    found = await here.numbers()
    names = {name.partition("{")[0] for name in found}
    # The report of prove isn't there, and what is sparse comes with its first request: the one of this test.
    missing = {metrics.PROVE_TIME.name, metrics.PROVE_PASSED.name, "nanoswap_http_requests_total"}
    for family in (*ASKED, *COUNTED):
        ends = {"counter": "_total", "histogram": "_bucket", "gauge": ""}
        assert family.name + ends[family.type] in names | missing
    assert found["nanoswap_gate_refusals_total{reason=content}"] == 0
    assert found["nanoswap_tickets_total{kind=video,state=aborted}"] == 0


async def test_numbers_are_what_happened(here: House) -> None:
    picture = jpeg(portrait("hopper"))
    delivered = await swap(here, "ann", picture)
    assert delivered.status_code == 200
    busy = (await here.numbers())["nanoswap_busy_seconds_total{kind=image}"]
    # Both are whole milliseconds of the same number.
    assert abs(busy - float(delivered.headers["x-gpu-seconds"])) < 0.0015
    async with person(here.gateway, "bob") as bob:
        waiting = (await bob.post("/v1/tickets", json=BODY)).json()
        await bob.delete(f"/v1/tickets/{waiting['id']}")
        await bob.post("/v1/tickets", json=BODY | {"kind": "video", "frames": 300})
    assert (await swap(here, "cem", jpeg(portrait("hopper")[:40, :40]))).status_code == 422
    found = await here.numbers()
    image = {
        state: found[f"nanoswap_tickets_total{{kind=image,state={state}}}"]
        for state in ("waiting", "granted", "running", "succeeded", "failed", "canceled")
    }
    assert image == {"waiting": 3, "granted": 3, "running": 2, "succeeded": 1, "failed": 1, "canceled": 1}
    assert found["nanoswap_grants_total{kind=image}"] == 3
    assert found["nanoswap_wait_seconds_count{kind=image}"] == 3
    assert found["nanoswap_waiting{kind=video}"] == 1
    assert found["nanoswap_work_seconds{kind=video}"] > 1
    assert (found["nanoswap_slots{kind=image}"], found["nanoswap_workers{kind=image}"]) == (1, 1)
    assert found["nanoswap_jwks_overdue_seconds{}"] >= 60
    for stage in ("upload", "ready", "decode"):
        assert found[f"nanoswap_stage_seconds_count{{kind=image,stage={stage}}}"] == 2, stage
    for stage in ("detect", "swap", "encode", "deliver"):
        assert found[f"nanoswap_stage_seconds_count{{kind=image,stage={stage}}}"] >= 1, stage
    assert found["nanoswap_stage_seconds_count{kind=image,stage=other}"] == 0
    swaps = "nanoswap_http_requests_total{{route=/image/v1/tickets/{{ticket_id}}/swap,status={}}}"
    assert (found[swaps.format(200)], found[swaps.format(422)]) == (1, 1)
    assert found["nanoswap_http_requests_total{route=/v1/tickets,status=201}"] == 4
    assert found["nanoswap_http_requests_total{route=/v1/tickets/{ticket_id},status=204}"] == 1


async def test_refusals_are_counted_by_reason_and_the_person_is_not_told_which() -> None:
    async with AsyncExitStack() as stack:
        strict = await house(stack, gate=Refusing())
        answer = await swap(strict, "ann", jpeg(portrait("hopper")))
        found = await strict.numbers()
    assert answer.json()["code"] == "content_refused"
    assert answer.json().keys() == {"type", "title", "status", "code", "detail"}
    assert answer.json()["detail"] == str(ContentRefused())
    counts = {one: found[f"nanoswap_gate_refusals_total{{reason={one}}}"] for one in ("content", "age", "unsure")}
    assert counts == {"content": 1, "age": 0, "unsure": 0}


async def test_nothing_that_came_with_a_request_is_in_it(here: House) -> None:
    """A canary in every field, header, path and query, with good and bad requests of every address."""
    odd: Mapping[str, str] = {"User-Agent": CANARY, "Idempotency-Key": CANARY, "Ticket": CANARY, "Prefer": CANARY}
    picture = jpeg(portrait("hopper"))
    assert (await swap(here, CANARY, picture, seed="7", faces="all")).status_code == 200
    assert (await swap(here, f"x{CANARY}", picture, engine=CANARY)).status_code == 422
    for app, name in ((here.gateway, CANARY), (here.replica, f"y{CANARY}")):
        async with person(app, name) as client:
            for path in (*ROUTES, f"/{CANARY}", f"/web/{CANARY}.js", f"/v1/tickets/{CANARY}/{CANARY}"):
                real = path.removeprefix("/image").removeprefix("/video").replace("{ticket_id}", CANARY)
                if not real.startswith("/"):
                    continue
                for method in ("GET", "POST", "DELETE", "PUT", "OPTIONS", CANARY.upper()):
                    await client.request(
                        method, real, params={CANARY: CANARY}, headers=odd, json={"kind": CANARY, "consent": CANARY}
                    )
    text = await here.text()
    assert CANARY not in text.lower()
    found = parsed(text)
    # Everything that was asked for is there all the same.
    total = sum(value for name, value in found.items() if name.startswith("nanoswap_http_requests_total"))
    assert total > 150
    assert found[f"nanoswap_http_requests_total{{route={UNROUTED},status=404}}"] > 0
    # And each value of each label is one of those that are listed.
    listed = {family.name: family.labels for family in (*ASKED, *COUNTED)}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            for label, value in sample.labels.items():
                assert label == "le" or value in listed[family.name][label], (family.name, label)


def templates(app: FastAPI) -> set[str]:
    return {path for route in app.routes if (path := getattr(route, "path", None)) is not None}


async def test_every_address_of_the_service_has_a_route_of_its_own() -> None:
    open_hook = replace(SHOWN, public=PublicSettings(webhook=WebhookKey(bytes(32))))
    room = MemoryRoom(Policy())
    gateway = create_gateway(open_hook, room, Anyone())  # type: ignore[arg-type]
    image = create_image_swap(SHOWN, room, Anyone(), {"mesh": MeshEngine()}, gate=None)  # type: ignore[arg-type]
    video = create_video_swap(
        SHOWN,
        room,
        Anyone(),
        {"mesh": MeshEngine()},
        Encoder(),
        gate=None,  # type: ignore[arg-type]
    )
    ours = {path for path in templates(gateway) if not path.startswith("/web/")} - {
        "/", "/verify", "/privacy", "/abuse", "/security"
    }  # fmt: skip
    replicas = {f"/image{path}" for path in templates(image)} | {f"/video{path}" for path in templates(video)}
    assert ours | replicas == set(ROUTES) - {PAGE, UNROUTED, OTHER}


async def test_files_of_the_page_are_one_route(here: House) -> None:
    async with person(here.gateway, "ann") as client:
        for path in ("/", "/privacy", "/web/session.js"):
            assert (await client.get(path)).status_code == 200
    found = await here.numbers()
    assert found[f"nanoswap_http_requests_total{{route={PAGE},status=200}}"] == 3


async def test_the_last_search_for_remnants(tmp_path: Path) -> None:
    finished = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)
    path = tmp_path / "prove.json"
    path.write_text(json.dumps(REPORT | {"started": finished.isoformat(), "finished": finished.isoformat()}))
    async with AsyncExitStack() as stack:
        shown = await house(stack, replace(SHOWN, public=PublicSettings(prove_report=path)))
        found = await shown.numbers()
        path.write_text("broken")
        after = await shown.numbers()
    assert found["nanoswap_prove_timestamp_seconds{}"] == finished.timestamp()
    assert found["nanoswap_prove_passed{}"] == 1
    assert not [name for name in after if "prove" in name]


class Away(MemorySums):
    """A store that is away at every other call, after it has done what it was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    async def add(self, process: str, turn: int, numbers: Mapping[str, int], keys_overdue: float | None) -> None:
        self.calls += 1
        await super().add(process, turn, numbers, keys_overdue)
        if self.calls % 2:
            raise RoomUnavailable


async def test_what_could_not_be_sent_is_sent_later_and_once() -> None:
    store = Away()
    meter = Meter(store)
    for _ in range(3):
        meter.count(metrics.REFUSALS, "age")
        with pytest.raises(RoomUnavailable):
            await meter.publish()
        meter.count(metrics.REFUSALS, "age")
        await meter.publish()
    with pytest.raises(RoomUnavailable):
        await meter.publish()
    assert (await store.read()).numbers == {"nanoswap_gate_refusals|age": 6}


async def test_what_was_counted_last_is_sent_when_a_process_ends() -> None:
    store: SumStore = MemorySums()
    meter = Meter(store)
    async with meter.running(lambda: 1.0):
        await asyncio.sleep(0)
        meter.count(metrics.BUSY, "image", amount=1.2345)
        meter.observe(metrics.STAGE, "image", "swap", amount=3)
    stage = "nanoswap_stage_seconds|image|swap"
    expected = {"nanoswap_busy_seconds|image": 1234, f"{stage}|6": 1, f"{stage}|sum": 3000}
    assert (await store.read()) == Sums(expected, None)


def test_a_value_that_is_not_listed_becomes_other_and_a_missing_one_is_our_mistake() -> None:
    meter = Meter()
    meter.count(REQUESTS, CANARY, CANARY)
    meter.observe(metrics.STAGE, "image", CANARY, amount=1.0)
    assert CANARY not in repr(meter._open)
    with pytest.raises(ValueError, match="zip"):
        meter.count(REQUESTS, UNROUTED)


async def test_names_in_the_store_that_are_not_ours_are_read_by_nobody() -> None:
    line = await MemoryRoom(Policy()).line(Kind.IMAGE)
    tally = await MemoryRoom(Policy()).tally(Kind.IMAGE)
    sums = Sums({CANARY: 1, f"nanoswap_gate_refusals|{CANARY}": 2, "nanoswap_gate_refusals|age": 3}, None)
    text = exposition(Reading(lines=[line], tallies=[tally], sums=sums, proved=None)).decode()
    assert CANARY not in text
    assert parsed(text)["nanoswap_gate_refusals_total{reason=age}"] == 3


async def test_buckets_are_cumulative_as_the_format_wants_them() -> None:
    line, tally = await MemoryRoom(Policy()).line(Kind.IMAGE), await MemoryRoom(Policy()).tally(Kind.IMAGE)
    waits = (2, 0, 1, *(0,) * (len(tally.waits) - 4), 4)
    tally = replace(tally, waits=waits, wait_seconds=99.5)
    found = parsed(exposition(Reading(lines=[line], tallies=[tally], sums=Sums({}, None), proved=None)).decode())
    buckets = [value for name, value in found.items() if name.startswith("nanoswap_wait_seconds_bucket")]
    assert (buckets[0], buckets[1], buckets[2], buckets[-2], buckets[-1]) == (2, 2, 3, 3, 7)
    assert found["nanoswap_wait_seconds_count{kind=image}"] == 7
    assert found["nanoswap_wait_seconds_sum{kind=image}"] == 99.5


async def test_forwards_of_a_network_are_counted_by_their_rows() -> None:
    store = MemorySums()
    meter = Meter(store)
    told = meter.batches(Kind.IMAGE)
    for what, rows in (("forward", 1), ("forward", 8), ("step", 3)):
        told(what, rows)
    await meter.publish()
    line, tally = await MemoryRoom(Policy()).line(Kind.IMAGE), await MemoryRoom(Policy()).tally(Kind.IMAGE)
    found = parsed(exposition(Reading(lines=[line], tallies=[tally], sums=await store.read(), proved=None)).decode())
    assert found["nanoswap_batch_size_count{kind=image,of=forward}"] == 2
    assert found["nanoswap_batch_size_sum{kind=image,of=forward}"] == 9
    assert found["nanoswap_batch_size_sum{kind=image,of=step}"] == 3


async def test_a_request_whose_sender_left_before_its_answer_is_counted(here: House) -> None:
    async with person(here.gateway, "ann") as client:
        path = (await client.post("/v1/tickets", json=BODY | {"kind": "video", "frames": 300})).json()["links"]["self"]
        tag = (await client.get(path)).headers["etag"]
        waiting = asyncio.create_task(client.get(path, headers={"If-None-Match": tag, "Prefer": "wait=20"}))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    found = await here.numbers()
    assert found[f"nanoswap_http_requests_total{{route=/v1/tickets/{{ticket_id}},status={UNANSWERED}}}"] == 1


async def test_a_line_for_a_turn_names_nobody(caplog: pytest.LogCaptureFixture) -> None:
    picture = jpeg(portrait("hopper"))
    async with AsyncExitStack() as stack:
        told = await house(stack, replace(SHOWN, log_turns=True))
        silent = await house(stack)
        with caplog.at_level(logging.DEBUG, "nanoswap.serve.turn_record"):
            assert (await swap(told, f"a{CANARY}", picture)).status_code == 200
            assert (await swap(told, f"b{CANARY}", picture, engine=CANARY)).status_code == 422
            assert (await swap(silent, f"c{CANARY}", picture)).status_code == 200
    lines = [json.loads(record.getMessage()) for record in caplog.records if record.name.endswith("turn_record")]
    assert len(lines) == 2
    delivered, failed = lines
    assert delivered.keys() == {
        "event", "kind", "code", "gpu_seconds", "stages", "declared_bytes", "result_bytes"
    }  # fmt: skip
    assert (delivered["kind"], delivered["code"], failed["code"]) == ("image", "delivered", "bad_request")
    assert list(delivered["stages"]) == ["upload", "ready", "decode", "detect", "swap", "encode", "deliver"]
    assert (failed["gpu_seconds"], failed["result_bytes"]) == (0, 0)
    assert delivered["declared_bytes"] == rounded_up(2 * len(picture))
    assert CANARY not in caplog.text
    assert {record.levelno for record in caplog.records if record.name.endswith("turn_record")} == {logging.WARNING}


def test_sizes_are_rounded_up_to_powers_of_two() -> None:
    assert [rounded_up(count) for count in (0, 1, 2, 3, 4, 5, 1025)] == [0, 1, 2, 4, 4, 8, 2048]
