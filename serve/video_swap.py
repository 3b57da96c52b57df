"""The video replica: the one process that holds a clip, from the first byte of the upload to the last of the result.

As with pictures, its HTTP server is the replica's own, so an upload goes from the edge straight into this process and
the result goes straight out. Everything that can be told from the files (their kind, their size, whether they are what
was declared, whether there is a face) is answered as a problem before the response begins; from then on it is a stream.
"""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Annotated

from fastapi import Depends, FastAPI, Header, Request, Response

from nanoswap.pipelines.clip import ClipInfo
from nanoswap.pipelines.engine import Engine
from nanoswap.pipelines.gate import Gate
from nanoswap.pipelines.mark import Marks
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.pipelines.swap_clip import ClipSwap, open_swap
from nanoswap.queue.rate import RateStore
from nanoswap.queue.room import WaitingRoom
from nanoswap.queue.session import Session, Sessions
from nanoswap.queue.ticket import Kind, Ticket
from nanoswap.serve.application import application, signed_in
from nanoswap.serve.books import Books
from nanoswap.serve.clearing import Clearing
from nanoswap.serve.clip_delivery import ClipDelivery
from nanoswap.serve.limits import clip_limits, image_limits
from nanoswap.serve.meter import Meter
from nanoswap.serve.options import CLIP_FIELDS, chosen_engine, clip_options
from nanoswap.serve.pixel_thread import in_thread
from nanoswap.serve.problems import Problem
from nanoswap.serve.rate_limits import RateLimits
from nanoswap.serve.reception import Reception
from nanoswap.serve.replica import lifespan, new_worker_name
from nanoswap.serve.settings import Settings
from nanoswap.serve.shared_gpu import SharedGpu


def create_video_swap(
    settings: Settings,
    room: WaitingRoom,
    sessions: Sessions,
    engines: Mapping[str, Engine],
    encoder: Encoder,
    rates: RateStore | None = None,
    *,
    gate: Gate | None,
    marks: Marks | None = None,
    meter: Meter | None = None,
) -> FastAPI:
    """The replica as an ASGI application. It closes ``room``, ``sessions``, ``rates`` and ``meter`` when it stops.
    ``engines``: those that swap clips, the default one first. ``rates`` None: requests are not counted. ``marks``: what
    every result carries."""
    limits, portrait_limits = clip_limits(settings), image_limits(settings)
    worker = new_worker_name()
    meter = meter or Meter()
    pictures_only = [name for name in settings.models.engines if name not in engines]
    jobs = asyncio.Semaphore(settings.video_jobs)
    shared = SharedGpu(settings.gpu_lock)
    reception = Reception(
        room=room,
        worker=worker,
        files={"source": settings.max_image_bytes, "target": settings.max_video_bytes},
        fields=CLIP_FIELDS,
        seconds=settings.upload_video_seconds,
        work_seconds=settings.swap_video_seconds,
        books=Books(meter, settings.log_turns),
    )

    rate = RateLimits(settings, rates)
    app = application(
        "Nanoswap video",
        settings,
        rate,
        lifespan(room, sessions, worker, Kind.VIDEO, settings.video_slots, settings.video_jobs),
        meter=meter,
        prefix="/video",
        keys_overdue=lambda: sessions.keys_overdue,
    )
    app.add_middleware(Clearing)
    Signed = Annotated[Session, Depends(signed_in(sessions, room, rate))]

    @app.post("/v1/tickets/{ticket_id}/swap", tags=["clips"], response_class=Response)
    async def swap(
        ticket_id: str,
        request: Request,
        who: Signed,
        grant: Annotated[str, Header(description="The ticket's one-time grant.")],
    ) -> Response:
        """Redeem the grant, upload portrait and clip, and get the swapped clip back in this response, as it is made."""
        async with AsyncExitStack() as stack:
            got = await stack.enter_async_context(reception.take(request, ticket_id, who.account, grant))
            mine = got.turn
            options = clip_options(got.upload.fields)
            engine = chosen_engine(got.upload.fields, engines, pictures_only)
            source, target = got.upload.file("source"), got.upload.file("target")

            def work() -> ClipSwap:
                with mine.working():
                    return open_swap(
                        engine,
                        source,
                        target,
                        options,
                        limits,
                        portrait_limits,
                        encoder,
                        gate=gate,
                        admit=lambda info: check_true(info, mine.ticket),
                        cancel=mine.cancel,
                        report=mine.report,
                        breathe=shared.let_pictures_by,
                        marks=marks,
                    )

            clip = await in_thread(work, mine.cancel, got.left, ClipSwap.close)
            stack.push_async_callback(asyncio.to_thread, clip.close)
            # From here the response owns the turn: it ends when the last byte has left.
            return ClipDelivery(clip, got, jobs, settings.deliver_seconds, stack.pop_all())

    return app


def check_true(info: ClipInfo, ticket: Ticket) -> None:
    """Hold a clip against what was declared for it. Raises Problem ``larger_than_declared``."""
    if info.frames > ticket.frames:
        raise Problem("larger_than_declared", f"{ticket.frames} frames were declared.", part="frames")
    if info.width * info.height > ticket.width * ticket.height:
        raise Problem("larger_than_declared", f"{ticket.width} x {ticket.height} pixels were declared.", part="width")
