"""From a grant to two files in memory: what every swap begins with, whatever it swaps.

The grant is burnt first, so that nobody without a turn can make this process read a body; from then on the turn is
held until the block ends, and the room hears how it ended.
"""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import Request

from nanoswap.queue.room import WaitingRoom
from nanoswap.serve.books import Books
from nanoswap.serve.delivery import hearing_the_person_leave
from nanoswap.serve.turn import Turn, turn
from nanoswap.serve.upload import Upload, check_head, read_upload


@dataclass(frozen=True, slots=True)
class Received:
    """A turn that has begun, and what came with it. ``left`` is set when the person's connection is gone."""

    turn: Turn
    upload: Upload
    left: asyncio.Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Reception:
    """Takes people in at one replica. ``files``: the parts of an upload and the most bytes of each; ``fields``: its
    other parts; ``seconds``: time for the whole body; ``work_seconds``: for the work after it; ``books``: where every
    turn's end is written down."""

    room: WaitingRoom
    worker: str
    files: Mapping[str, int]
    fields: Collection[str]
    seconds: float
    work_seconds: float
    books: Books = field(default_factory=Books)

    @asynccontextmanager
    async def take(self, request: Request, ticket_id: str, account: str, grant: str) -> AsyncIterator[Received]:
        """Redeem the grant and read the body. The turn ends, and everything is wiped, behind the block.

        Raises RoomError for a grant that is not good, Problem for a body that is not; see ``read_upload``.
        """
        check_head(request)
        ticket = await self.room.redeem(ticket_id, account, grant, self.worker)
        async with turn(self.room, ticket, self.worker, allowed=self.work_seconds, books=self.books) as mine:
            with await read_upload(
                request,
                files=self.files,
                fields=self.fields,
                declared_bytes=ticket.bytes,
                seconds=self.seconds,
                arrived=lambda done, total: mine.report("upload", done, total),
            ) as upload:
                mine.stages.enter("ready")
                async with hearing_the_person_leave(request.receive, mine) as left:
                    yield Received(mine, upload, left)
