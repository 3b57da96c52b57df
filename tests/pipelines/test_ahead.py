"""A stage in a thread: bounded, honest about errors, closed to its first line."""

import threading
import time
from collections.abc import Generator

import pytest

from nanoswap.pipelines.ahead import Ahead


def counting(upto: int, made: list[int], closed: threading.Event) -> Generator[int, None, None]:
    try:
        for number in range(upto):
            made.append(number)
            yield number
    finally:
        closed.set()


def test_everything_arrives_in_order_and_from_another_thread() -> None:
    names: set[str] = set()

    def items() -> Generator[int, None, None]:
        for number in range(100):
            names.add(threading.current_thread().name)
            yield number

    stage = Ahead(items(), 3, "stage")
    assert list(stage) == list(range(100))
    assert names == {"stage"}
    stage.close()


def test_never_more_than_the_bound_is_made_ahead() -> None:
    made: list[int] = []
    stage = Ahead(counting(1000, made, threading.Event()), 4, "stage")
    taken = iter(stage)
    for _ in range(10):
        next(taken)
        time.sleep(0.01)
        assert len(made) - _ <= 4 + 2  # the four that wait, the one that is held, the one that was taken
    stage.close()


def test_close_ends_the_thread_and_the_generator() -> None:
    closed = threading.Event()
    stage = Ahead(counting(10**9, [], closed), 2, "stage")
    next(iter(stage))
    stage.close()
    assert closed.is_set()
    assert "stage" not in {thread.name for thread in threading.enumerate()}
    stage.close()


def test_an_error_of_the_stage_is_the_readers() -> None:
    def failing() -> Generator[int, None, None]:
        yield 1
        raise LookupError("here")

    stage = Ahead(failing(), 2, "stage")
    seen = []
    with pytest.raises(LookupError, match="here"):
        seen.extend(stage)
    assert seen in ([], [1])
    stage.close()
