"""One person's way through the service, from joining to the result, as it was seen from outside."""

import asyncio
import hashlib
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import httpx

from nanoswap.serve.client import AsyncClient
from nanoswap.serve.client_errors import NanoswapError
from tests.load import media


@dataclass(slots=True)
class Journey:
    """Times are seconds of `time.monotonic`. ``grants``: when turns were given. ``quoted``: seconds until the first
    turn that were promised at the join with nine in ten. ``problem``: a stable code; empty for a result."""

    number: int
    kind: str
    began: float
    ticket: str = ""
    joined: float = 0.0
    grants: list[float] = field(default_factory=list)
    ended: float = 0.0
    quoted: float | None = None
    gpu_seconds: float = 0.0
    grant: str = ""
    owner: int | None = None
    #: Whether the service says of the ticket, afterwards, that this very result was delivered; None: a store that was
    #: emptied since knows nothing of it any more.
    settled: bool | None = False
    problem: str = ""

    @property
    def theirs(self) -> bool:
        """Whether the result is this person's own."""
        return self.owner == self.number % media.NUMBERS

    @property
    def wait(self) -> float | None:
        """Seconds from coming to the first turn, trying to join included."""
        return self.grants[0] - self.began if self.grants else None

    def see(self, ticket: Mapping[str, Any]) -> None:
        """Note a snapshot of the ticket."""
        now = time.monotonic()
        if not self.ticket:
            self.ticket, self.joined = str(ticket["id"]), now
            eta = ticket.get("eta")
            self.quoted = None if eta is None else float(eta["p90"])
        assert self.ticket == ticket["id"], "another place in line"
        state = str(ticket["state"])
        if state == "granted" and ticket["grant"] != self.grant:
            self.grant = str(ticket["grant"])
            self.grants.append(now)


async def travel(url: str, token: str, journey: Journey, target: bytes, patience: float) -> Journey:
    """Join, wait, upload and take the result; what went wrong is noted, not raised."""
    try:
        async with AsyncClient(url, token=token, timeout=patience) as client:
            result = await client.swap(media.source(), target, consent=True, watch=journey.see)
            journey.ended = time.monotonic()
            journey.gpu_seconds = result.gpu_seconds
            journey.settled = await _settled(client, journey.ticket, result.data)
        # Decoding takes as long as a swap: not on the loop on which everybody's clock is read.
        journey.owner = await asyncio.to_thread(media.owner, result.data, result.media_type)
    except NanoswapError as error:
        journey.problem = error.code
    except Exception as error:  # whatever it is: a crowd goes on without one
        journey.problem = f"{type(error).__name__}: {error}"
    journey.ended = journey.ended or time.monotonic()
    return journey


async def _settled(client: AsyncClient, ticket: str, data: bytes) -> bool | None:
    """Ask until the ticket has ended: the service writes it down when the last byte has left."""
    known = True
    headers = {"Authorization": f"Bearer {client.token}"}
    async with httpx.AsyncClient(base_url=client.url, headers=headers, timeout=10) as http:
        for _ in range(100):
            with suppress(httpx.HTTPError):
                answer = await http.get(f"/v1/tickets/{ticket}")
                known = answer.status_code != 404
                if answer.status_code == 200 and answer.json()["state"] != "running":
                    body = answer.json()
                    digest = hashlib.sha256(data).hexdigest()
                    return body["state"] == "succeeded" and bool(body["result"]["sha256"] == digest)
            await asyncio.sleep(0.2)
    return False if known else None
