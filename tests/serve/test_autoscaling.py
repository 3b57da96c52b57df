"""One replica, three, one, on a real cluster: by the line and by the clock, and nobody who swaps meanwhile notices."""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from nanoswap.queue.redis_room import RedisRoom
from nanoswap.queue.redis_server import RedisServer
from nanoswap.queue.room import Line, Policy
from nanoswap.queue.ticket import Declaration, Kind
from tests.serve.api import Api
from tests.serve.conftest import Service, start_service, stop_service, wait_until

pytestmark = [pytest.mark.service, pytest.mark.apart]

PATIENCE = 90.0
#: A replica of `mesh` starts within seconds; the steps down are as fast as they can be watched.
SCALED = {
    "NANOSWAP_IMAGE_MAX_REPLICAS": "3",
    "NANOSWAP_VIDEO_REPLICAS": "0",
    "NANOSWAP_COLD_START_SECONDS": "1",
    "NANOSWAP_STEP_DOWN_SECONDS": "5",
}


@dataclass(slots=True)
class Crowd:
    """People in the line itself who never come for their turn: a queue that costs no work."""

    url: str
    runner: asyncio.Runner = field(default_factory=asyncio.Runner)
    tickets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.room = RedisRoom(self.url, Policy())

    room: RedisRoom = field(init=False)

    def join(self, people: int, estimate: float) -> None:
        wanted = Declaration(kind=Kind.IMAGE, bytes=1000, width=100, height=100, frames=1, consent="likeness-3")
        for number in range(people):
            joined = self.runner.run(self.room.join(f"a{number}", wanted, estimate, idempotency_key=None))
            self.tickets[joined.place.ticket.id] = f"a{number}"

    def line(self) -> Line:
        """The line, with all of the crowd present."""
        self.runner.run(self.room.beat(list(self.tickets)))
        return self.runner.run(self.room.line(Kind.IMAGE))

    def go(self) -> None:
        for ticket, account in self.tickets.items():
            self.runner.run(self.room.cancel(ticket, account))
        self.tickets.clear()

    def close(self) -> None:
        self.runner.run(self.room.close())
        self.runner.close()


class Trickle:
    """One person after the other who swaps, each upload two seconds long, so that replicas that are to go have some."""

    def __init__(self, service: Service, source: bytes, target: bytes) -> None:
        self._service, self._pictures = service, (source, target)
        self._stop = threading.Event()
        self.swapped = 0
        self.wrong: list[str] = []
        self._thread = threading.Thread(target=self._run, name="trickle")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        person = Api(self._service.url, self._service.sign_in())
        try:
            while not self._stop.is_set():
                self._swap(person)
                self._stop.wait(3.0)
        except Exception as error:
            self.wrong.append(repr(error))
        finally:
            person.close()

    def _swap(self, person: Api) -> None:
        joined = person.join(*self._pictures)
        assert joined.status_code == 201, joined.text
        ticket = person.granted(joined.json(), PATIENCE)
        source, target = self._pictures
        path = ticket["links"]["swap"]
        whole = person.http.build_request(
            "POST", self._service.url + path, files={"source": ("a", source), "target": ("b", target)}
        )
        body = whole.read()

        def slowly() -> Iterator[bytes]:
            step = -(-len(body) // 20)
            for start in range(0, len(body), step):
                yield body[start : start + step]
                time.sleep(0.1)

        headers = {name: whole.headers[name] for name in ("Content-Type", "Content-Length")}
        answer = person.call("POST", path, headers=headers | {"Grant": ticket["grant"]}, content=slowly())
        if answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg":
            self.swapped += 1
        else:
            self.wrong.append(f"{answer.status_code} {answer.text[:200]}")


@contextmanager
def busy_service(source: bytes, target: bytes, **environment: str) -> Iterator[tuple[Crowd, Trickle]]:
    """A service that scales, its line, and the people who swap meanwhile."""
    with RedisServer() as server:
        service = start_service(REDIS_URL=server.url, **(SCALED | environment))
        crowd = Crowd(server.url)
        try:
            trickle = Trickle(service, source, target)
            try:
                yield crowd, trickle
            finally:
                trickle.stop()
        finally:
            crowd.close()
            stop_service(service)


def nothing_was_lost(trickle: Trickle) -> None:
    trickle.stop()
    assert not trickle.wrong
    assert trickle.swapped >= 5


def test_replicas_follow_line_and_clock_and_nobody_notices(astronaut: bytes, hopper: bytes) -> None:
    # Later than the slowest start of a service and the first way up and down; the window is a minute long.
    begin = (datetime.now(UTC) + timedelta(seconds=180)).replace(second=0, microsecond=0)
    hours = f"{begin:%H:%M}-{begin + timedelta(minutes=1):%H:%M}"
    with busy_service(astronaut, hopper, NANOSWAP_IMAGE_FLOOR=f"mon-sun {hours} 3") as (crowd, trickle):
        assert crowd.line().workers == 1
        crowd.join(8, 30.0)
        wait_until(lambda: crowd.line().workers == 3, PATIENCE)
        crowd.go()
        wait_until(lambda: crowd.line().workers == 2, PATIENCE)
        wait_until(lambda: crowd.line().workers == 1, PATIENCE)
        assert datetime.now(UTC) < begin - timedelta(seconds=10), "too slow to tell the line from the clock"
        wait_until(lambda: crowd.line().workers == 3, 180 + PATIENCE)
        assert datetime.now(UTC) >= begin - timedelta(seconds=1)
        wait_until(lambda: crowd.line().workers == 1, 60 + PATIENCE)
        # Who drains has no slots but may still work: it must be let finish.
        done = trickle.swapped
        wait_until(lambda: trickle.wrong or trickle.swapped >= max(5, done + 2), PATIENCE)
        nothing_was_lost(trickle)
