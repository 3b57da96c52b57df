"""What is still to be cleared when a request that brought media is over.

PyAV's containers and streams hold each other, and with them the last frames of their decoders: no wipe of ours reaches
these, and no allocator overwrites what isn't freed, until Python's collector finds the cycle. An exception on its way
out of the application (the server cancels what nobody reads any more) holds whatever the functions held that it left.
So the collector runs a moment behind the whole request, and once more, when nobody waits for it and nothing of the
request is under way. It looks only at what came after the start (`gc.freeze`), which takes some milliseconds.
"""

import asyncio
import gc

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from nanoswap.pipelines.process import give_back_memory
from nanoswap.pipelines.small_arrays import wipe_small_arrays

#: Where media are brought.
MEDIA = ("/swap", "/faces")
#: Until the servers above have let go of the request; much less than the second after which nothing may be left. Twice,
#: for on a busy machine they need longer.
_MOMENTS = (0.2, 0.6)


class Clearing:
    """The ASGI layer of a replica that clears up behind each request that brought media, however it ended."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] == "http" and scope["path"].endswith(MEDIA):
                loop = asyncio.get_running_loop()
                for seconds in _MOMENTS:
                    loop.call_later(seconds, _clear_up, loop)


def _clear_up(loop: asyncio.AbstractEventLoop) -> None:
    forget_bodies(loop)
    loop.run_in_executor(None, clear)


def clear() -> None:
    """Free what only cycles hold, overwrite what numpy has put aside of it, and hand free pages back to the kernel."""
    gc.collect()
    wipe_small_arrays()
    give_back_memory()


def forget_bodies(loop: asyncio.AbstractEventLoop) -> None:
    """Free what came of bodies that nobody has read. uvicorn keeps it with the last request of a connection, up to 256
    KiB, until the next one comes or the connection ends: a refused upload would lie there. On the loop's thread.

    Connections are found by the loop's own list of them, private as it is, and not among the collector's objects: to
    list those gives other threads' half-made tuples a second owner, at which Python fails them (SystemError).
    """
    for transport in list(getattr(loop, "_transports", {}).values()):
        cycle = getattr(transport.get_protocol(), "cycle", None)
        if isinstance(cycle, RequestResponseCycle) and cycle.response_complete:
            cycle.body = bytearray()
