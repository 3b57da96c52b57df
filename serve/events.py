"""Server-sent events (WHATWG HTML, section 9.2): snapshots of one place, so that a missed one never matters.

A comment every 15 s keeps proxies from closing a quiet stream, and after 4 minutes we close it ourselves, well before
any proxy would, so that reconnecting is the ordinary thing and always works. A stream never outlives its session.
"""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress

from nanoswap.queue.room import RoomError
from nanoswap.queue.ticket import Place
from nanoswap.serve.heartbeat import with_heartbeat
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

    def pause() -> float:
        return min(COMMENT_SECONDS, max(0.0, end - time.time()))

    async with aclosing(with_heartbeat(changes, pause)) as places:
        with suppress(RoomError):
            async for place in places:
                if time.time() >= end:
                    yield b"event: bye\ndata: {}\n\n"
                    return
                if place is None:
                    yield b": still here\n\n"
                    continue
                number += 1
                yield f"id: {number}\nevent: ticket\ndata: {show(place).model_dump_json()}\n\n".encode()
                if place.ticket.state.terminal:
                    return
