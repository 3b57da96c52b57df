"""Pixel work in a thread, on the event loop's terms: started, awaited, and never left behind.

OpenCV, the codecs and the GPU can't be interrupted, so whoever stops waiting raises the work's cancel token and then
waits for the thread all the same: only when it has ended may its buffers be wiped. The thread itself lives on, and with
it what decoders left on its stack, so that is emptied when a piece of work is done.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import TypeVar

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.errors import Cancelled
from nanoswap.pipelines.stack import wipe_stack
from nanoswap.serve.problems import Problem

T = TypeVar("T")


async def in_thread(
    work: Callable[[], T],
    cancel: CancelToken,
    left: asyncio.Event,
    discard: Callable[[T], None],
    threads: Executor | None = None,
) -> T:
    """What ``work``, which looks at ``cancel``, returns. When the caller is cancelled meanwhile, ``discard`` gets it
    instead. ``left`` is set when the person has gone. ``threads``: None is
    the event loop's own.

    Raises what ``work`` raises; for ``Cancelled`` Problem ``incomplete`` or ``canceled``.
    """
    task = asyncio.get_running_loop().run_in_executor(threads, then_wiping_the_stack(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        cancel.cancel()
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is None:
            discard(task.result())
        raise
    except Cancelled:
        # Told apart for the room: a broken connection gives the place back, a cancellation doesn't.
        raise Problem("incomplete" if left.is_set() else "canceled") from None


def then_wiping_the_stack(work: Callable[[], T]) -> Callable[[], T]:
    """``work``, with the stack of its thread emptied behind it, whether it returns or raises."""

    def run() -> T:
        try:
            return work()
        finally:
            wipe_stack()

    return run
