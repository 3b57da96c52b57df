"""A slow iterator with a pulse: proxies close a connection on which nothing moves."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

T = TypeVar("T")


async def with_heartbeat(items: AsyncIterator[T], pause: Callable[[], float]) -> AsyncGenerator[T | None, None]:
    """The items as they come, and None whenever none has come for ``pause()`` seconds. Closing it closes ``items``."""
    pending: asyncio.Task[T] | None = None
    try:
        while True:
            pending = pending or asyncio.ensure_future(anext(items))
            done, _ = await asyncio.wait({pending}, timeout=pause())
            if not done:
                yield None
                continue
            try:
                item = pending.result()
            except StopAsyncIteration:
                return
            finally:
                pending = None
            yield item
    finally:
        if pending is not None:
            pending.cancel()
            await asyncio.wait({pending})
        if isinstance(items, AsyncGenerator):
            await items.aclose()
