"""A swapped clip on its way out while it is being made.

The parts are pulled one by one and each is sent before the next is asked for, so a person's connection sets the pace of
the whole pipeline and nothing piles up. Nobody may hold a GPU by reading slowly for ever: a part must be taken within
STALL_SECONDS and the whole within what the operator set. While there is nothing to send, an empty ``free`` box
(ISO/IEC 14496-12, 8.1.2), which every player skips, keeps the connection alive. The last box is the clip's signature,
over every byte that was sent before it, these included.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nanoswap.pipelines.errors import PipelineError
from nanoswap.pipelines.swap_clip import ClipSwap
from nanoswap.queue.ticket import Outcome
from nanoswap.serve.delivery import STALL_SECONDS
from nanoswap.serve.heartbeat import with_heartbeat
from nanoswap.serve.pixel_thread import in_thread
from nanoswap.serve.problems import NO_STORE, Problem, as_problem
from nanoswap.serve.reception import Received

log = logging.getLogger(__name__)

BEAT_SECONDS = 10.0
FREE_BOX = b"\0\0\0\x08free"


class ClipDelivery(Response):
    """Makes a clip, sends it and ends its turn. ``jobs`` bounds how many are made at once; ``stack`` holds everything
    that must be closed and wiped behind it, the turn included."""

    def __init__(
        self, clip: ClipSwap, got: Received, jobs: asyncio.Semaphore, seconds: float, stack: AsyncExitStack
    ) -> None:
        self._clip, self._turn, self._left = clip, got.turn, got.left
        self._jobs, self._seconds, self._stack = jobs, seconds, stack
        headers = NO_STORE | {
            "X-Frames": str(clip.frames),
            "Content-Disposition": 'inline; filename="nanoswap.mp4"',
            "X-Accel-Buffering": "no",
        }
        super().__init__(None, 200, headers, f'video/mp4; codecs="{clip.codecs}"')
        # Starlette states the length of an empty body; ours is not known.
        self.raw_headers = [header for header in self.raw_headers if header[0] != b"content-length"]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._stack:
                await self._deliver(send)
        except (Problem, PipelineError) as error:
            # The head has left, so only a cut connection can say that it failed; the ticket's events say why.
            log.info("clip cut: %s", as_problem(error).code)

    async def _deliver(self, send: Send) -> None:
        digest, count, seal = hashlib.sha256(), 0, self._clip.seal

        async def leave(body: bytes) -> None:
            nonlocal count
            if self._left.is_set():
                raise Problem("incomplete")
            digest.update(body)
            count += len(body)
            async with asyncio.timeout(STALL_SECONDS):
                await send({"type": "http.response.body", "body": body, "more_body": True})

        try:
            async with (
                asyncio.timeout(self._seconds),
                aclosing(with_heartbeat(self._parts(), lambda: BEAT_SECONDS)) as parts,
            ):
                await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                async for part in parts:
                    body = FREE_BOX if part is None else part
                    if seal is not None:
                        seal.update(body)
                    await leave(body)
                if seal is not None:
                    # Not as one of the parts: a pulse could come between the hash and its signature.
                    await leave(await asyncio.to_thread(seal.box))
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except TimeoutError:
            raise Problem("slow_reader") from None
        self._turn.outcome = Outcome(code=None, bytes=count, sha256=digest.hexdigest(), gpu_seconds=self._turn.used)

    async def _parts(self) -> AsyncIterator[bytes]:
        self._turn.stages.enter("ready")
        async with self._jobs:
            self._turn.stages.enter("swap")
            self._turn.cancel.check()
            made = iter(self._clip)
            while part := await in_thread(lambda: self._next(made), self._turn.cancel, self._left, lambda _: None):
                yield part

    def _next(self, made: Iterator[bytes]) -> bytes | None:
        with self._turn.working():
            return next(made, None)
