"""The image replica: the one process that holds the pictures of a swap, from the first byte to the last.

Its HTTP server is the replica's own, so an upload goes from the edge straight into this process. Pixel work runs in
threads with a cancel token, because the same event loop keeps the lease and hears the person leave.
"""

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.engine import Engine
from nanoswap.pipelines.gate import Gate
from nanoswap.pipelines.mark import Marks
from nanoswap.pipelines.swap import Found, Swapped, find_faces, swap_image
from nanoswap.queue.rate import RateStore
from nanoswap.queue.room import WaitingRoom
from nanoswap.queue.session import Session, Sessions
from nanoswap.queue.ticket import Kind
from nanoswap.serve.application import application, signed_in
from nanoswap.serve.books import Books
from nanoswap.serve.clearing import Clearing
from nanoswap.serve.delivery import Delivery
from nanoswap.serve.limits import image_limits
from nanoswap.serve.meter import Meter
from nanoswap.serve.options import OPTION_FIELDS, chosen_engine, swap_options
from nanoswap.serve.pixel_thread import in_thread
from nanoswap.serve.problems import NO_STORE, Problem
from nanoswap.serve.rate_limits import RateLimits
from nanoswap.serve.reception import Reception
from nanoswap.serve.replica import lifespan, new_worker_name
from nanoswap.serve.settings import Settings
from nanoswap.serve.shared_gpu import SharedGpu
from nanoswap.serve.upload import check_head, read_upload, wipe
from nanoswap.serve.wire import FaceOut, FacesOut

#: People may look for faces without a turn, so only so many may at once; more are asked to come back.
MAX_FACE_REQUESTS = 4


def create_image_swap(
    settings: Settings,
    room: WaitingRoom,
    sessions: Sessions,
    engines: Mapping[str, Engine],
    rates: RateStore | None = None,
    *,
    gate: Gate | None,
    marks: Marks | None = None,
    meter: Meter | None = None,
) -> FastAPI:
    """The replica as an ASGI application. It closes ``room``, ``sessions``, ``rates`` and ``meter`` when it stops.
    ``engines``: the default one first. ``rates`` None: requests are not counted. ``marks``: what every result carries.
    """
    limits = image_limits(settings)
    worker = new_worker_name()
    meter = meter or Meter()
    gpu = asyncio.Semaphore(settings.image_slots)
    # The event loop's own threads are few more than processors, and pictures that share a GPU's work wait together.
    threads = ThreadPoolExecutor(settings.image_slots, "picture")
    shared = SharedGpu(settings.gpu_lock)
    reception = Reception(
        room=room,
        worker=worker,
        files=dict.fromkeys(("source", "target"), settings.max_image_bytes),
        fields=OPTION_FIELDS,
        seconds=settings.upload_seconds,
        work_seconds=settings.swap_seconds,
        books=Books(meter, settings.log_turns),
    )
    looking = asyncio.Semaphore(MAX_FACE_REQUESTS)

    rate = RateLimits(settings, rates)
    app = application(
        "Nanoswap image",
        settings,
        rate,
        lifespan(room, sessions, worker, Kind.IMAGE, settings.image_slots),
        meter=meter,
        prefix="/image",
        keys_overdue=lambda: sessions.keys_overdue,
    )
    app.add_middleware(Clearing)
    Signed = Annotated[Session, Depends(signed_in(sessions, room, rate))]
    Looking = Annotated[Session, Depends(signed_in(sessions, room, rate, "faces"))]

    @app.post("/v1/faces", tags=["pictures"], response_model=FacesOut)
    async def faces(request: Request, who: Looking) -> Response:
        """Find the faces of a picture, so that a person can choose. Same volatility as a swap."""
        if looking.locked():
            raise Problem("too_many_requests", retry_after=2)
        async with looking:
            check_head(request)
            with await read_upload(
                request,
                files={"target": settings.max_image_bytes},
                fields=("engine",),
                declared_bytes=settings.max_image_bytes,
                seconds=settings.upload_seconds,
            ) as upload:
                engine = chosen_engine(upload.fields, engines)
                target, cancel = upload.file("target"), CancelToken(settings.swap_seconds)
                found = await in_thread(
                    lambda: find_faces(engine, target, limits, cancel), cancel, asyncio.Event(), lambda _: None
                )
        return JSONResponse(_faces(found).model_dump(mode="json"), headers=NO_STORE)

    @app.post("/v1/tickets/{ticket_id}/swap", tags=["pictures"], response_class=Response)
    async def swap(
        ticket_id: str,
        request: Request,
        who: Signed,
        grant: Annotated[str, Header(description="The ticket's one-time grant.")],
    ) -> Response:
        """Redeem the grant, upload both pictures, and get the swapped one back in this very response."""
        async with AsyncExitStack() as stack:
            got = await stack.enter_async_context(reception.take(request, ticket_id, who.account, grant))
            mine = got.turn
            options = swap_options(got.upload.fields)
            engine = chosen_engine(got.upload.fields, engines)
            source, target = got.upload.file("source"), got.upload.file("target")

            def work() -> Swapped:
                with mine.working(), shared.picture():
                    return swap_image(
                        engine,
                        source,
                        target,
                        options,
                        limits,
                        gate=gate,
                        cancel=mine.cancel,
                        report=mine.report,
                        marks=marks,
                    )

            async with gpu:
                mine.cancel.check()
                swapped = await in_thread(work, mine.cancel, got.left, lambda made: wipe(made.data), threads)
            got.upload.wipe()
            # From here the response owns the turn: it ends when the last byte has left.
            return Delivery(swapped, mine, got.left, settings.swap_seconds, stack.pop_all())

    return app


def _faces(found: Found) -> FacesOut:
    boxes = []
    for face in found.faces:
        x0, y0, x1, y1 = (round(float(value)) for value in face.box)
        boxes.append(FaceOut(id=face.id, box=(x0, y0, x1 - x0, y1 - y0), score=round(face.score, 3)))
    return FacesOut(width=found.width, height=found.height, faces=boxes)
