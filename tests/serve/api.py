"""A very small API client for tests: it does what it is told and hides nothing."""

import json
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

Ticket = dict[str, Any]


@dataclass(slots=True)
class Api:
    """One person at one service."""

    url: str
    token: str
    http: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60))
    made: list[Ticket] = field(default_factory=list)

    def call(self, method: str, path: str, **request: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"} | request.pop("headers", {})
        return self.http.request(method, self.url + path, headers=headers, **request)

    def close(self) -> None:
        """Give up what this person still holds, and the connections."""
        for ticket in self.made:
            self.call("DELETE", ticket["links"]["cancel"])
        self.http.close()

    def join(self, source: bytes, target: bytes, *, key: str | None = None, **changes: Any) -> httpx.Response:
        body = {
            "kind": "image",
            "bytes": len(source) + len(target),
            "width": 512,
            "height": 600,
            "consent": "likeness-3",
        }
        headers = {"Idempotency-Key": key or str(uuid.uuid4())}
        answer = self.call("POST", "/v1/tickets", json=body | changes, headers=headers)
        if answer.is_success:
            self.made.append(answer.json())
        return answer

    def ticket(self, ticket: Ticket, **headers: str) -> Ticket:
        answer = self.call("GET", ticket["links"]["self"], headers=headers)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def granted(self, ticket: Ticket, seconds: float = 30.0) -> Ticket:
        return self.until(ticket, "granted", seconds)

    def until(self, ticket: Ticket, state: str, seconds: float = 30.0) -> Ticket:
        deadline = time.monotonic() + seconds
        while (ticket := self.ticket(ticket, Ticket=ticket["token"]))["state"] != state:
            assert time.monotonic() < deadline, f"still {ticket['state']}, not {state}: {ticket}"
            time.sleep(0.1)
        return ticket

    def swap(self, ticket: Ticket, source: bytes, target: bytes, **fields: str) -> httpx.Response:
        files = {"source": ("a", source), "target": ("b", target)}
        return self.call("POST", ticket["links"]["swap"], headers={"Grant": ticket["grant"]}, files=files, data=fields)

    def whole(self, source: bytes, target: bytes, **fields: str) -> tuple[Ticket, httpx.Response]:
        joined = self.join(source, target)
        assert joined.status_code == 201, joined.text
        ticket = self.granted(joined.json())
        return ticket, self.swap(ticket, source, target, **fields)

    def events(self, ticket: Ticket, count: int) -> list[Ticket]:
        """The first ``count`` snapshots of the event stream, or fewer when it ends."""
        seen: list[Ticket] = []
        headers = {"Authorization": f"Bearer {self.token}"}
        with self.http.stream("GET", self.url + ticket["links"]["events"], headers=headers) as stream:
            for line in stream.iter_lines():
                if line.startswith('data: {"id"'):
                    seen.append(json.loads(line.removeprefix("data: ")))
                    if len(seen) == count:
                        break
        return seen
