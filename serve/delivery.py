"""The result on its way out: sent in slices, checked to have left, wiped.

Starlette runs a response after the endpoint has returned, so the turn and the buffers can't be closed by the endpoint.
They travel here on an exit stack, which closes when the last slice has been handed over or the person has left. Nobody
may hold a turn by reading slowly for ever: a slice must be taken within STALL_SECONDS, the whole within what is given.
"""

import asyncio
import hashlib
import logging
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nanoswap.pipelines.swap import Swapped
from nanoswap.queue.ticket import Outcome
from nanoswap.serve.background import background
from nanoswap.serve.problems import NO_STORE, Problem
from nanoswap.serve.turn import Turn
from nanoswap.serve.upload import wipe

log = logging.getLogger(__name__)

SLICE_BYTES = 64 * 1024
STALL_SECONDS = 30.0


@asynccontextmanager
async def hearing_the_person_leave(receive: Receive, turn: Turn) -> AsyncIterator[asyncio.Event]:
    """Cancel the turn's work as soon as the connection closes; yields the event that says so.

    Only valid once the request's body has been read to its end: then the next message is the disconnect.
    """
    left = asyncio.Event()

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            await asyncio.sleep(0)
        left.set()
        turn.cancel.cancel()

    async with background(listen(), "disconnect"):
        yield left


class Delivery(Response):
    """Sends a swapped picture within ``seconds``, wipes it and ends its turn."""

    def __init__(
        self, swapped: Swapped, turn: Turn, left: asyncio.Event, seconds: float, stack: AsyncExitStack
    ) -> None:
        self._data = swapped.data
        self._turn = turn
        self._left = left
        self._seconds = seconds
        self._stack = stack
        digest = hashlib.sha256(self._data)
        self._sha256 = digest.hexdigest()
        headers = NO_STORE | {
            "Content-Length": str(len(self._data)),
            # RFC 9530
            "Content-Digest": f"sha-256=:{b64encode(digest.digest()).decode()}:",
            "X-Faces": str(swapped.faces),
            "X-Gpu-Seconds": f"{turn.used:.3f}",
            "Content-Disposition": f'inline; filename="nanoswap.{swapped.media_type.partition("/")[2]}"',
        }
        super().__init__(None, 200, headers, swapped.media_type)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._stack:
                try:
                    await self._deliver(send)
                finally:
                    wipe(self._data)
        except Problem as problem:
            # The head has left, so only a cut connection can say that it failed; the ticket's events say why.
            log.info("picture cut: %s", problem.code)

    async def _deliver(self, send: Send) -> None:
        self._turn.stages.enter("deliver")
        try:
            async with asyncio.timeout(self._seconds):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                with memoryview(self._data) as view:
                    for start in range(0, len(view), SLICE_BYTES):
                        if self._left.is_set():
                            raise Problem("incomplete")
                        more = start + SLICE_BYTES < len(view)
                        body = bytes(view[start : start + SLICE_BYTES])
                        async with asyncio.timeout(STALL_SECONDS):
                            await send({"type": "http.response.body", "body": body, "more_body": more})
                        # What is sent after a connection's end is taken without a word and without giving way, so
                        # the listener gets its turn here: a result that nobody has must not count as delivered.
                        await asyncio.sleep(0)
        except TimeoutError:
            raise Problem("slow_reader") from None
        self._turn.outcome = Outcome(code=None, bytes=len(self._data), sha256=self._sha256, gpu_seconds=self._turn.used)
