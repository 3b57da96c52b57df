"""The gateway: everything about a swap except the pictures. No media ever comes to this process.

It checks sessions, keeps people's places in line, tells them how it stands, and serves the page. It is stateless:
any number of gateways may run, and a person may talk to a different one each time.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from nanoswap.queue.rate import RateStore
from nanoswap.queue.room import Policy, TicketNotFound, WaitingRoom
from nanoswap.queue.seal import Seal, SealError
from nanoswap.queue.session import Session, Sessions
from nanoswap.queue.ticket import Declaration, Kind, Place
from nanoswap.serve import erasure, metrics_page, site
from nanoswap.serve.application import application, bearer, signed_in
from nanoswap.serve.board import Board, fingerprint
from nanoswap.serve.catalogue import CONSENT, configuration
from nanoswap.serve.estimate import estimate_seconds
from nanoswap.serve.events import event_stream
from nanoswap.serve.limits import check_declared, open_kinds, published
from nanoswap.serve.meter import Meter
from nanoswap.serve.model_list import models
from nanoswap.serve.pages import words
from nanoswap.serve.problems import NO_STORE, Problem
from nanoswap.serve.rate_limits import RateLimits
from nanoswap.serve.security_txt import PATH as SECURITY_TXT
from nanoswap.serve.security_txt import security_txt
from nanoswap.serve.settings import Settings
from nanoswap.serve.verification import Verification, VerifyOut
from nanoswap.serve.wire import ConfigOut, LineOut, ModelsOut, QueueOut, QuotaOut, TicketOut, TicketRequest

log = logging.getLogger(__name__)

#: Longest that ``Prefer: wait=N`` holds a request open; below every proxy's read time-out.
MAX_WAIT_SECONDS = 25
_REPLAYED: dict[int | str, dict[str, Any]] = {
    200: {"model": TicketOut, "description": "The ticket that this Idempotency-Key has made before."}
}
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "It is as If-None-Match says."}}


@dataclass(frozen=True, slots=True)
class Desk:
    """What the gateway's endpoints work with."""

    settings: Settings
    room: WaitingRoom
    sessions: Sessions
    seal: Seal
    board: Board

    def ticket(self, place: Place) -> TicketOut:
        return TicketOut.of(place, self.seal.seal(place.ticket))

    async def place(self, ticket_id: str, account: str, token: str | None) -> Place:
        """The person's place; when the store has forgotten it, the sealed ticket brings it back.

        Raises Problem ``not_found``, also for somebody else's ticket.
        """
        try:
            return await self.room.place(ticket_id, account)
        except TicketNotFound:
            if token is None:
                raise
        try:
            ticket = self.seal.unseal(token)
        except SealError:
            raise Problem("not_found") from None
        if ticket.id != ticket_id:
            raise Problem("not_found")
        return await self.room.restore(ticket, account)


def create_gateway(
    settings: Settings,
    room: WaitingRoom,
    sessions: Sessions,
    rates: RateStore | None = None,
    meter: Meter | None = None,
) -> FastAPI:
    """The gateway as an ASGI application. It closes ``room``, ``sessions``, ``rates`` and ``meter`` when it stops.
    ``rates`` None: requests are not counted.

    Raises `ManifestError`.
    """
    kinds = open_kinds(settings)
    manifest = settings.models.read_manifest()
    offered, weights = configuration(settings, manifest), models(manifest, settings.models.engines)
    verification = Verification(settings.public)
    if settings.public.security_contact is None and not settings.development:
        # Not an error: a made-up address, set to get past a refusal, would be worse than none.
        log.warning("NANOSWAP_SECURITY_CONTACT is not set: nobody is told where to report a weakness or abuse")
    desk = Desk(settings, room, sessions, Seal(settings.secret), Board(room, kinds))

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with desk.board.running():
            yield
        await sessions.close()
        await room.close()

    limits = RateLimits(settings, rates)
    meter = meter or Meter()
    app = application(
        "Nanoswap",
        settings,
        limits,
        lifespan,
        small_bodies=True,
        meter=meter,
        keys_overdue=lambda: sessions.keys_overdue,
    )
    Signed = Annotated[Session, Depends(signed_in(sessions, room, limits))]
    Joining = Annotated[Session, Depends(signed_in(sessions, room, limits, "tickets"))]
    Token = Annotated[str | None, Header(alias="Ticket", description="The sealed ticket, to restore a lost place.")]

    @app.get("/v1/config", tags=["public"])
    async def config() -> ConfigOut:
        """Sign-in address, limits, consent statement and links."""
        return offered

    @app.get("/v1/queue", tags=["public"])
    async def queue(response: Response) -> QueueOut:
        """How long it takes right now. Public, before anybody signs in."""
        response.headers["Cache-Control"] = "public, max-age=2"
        video = LineOut.of(await desk.board.line(Kind.VIDEO)) if Kind.VIDEO in kinds else None
        image = LineOut.of(await desk.board.line(Kind.IMAGE))
        return QueueOut(image=image, video=video, limits=published(settings))

    @app.get("/v1/models", tags=["public"])
    async def list_models(response: Response) -> ModelsOut:
        """The engines that are known here, and the weights they are made of: origin, licence, SHA-256."""
        response.headers["Cache-Control"] = "public, max-age=300"
        return weights

    @app.get("/v1/verify", tags=["public"])
    async def verify(response: Response) -> VerifyOut:
        """What runs here, the last report of ``nanoswap prove``, and how anybody can check it."""
        response.headers["Cache-Control"] = "public, max-age=60"
        return await verification.answer()

    @app.get(SECURITY_TXT, include_in_schema=False)
    async def security_contact() -> Response:
        text = security_txt(settings.public, datetime.now(UTC))
        if text is None:
            raise Problem("not_found")
        return Response(text, media_type="text/plain; charset=utf-8", headers={"Cache-Control": "public, max-age=3600"})

    @app.get("/v1/quota", tags=["account"])
    async def quota(who: Signed, response: Response) -> QuotaOut:
        """The account's fair share: what is left and when it is full again."""
        response.headers.update(NO_STORE)
        return QuotaOut.of(await room.quota(who.account))

    @app.post("/v1/tickets", status_code=201, tags=["tickets"], responses=_REPLAYED)
    async def join(
        body: TicketRequest,
        who: Joining,
        response: Response,
        authorization: Annotated[str, Header(include_in_schema=False)],
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=255)] = None,
    ) -> TicketOut:
        """Take a place in line. Retrying with the same Idempotency-Key returns the same ticket."""
        await sessions.confirm(bearer(authorization), who)
        if body.consent != CONSENT.id:
            raise Problem("consent_missing", "Agree to the statement that /v1/config shows.", part="consent")
        kind = Kind(body.kind)
        if kind not in kinds:
            raise Problem("unknown_kind", part="kind")
        check_declared(body, settings)
        declaration = Declaration(
            kind=kind,
            bytes=body.bytes,
            width=body.width,
            height=body.height,
            frames=body.frames,
            consent=body.consent,
        )
        estimate = estimate_seconds(kind, body.width, body.height, body.frames)
        joined = await room.join(who.account, declaration, estimate, idempotency_key=idempotency_key)
        await desk.board.nudge(kind)
        place = await room.place(joined.place.ticket.id, who.account)
        response.status_code = 200 if joined.replayed else 201
        response.headers.update(NO_STORE | {"Location": f"/v1/tickets/{place.ticket.id}"})
        if joined.replayed:
            response.headers["Idempotency-Replayed"] = "true"
        return desk.ticket(place)

    @app.get("/v1/tickets/{ticket_id}", tags=["tickets"], response_model=TicketOut, responses=_UNCHANGED)
    async def look(
        ticket_id: str,
        who: Signed,
        token: Token = None,
        prefer: Annotated[
            str, Header(description="wait=N holds the answer until something changes, 25 s at most.")
        ] = "",
        if_none_match: Annotated[str, Header()] = "",
    ) -> Response:
        """The place as it is now, or as it becomes within ``Prefer: wait``."""
        place = await desk.place(ticket_id, who.account, token)
        await room.beat([ticket_id])
        if entity_tag(place) == if_none_match:
            place = await next_change(desk.board, place, wait_seconds(prefer))
        headers = NO_STORE | {"ETag": entity_tag(place)}
        if entity_tag(place) == if_none_match:
            return Response(status_code=304, headers=headers)
        return JSONResponse(desk.ticket(place).model_dump(mode="json"), headers=headers)

    # POST too: some tunnels hold back a GET stream until it ends.
    @app.post("/v1/tickets/{ticket_id}/events", include_in_schema=False)
    @app.get("/v1/tickets/{ticket_id}/events", tags=["tickets"])
    async def events(ticket_id: str, request: Request, who: Signed, token: Token = None) -> Response:
        """Snapshots of the place as server-sent events, while it lasts. Reconnect when it ends with ``bye``."""
        place = await desk.place(ticket_id, who.account, token)
        await room.beat([ticket_id])
        stream = event_stream(desk.board.changes(place), desk.ticket, who.expires_at)
        headers = NO_STORE | {"X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)

    @app.delete("/v1/tickets/{ticket_id}", status_code=204, tags=["tickets"])
    async def cancel(ticket_id: str, who: Signed) -> Response:
        """Leave the line, or stop the swap. Always succeeds for one's own ticket."""
        await room.cancel(ticket_id, who.account)
        for kind in kinds:
            await desk.board.nudge(kind)
        return Response(status_code=204, headers=NO_STORE)

    @app.get("/healthz", tags=["operators"])
    async def healthz() -> dict[str, str]:
        """This process is alive."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["operators"])
    async def readyz() -> dict[str, int | str]:
        """The store answers and at least one GPU process is there for each kind of swap."""
        lines = [await room.line(kind) for kind in kinds]
        if not all(line.workers for line in lines):
            raise Problem("draining", "No GPU process is ready.", retry_after=5)
        return {"status": "ready", "slots": sum(line.slots for line in lines), "streams": desk.board.streams}

    metrics_page.install(app, settings.metrics_token, room, kinds, meter, verification)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        document = resources.files("nanoswap.serve").joinpath("openapi.json").read_bytes()
        return Response(document, media_type="application/openapi+json")

    erasure.install(app, settings, room, signed_in(sessions, room, limits))
    # The rules are the room's defaults, as in ``app.py``.
    site.install(app, words(settings, Policy(), verification.build))
    return app


def wait_seconds(prefer: str) -> float:
    """The N of ``Prefer: wait=N`` (RFC 7240), 0 when absent or unreadable, at most MAX_WAIT_SECONDS."""
    for preference in prefer.split(","):
        name, _, value = preference.strip().partition("=")
        if name.lower() == "wait" and value.isdecimal():
            # Python refuses to read a number of thousands of digits.
            return min(int(value), MAX_WAIT_SECONDS) if len(value) < 10 else MAX_WAIT_SECONDS
    return 0.0


def entity_tag(place: Place) -> str:
    """A weak entity tag of what the person would want to be woken for."""
    return f'W/"{hashlib.sha256(repr(fingerprint(place)).encode()).hexdigest()[:20]}"'


async def next_change(board: Board, place: Place, seconds: float) -> Place:
    """The place after its next change, or as it is when ``seconds`` have passed."""
    before = fingerprint(place)
    try:
        async with asyncio.timeout(seconds):
            async with aclosing(board.changes(place)) as changes:
                async for latest in changes:
                    if fingerprint(latest) != before:
                        return latest
    except TimeoutError:
        pass
    return place
