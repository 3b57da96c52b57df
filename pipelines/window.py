"""Calls of many threads served by one forward: whatever waits is taken together.

There is no thread of its own. Whoever comes first leads: it waits a moment for company, takes what has come, runs
it, hands out the results and lets the next one lead. While a forward runs, later calls gather, so under load batches
fill by themselves and nobody waits for the clock. If a forward of several callers fails, each is tried alone: one
person's bad luck is not their neighbour's.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(frozen=True, slots=True)
class Batching:
    """most: rows of one forward; wait: seconds that the first caller waits for company; told: how many shared what, a
    "forward" of a network or a "step" of diffusion, from the thread that led it."""

    most: int = 32
    wait: float = 0.002
    told: Callable[[str, int], None] = lambda _what, _rows: None


class _Call(Generic[In, Out]):
    __slots__ = ("done", "error", "item", "result", "rows")

    def __init__(self, item: In, rows: int) -> None:
        self.item, self.rows = item, rows
        self.done = False
        self.result: Out | None = None
        self.error: BaseException | None = None


class Window(Generic[In, Out]):
    """run: takes the items of one or more calls and gives a result for each, in order. A call of more rows than one
    forward should take is run alone."""

    def __init__(self, run: Callable[[Sequence[In]], Sequence[Out]], batching: Batching) -> None:
        self._run, self._batching = run, batching
        self._waiting: deque[_Call[In, Out]] = deque()
        self._changed = Condition()
        self._led = False

    def __call__(self, item: In, rows: int) -> Out:
        """The result for `item`, which is `rows` rows of a forward. Raises what `run` raises for it."""
        call: _Call[In, Out] = _Call(item, rows)
        with self._changed:
            self._waiting.append(call)
            self._changed.notify_all()
        while batch := self._turn(call):
            try:
                self._serve(batch)
            finally:
                with self._changed:
                    self._led = False
                    self._changed.notify_all()
        if call.error is not None:
            raise call.error
        assert call.result is not None
        return call.result

    def _turn(self, call: _Call[In, Out]) -> list[_Call[In, Out]]:
        """What to serve now that this caller leads; nothing when another has served it."""
        with self._changed:
            self._changed.wait_for(lambda: call.done or not self._led)
            if call.done:
                return []
            self._led = True
            try:
                return self._gather()
            except BaseException:
                # Interrupted while it waited: the next one leads, and this call is nobody's any more.
                self._led = False
                self._waiting.remove(call)
                self._changed.notify_all()
                raise

    def _gather(self) -> list[_Call[In, Out]]:
        """Wait for company, then take calls in the order in which they came, up to `most` rows."""
        until = time.monotonic() + self._batching.wait
        while sum(call.rows for call in self._waiting) < self._batching.most:
            left = until - time.monotonic()
            if left <= 0:
                break
            self._changed.wait(left)
        batch = [self._waiting.popleft()]
        while self._waiting and sum(call.rows for call in batch) + self._waiting[0].rows <= self._batching.most:
            batch.append(self._waiting.popleft())
        return batch

    def _serve(self, batch: Sequence[_Call[In, Out]]) -> None:
        error: BaseException | None = None
        try:
            results = self._run([call.item for call in batch])
            for call, result in zip(batch, results, strict=True):
                call.result = result
            self._batching.told("forward", sum(call.rows for call in batch))
        except BaseException as failed:
            error = failed
        if error is not None and len(batch) > 1:
            # Not inside the handler: an error of one must not carry the others' frames as its context.
            error = None
            for call in batch:
                self._serve([call])
        for call in batch:
            call.error = call.error or error
            call.done = True
