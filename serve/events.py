"""Server-sent events (WHATWG HTML, section 9.2): snapshots of one place, so that a missed one never matters.

A comment every 15 s keeps proxies from closing a quiet stream, and after 4 minutes we close it ourselves, well before
any proxy would, so that reconnecting is the ordinary thing and always works. A stream never outlives its session.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from nanoswap.queue.room import RoomError
from nanoswap.queue.ticket import Place
from nanoswap.serve.wire import TicketOut

COMMENT_SECONDS = 15.0
STREAM_SECONDS = 240.0


async def event_stream(
    changes: AsyncIterator[Place], show: Callable[[Place], TicketOut], session_expires: float
) -> AsyncIterator[bytes]:
    """Encode ``changes`` as an event stream; ``session_expires`` is seconds since the epoch."""
    end = time.time() + min(STREAM_SECONDS, session_expires - time.time())
    number = 0
    yield b"retry: 2000\n\n"
    pending: asyncio.Task[Place] | None = None
    try:
        while time.time() < end:
            pending = pending or asyncio.ensure_future(anext(changes))
            done, _ = await asyncio.wait([pending], timeout=min(COMMENT_SECONDS, max(0.0, end - time.time())))
            if not done:
                yield b": still here\n\n"
                continue
            try:
                place = pending.result()
            except (StopAsyncIteration, RoomError):
                return
            pending = None
            number += 1
            data = show(place).model_dump_json()
            yield f"id: {number}\nevent: ticket\ndata: {data}\n\n".encode()
            if place.ticket.state.terminal:
                return
        yield b"event: bye\ndata: {}\n\n"
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.gather(pending, return_exceptions=True)
        if hasattr(changes, "aclose"):
            await changes.aclose()
