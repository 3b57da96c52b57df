"""Work that goes on beside a block and ends with it."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def background(work: Coroutine[object, object, None], name: str) -> AsyncIterator[None]:
    """Run ``work`` as a task called ``name`` while the block runs; cancel it behind the block and wait until it has
    ended. Raises what it raised, if it ended earlier by an error."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
