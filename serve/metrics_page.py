"""``/metrics``: what Prometheus asks for, and nobody else.

The token is compared in constant time, and a request without it is answered as an address that doesn't exist: whoever
finds out that there are numbers here has learned something, however little. What is asked of Redis at each answer is a
handful of reads; the answer is made anew each time, for Prometheus asks every some seconds.
"""

import hmac
from collections.abc import Sequence
from typing import Annotated, Final

from fastapi import FastAPI, Header, Request, Response

from nanoswap.queue.room import WaitingRoom
from nanoswap.queue.ticket import Kind
from nanoswap.serve.exposition import CONTENT_TYPE, Reading, exposition
from nanoswap.serve.meter import Meter
from nanoswap.serve.problems import NO_STORE, Problem
from nanoswap.serve.verification import Verification

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


def install(
    app: FastAPI, token: str | None, room: WaitingRoom, kinds: Sequence[Kind], meter: Meter, verification: Verification
) -> None:
    """Serve ``GET /metrics`` to those who send ``Authorization: Bearer TOKEN``; without a ``token`` not at all."""
    if token is None:
        return
    expected = f"Bearer {token}".encode()

    # Any method: a 405 would tell that there is something for another.
    @app.api_route("/metrics", methods=list(METHODS), include_in_schema=False)
    async def metrics(request: Request, authorization: Annotated[str, Header()] = "") -> Response:
        # A header's bytes are Latin-1 to the framework; comparing text would refuse what isn't ASCII with an error.
        trusted = hmac.compare_digest(authorization.encode("latin-1", "replace"), expected)
        if not trusted or request.method != "GET":
            raise Problem("not_found")
        report = (await verification.answer()).report
        reading = Reading(
            lines=[await room.line(kind) for kind in kinds],
            tallies=[await room.tally(kind) for kind in kinds],
            sums=await meter.read(),
            proved=None if report is None else (report.finished.timestamp(), report.passed),
        )
        return Response(exposition(reading), headers=NO_STORE, media_type=CONTENT_TYPE)
