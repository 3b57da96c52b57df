"""Rate limits on the real applications, with the buckets in memory: who is refused, who is not, and what is said."""

from collections.abc import Sequence
from dataclasses import replace

import httpx
import pytest
from starlette.types import Scope

from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.rate import Charge, MemoryRates
from nanoswap.queue.room import Policy, RoomUnavailable
from nanoswap.queue.session import Session, SessionMalformed
from nanoswap.serve.client_address import PEER_HEADER, client_address
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.image_swap import create_image_swap
from nanoswap.serve.settings import Settings
from tests.serve.test_gateway import BODY, SETTINGS, Anyone, person

FEW = replace(SETTINGS, rate_address=40, rate_account=20, rate_tickets=3, rate_faces=2)


class Known(Anyone):
    """Knows everybody but eve."""

    async def verify(self, token: str) -> Session:
        if token == "eve":
            raise SessionMalformed
        return await super().verify(token)


class Away(MemoryRates):
    async def spend(self, charges: object) -> float:
        raise RoomUnavailable


def gateway(settings: Settings = FEW, rates: MemoryRates | None = None) -> object:
    store = MemoryRates(settings.secret) if rates is None else rates
    return create_gateway(settings, MemoryRoom(Policy()), Known(), store)  # type: ignore[arg-type]


async def codes(client: httpx.AsyncClient, count: int, path: str = "/v1/quota", **request: object) -> list[int]:
    return [(await client.get(path, **request)).status_code for _ in range(count)]  # type: ignore[arg-type]


async def test_refusal_says_when_to_come_back() -> None:
    async with person(gateway(), "ann") as client:
        assert await codes(client, 20) == [200] * 20
        answer = await client.get("/v1/quota")
    assert (answer.status_code, answer.json()["code"]) == (429, "too_many_requests")
    assert 1 <= int(answer.headers["retry-after"]) <= 3
    assert answer.json()["retry_after"] == int(answer.headers["retry-after"])
    # A refusal is an answer like any other.
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-security-policy"]


async def test_one_account_does_not_use_up_another() -> None:
    app = gateway(replace(FEW, rate_address=0))
    async with person(app, "ann") as ann, person(app, "bob") as bob:
        assert (await codes(ann, 21))[-1] == 429
        assert await codes(bob, 1) == [200]


async def test_places_in_line_have_a_limit_of_their_own() -> None:
    async with person(gateway(), "ann") as client:
        answers = [await client.post("/v1/tickets", json=BODY) for _ in range(4)]
        assert answers[-1].json()["code"] == "too_many_requests"
        assert [answer.json().get("code") for answer in answers[:3]] == [None, None, "too_many_tickets"]
        assert await codes(client, 1) == [200]


async def test_looks_at_faces_have_a_limit_of_their_own() -> None:
    room, rates = MemoryRoom(Policy()), MemoryRates(FEW.secret)
    app = create_image_swap(FEW, room, Anyone(), {"mesh": MeshEngine()}, rates, gate=None)  # type: ignore[arg-type]
    async with person(app, "ann") as client:
        answers = [await client.post("/v1/faces", files={"target": ("t", b"x")}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [415, 415, 429]


async def test_an_address_has_a_limit_before_anybody_signs_in() -> None:
    async with person(gateway(), "ann") as client:
        assert await codes(client, 40, "/v1/config") == [200] * 40
        assert await codes(client, 1, "/v1/config") == [429]
        # The page itself is still there, to say so; and a probe of the process is nobody's.
        assert await codes(client, 1, "/") == [200]
        assert await codes(client, 1, "/healthz") == [200]
        elsewhere = {PEER_HEADER: "198.51.100.9"}
        assert await codes(client, 1, "/v1/config", headers=elsewhere) == [200]


async def test_a_bad_token_costs_its_address_ten_requests() -> None:
    async with person(gateway(), "eve") as client:
        assert await codes(client, 5) == [401, 401, 401, 401, 429]
        # What is owed is waited for: not one more guess a second and a half.
        assert int((await client.get("/v1/config")).headers["retry-after"]) >= 1


@pytest.mark.parametrize("rates", ["away", "none", "zero"])
async def test_nobody_is_refused_when_nobody_counts(rates: str) -> None:
    off = replace(FEW, rate_address=0, rate_account=0, rate_tickets=0, rate_faces=0)
    store = {"away": Away(FEW.secret), "none": None, "zero": MemoryRates(off.secret)}[rates]
    settings = off if rates == "zero" else FEW
    app = create_gateway(settings, MemoryRoom(Policy()), Known(), store)  # type: ignore[arg-type]
    async with person(app, "ann") as client:
        assert await codes(client, 60) == [200] * 60


async def test_an_outage_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Flaky(MemoryRates):
        away = True

        async def spend(self, charges: Sequence[Charge]) -> float:
            if self.away:
                raise RoomUnavailable
            return await super().spend(charges)

    store = Flaky(FEW.secret)
    async with person(gateway(rates=store), "ann") as client:
        await codes(client, 5)
        assert caplog.text.count("not counted") == 1
        store.away = False
        await codes(client, 1)
        store.away = True
        await codes(client, 5)
    assert caplog.text.count("not counted") == 2


async def test_a_class_behind_one_address_is_not_refused() -> None:
    """Thirty people who each load the page, look at the line every five seconds, and swap once in a minute."""
    store = MemoryRates(SETTINGS.secret)
    app = create_gateway(SETTINGS, MemoryRoom(Policy()), Anyone(), store)  # type: ignore[arg-type]
    async with person(app, "ann") as client:
        for number in range(30):
            me = {"Authorization": f"Bearer pupil {number}"}
            statuses = await codes(client, 12, "/v1/queue") + await codes(client, 1, "/v1/config")
            statuses += await codes(client, 5, headers=me)
            statuses.append((await client.post("/v1/tickets", json=BODY, headers=me)).status_code)
            assert 429 not in statuses


async def test_settings_are_what_is_counted() -> None:
    spent: list[Charge] = []

    class Seen(MemoryRates):
        async def spend(self, charges: list[Charge]) -> float:  # type: ignore[override]
            spent.extend(charges)
            return 0.0

    async with person(gateway(rates=Seen(FEW.secret)), "ann") as client:
        await client.get("/v1/quota", headers={PEER_HEADER: "2001:db8:1:2:3::4"})
    assert [(charge.rate.name, charge.rate.per_minute, charge.owner) for charge in spent] == [
        ("address", 40, "2001:db8:1:2::/64"),
        ("account", 20, "ann"),
    ]


def scope(peer: str | None = None, passed: tuple[str, ...] = (), client: str | None = "127.0.0.1") -> Scope:
    headers = [(b"x-forwarded-for", one.encode()) for one in passed]
    headers += [] if peer is None else [(PEER_HEADER.encode(), peer.encode())]
    return {"type": "http", "headers": headers, "client": None if client is None else (client, 1)}


@pytest.mark.parametrize(
    ("asked", "proxies", "address"),
    [
        (scope("203.0.113.7"), 0, "203.0.113.7"),
        (scope("203.0.113.7", ("1.2.3.4",)), 0, "203.0.113.7"),
        (scope("10.0.0.1", ("1.2.3.4, 203.0.113.7",)), 1, "203.0.113.7"),
        (scope("10.0.0.1", ("1.2.3.4", "203.0.113.7, 10.0.0.2")), 2, "203.0.113.7"),
        # Fewer entries than proxies: somebody came past them.
        (scope("10.0.0.1", ("203.0.113.7",)), 2, "10.0.0.1"),
        (scope("10.0.0.1", ("203.0.113.7, nonsense",)), 1, "10.0.0.1"),
        (scope("2001:db8:1:2:3:4:5:6"), 0, "2001:db8:1:2::/64"),
        (scope("2001:db8:1:2:ffff::1"), 0, "2001:db8:1:2::/64"),
        (scope("::ffff:203.0.113.7"), 0, "203.0.113.7"),
        (scope("[2001:db8::1]:443"), 0, "2001:db8::/64"),
        (scope("fe80::1%eth0"), 0, "fe80::/64"),
        (scope(None), 0, "127.0.0.1"),
        (scope(None, (), None), 0, "unknown"),
        (scope("\x00\xff", (), None), 0, "unknown"),
    ],
)
def test_where_a_request_comes_from(asked: Scope, proxies: int, address: str) -> None:
    assert client_address(asked, proxies) == address
