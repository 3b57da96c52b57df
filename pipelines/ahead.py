"""A stage of a pipeline in a thread of its own, a bounded number of items ahead of its reader.

The bound is what keeps memory constant and what carries a slow reader's pace back to the first stage.
Closing runs upstream: the thread ends, then the generator it drew from is closed, in that thread, so that
every stage's `finally` runs before `close` returns, and the stack of the thread is emptied behind them.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import Generic, TypeVar

from nanoswap.pipelines.stack import wipe_stack

T = TypeVar("T")


class Ahead(Generic[T]):
    """Iterates over `items` from another thread. Raises in the reader what the stage raised. Close it."""

    def __init__(self, items: Generator[T, None, None], depth: int, name: str) -> None:
        self._items, self._depth = items, depth
        self._ready: deque[T] = deque()
        self._change = threading.Condition()
        self._closed = self._ended = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._ready or self._ended)
                if not self._ready:
                    if self._error is not None:
                        raise self._error
                    return
                item = self._ready.popleft()
                self._change.notify_all()
            yield item

    def close(self) -> None:
        """The stage stops after the item it is making. Idempotent; not from the stage's own thread."""
        with self._change:
            self._closed = True
            self._ready.clear()
            self._change.notify_all()
        self._thread.join()

    def _run(self) -> None:
        try:
            for item in self._items:
                with self._change:
                    self._change.wait_for(lambda: self._closed or len(self._ready) < self._depth)
                    if self._closed:
                        break
                    self._ready.append(item)
                    self._change.notify_all()
                del item
        except BaseException as error:
            self._error = error
        try:
            self._items.close()
        except BaseException as error:
            self._error = self._error or error
        wipe_stack()
        with self._change:
            self._ended = True
            self._change.notify_all()
