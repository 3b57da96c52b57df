"""People at a running service, for Locust (https://docs.locust.io): the flow of the page and the client, over HTTP.

``locust -f tests/load/locustfile.py --headless -u 300 -t 30m --host https://…``: each of the users comes, swaps, goes,
and comes back as somebody else after a random while, so that all together are a Poisson process of NANOSWAP_RATE people
a second as long as users are many. Uses of an address appear in Locust's table by its template; a whole swap is
``swap image`` or ``swap video``, and the time in line ``wait image`` or ``wait video``.

NANOSWAP_TOKENS: a file with an access token a line, one person each, who come in turn. One account in real life has a
tenth of a GPU, so a crowd of one is a test of the quota.
NANOSWAP_CLIPS: the share that brings a clip, 0.15 unless said, NANOSWAP_FRAMES long. NANOSWAP_SCALE: of pictures, times
512 x 606 pixels.
NANOSWAP_JOURNEYS: a file to which every journey is written, a line of JSON.
"""

import hashlib
import itertools
import json
import os
import random
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gevent import get_hub
from locust import HttpUser, task
from locust.exception import RescheduleTask, StopUser

from tests.load import media

RATE = float(os.environ.get("NANOSWAP_RATE", "1"))
CLIPS = float(os.environ.get("NANOSWAP_CLIPS", "0.15"))
SCALE = float(os.environ.get("NANOSWAP_SCALE", "2"))
FRAMES = int(os.environ.get("NANOSWAP_FRAMES", "48"))
PATIENCE = 900.0

_tokens = itertools.cycle(Path(os.environ["NANOSWAP_TOKENS"]).read_text().split())
_journeys = Path(os.environ["NANOSWAP_JOURNEYS"]) if "NANOSWAP_JOURNEYS" in os.environ else None
_numbers = itertools.count()
_writing = threading.Lock()
PICTURES = [media.picture(number, SCALE) for number in range(32)]
CLIPS_MADE = [media.clip(number, FRAMES) for number in range(8)]
WIDTH, HEIGHT = round(512 * SCALE), round(606 * SCALE)


class Wrong(Exception):
    """What Locust counts as a failure, with a code of its own."""


class Person(HttpUser):
    """Somebody who comes back as somebody else."""

    first = True

    def wait_time(self) -> float:
        """Seconds until the next person: exponential, so that many users together are a Poisson process."""
        users = self.environment.runner.target_user_count
        return random.expovariate(RATE / users)

    @task
    def swap(self) -> None:
        if self.first:
            # Users are spawned at once, people aren't: the first thing that they do is to wait for a while.
            self.first = False
            return
        kind = "video" if random.random() < CLIPS else "image"
        self.client.headers["Authorization"] = f"Bearer {next(_tokens)}"
        # Whatever ends a journey early, the end of the test included, leaves it so.
        journey: dict[str, Any] = {"kind": kind, "at": time.time(), "problem": "unfinished"}
        with self._told(f"swap {kind}"):
            try:
                self._travel(kind, journey)
                journey["problem"] = ""
            except Exception as error:
                journey["problem"] = str(error) if isinstance(error, Wrong) else type(error).__name__
                raise
            finally:
                self._write(journey)

    def _travel(self, kind: str, journey: dict[str, Any]) -> None:
        number = next(_numbers)
        pool = CLIPS_MADE if kind == "video" else PICTURES
        number %= len(pool)
        target = pool[number]
        began = time.monotonic()
        ticket = self._join(kind, len(media.source()) + len(target))
        told = time.monotonic()
        if ticket["eta"] and ticket["eta"]["p90"]:
            journey["quoted"] = ticket["eta"]["p90"]
        grant = ""
        while True:
            ticket = self._granted(ticket, grant, journey["at"])
            if "wait" not in journey:
                # From when they were told how long it will be.
                journey["wait"] = time.monotonic() - told
                self._tell(f"wait {kind}", journey["wait"])
            grant = ticket["grant"]
            answer = self.client.post(
                ticket["links"]["swap"],
                headers={"Grant": grant},
                files={"source": ("source", media.source()), "target": ("target", target)},
                name=f"/{kind}/v1/tickets/{{ticket_id}}/swap",
                timeout=PATIENCE,
            )
            if answer.status_code == 200:
                body, ended_at = answer.content, time.monotonic()
                break
            code = _code(answer)
            if answer.status_code < 500 and code not in ("grant_expired", "incomplete"):
                raise Wrong(code)
        ended = self._ended(ticket)
        digest = hashlib.sha256(body)
        named = answer.headers.get("Content-Digest")
        if named is not None and named != f"sha-256=:{b64encode(digest.digest()).decode()}:":
            raise Wrong("digest")
        if ended["state"] != "succeeded" or ended["result"]["sha256"] != digest.hexdigest():
            raise Wrong("settled")
        # In a thread: frames are decoded for as long as others would have to wait to be told of their turns.
        if get_hub().threadpool.apply(media.owner, (body, answer.headers["Content-Type"])) != number:
            raise Wrong("somebody else's")
        journey["gpu_seconds"] = ended["result"]["gpu_seconds"]
        journey["total"] = ended_at - began

    def _join(self, kind: str, size: int) -> dict[str, Any]:
        body = {"kind": kind, "bytes": size, "width": WIDTH, "height": HEIGHT, "consent": "likeness-3"}
        if kind == "video":
            body |= {"width": 480, "height": 272, "frames": FRAMES}
        answer = self.client.post("/v1/tickets", json=body, headers={"Idempotency-Key": os.urandom(16).hex()})
        if answer.status_code != 201:
            raise Wrong(_code(answer))
        return dict(answer.json())

    def _granted(self, ticket: dict[str, Any], used: str, at: float) -> dict[str, Any]:
        """The ticket with a grant other than ``used``."""
        tag = ""
        while ticket["state"] != "granted" or ticket["grant"] == used:
            ticket, tag = self._look(ticket, tag)
            if ticket["state"] in ("failed", "canceled", "expired", "aborted"):
                raise Wrong((ticket.get("problem") or {}).get("code", ticket["state"]))
            if time.time() - at > PATIENCE:
                raise Wrong("timeout")
        return ticket

    def _ended(self, ticket: dict[str, Any]) -> dict[str, Any]:
        for _ in range(100):
            ticket, _ = self._look(ticket, "")
            if ticket["state"] not in ("running", "granted"):
                break
            time.sleep(0.1)
        return ticket

    def _look(self, ticket: dict[str, Any], tag: str) -> tuple[dict[str, Any], str]:
        """The ticket, when it is no longer the one that ``tag`` was given for: a long poll."""
        headers = {"Ticket": ticket["token"]} | ({"Prefer": "wait=25", "If-None-Match": tag} if tag else {})
        name = "/v1/tickets/{ticket_id}" + (" (waits for a change)" if tag else "")
        answer = self.client.get(ticket["links"]["self"], headers=headers, name=name, timeout=60)
        if answer.status_code == 304:
            return ticket, tag
        if answer.status_code != 200:
            time.sleep(1.0)
            return ticket, ""
        return dict(answer.json()), answer.headers.get("ETag", "")

    def _tell(self, name: str, seconds: float, wrong: Exception | None = None) -> None:
        self.environment.events.request.fire(
            request_type="", name=name, response_time=seconds * 1000, response_length=0, exception=wrong, context={}
        )

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        except (RescheduleTask, StopUser):
            raise
        except Exception as error:
            self._tell(name, time.monotonic() - began, error)
        else:
            self._tell(name, time.monotonic() - began)

    def _write(self, journey: dict[str, Any]) -> None:
        if _journeys is not None:
            with _writing, _journeys.open("a") as file:
                file.write(json.dumps(journey) + "\n")


def _code(answer: Any) -> str:
    try:
        return str(answer.json()["code"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
