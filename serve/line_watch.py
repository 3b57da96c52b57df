"""One line, looked at again and again by a thread, for somebody who may never wait for the store.

A look that fails leaves the last answer, which is believed for FRESH_SECONDS and no longer: whoever decides by a line
must know that they see none.
"""

import asyncio
import logging
import threading
import time

from nanoswap.queue.room import Line, WaitingRoom
from nanoswap.queue.ticket import Kind

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
#: More than one failed call takes (a store that doesn't answer is given up after three).
FRESH_SECONDS = 8.0


class LineWatch:
    """Watches the line of ``kind`` in ``room``, and closes the room when it is closed itself."""

    def __init__(
        self, room: WaitingRoom, kind: Kind, *, pause: float = LOOK_SECONDS, fresh: float = FRESH_SECONDS
    ) -> None:
        self._room, self._kind, self._pause, self._fresh = room, kind, pause, fresh
        #: When the last look that succeeded began, and what it saw. Swapped as one reference.
        self._seen: tuple[float, Line] | None = None
        self._closed = threading.Event()
        # A daemon: the process may end at any moment, and nothing here is worth a farewell.
        self._thread = threading.Thread(target=lambda: asyncio.run(self._follow()), name=f"{kind} line", daemon=True)
        self._thread.start()

    def line(self) -> Line | None:
        """The line as it was at most ``fresh`` seconds ago; None when nothing is known of it. Never waits."""
        seen = self._seen
        return seen[1] if seen is not None and time.monotonic() - seen[0] <= self._fresh else None

    def close(self) -> None:
        """Stop looking, soon; doesn't wait for it."""
        self._closed.set()

    async def _follow(self) -> None:
        away = False
        while not self._closed.is_set():
            began = time.monotonic()
            try:
                self._seen = (began, await self._room.line(self._kind))
            except Exception as error:  # whatever it is, the next look may succeed; without the thread none would
                if not away:
                    log.warning("%s line not seen: %s", self._kind, type(error).__name__)
                away = True
            else:
                if away:
                    log.warning("%s line seen again", self._kind)
                away = False
            await asyncio.sleep(self._pause)
        await self._room.close()
