"""Calls of several threads in one forward: who shares it, who gets what, and whose failure it is."""

import threading
from collections.abc import Sequence

import pytest

from nanoswap.pipelines.window import Batching, Window


def together(window: Window[int, int], items: Sequence[int]) -> dict[int, int | BaseException]:
    """Each item by a thread of its own, all at once."""
    answers: dict[int, int | BaseException] = {}
    start = threading.Barrier(len(items))

    def call(item: int) -> None:
        start.wait()
        try:
            answers[item] = window(item, 1)
        except ValueError as error:
            answers[item] = error

    threads = [threading.Thread(target=call, args=(item,)) for item in items]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    return answers


def test_calls_share_a_forward_and_each_gets_its_own() -> None:
    forwards: list[list[int]] = []

    def run(items: Sequence[int]) -> list[int]:
        forwards.append(list(items))
        return [item * item for item in items]

    answers = together(Window(run, Batching(most=8, wait=1.0)), range(8))
    assert answers == {item: item * item for item in range(8)}
    # The window closes as soon as it is full, so nobody has waited for the second to pass.
    assert [sorted(items) for items in forwards] == [list(range(8))]


def test_it_is_told_how_many_rows_shared_a_forward_that_succeeded() -> None:
    told: list[tuple[str, int]] = []

    def run(items: Sequence[int]) -> list[int]:
        if len(items) > 1 and 3 in items:
            raise ValueError(items)
        return list(items)

    batching = Batching(most=4, wait=1.0, told=lambda what, rows: told.append((what, rows)))
    together(Window(run, batching), [0, 1, 2, 4])
    assert told == [("forward", 4)]
    together(Window(run, batching), [0, 1, 2, 3])
    assert told[1:] == [("forward", 1)] * 4


def test_no_forward_is_larger_than_allowed() -> None:
    sizes: list[int] = []

    def run(items: Sequence[int]) -> list[int]:
        sizes.append(len(items))
        return list(items)

    answers = together(Window(run, Batching(most=3, wait=0.2)), range(10))
    assert sorted(answers) == list(range(10))
    assert max(sizes) <= 3
    assert sum(sizes) == 10


def test_what_comes_during_a_forward_goes_together_into_the_next() -> None:
    running, go = threading.Event(), threading.Event()
    forwards: list[list[int]] = []

    def run(items: Sequence[int]) -> list[int]:
        forwards.append(sorted(items))
        if len(forwards) == 1:
            running.set()
            assert go.wait(10)
        return list(items)

    window: Window[int, int] = Window(run, Batching(most=8, wait=0.0))
    first = threading.Thread(target=window, args=(0, 1))
    first.start()
    assert running.wait(10)
    others = [threading.Thread(target=window, args=(item, 1)) for item in (1, 2, 3)]
    for other in others:
        other.start()
    while len(window._waiting) < 3:  # they have queued up behind the first
        pass
    go.set()
    for thread in (first, *others):
        thread.join(10)
    assert forwards == [[0], [1, 2, 3]]


def test_a_failure_is_only_its_own_callers() -> None:
    def run(items: Sequence[int]) -> list[int]:
        if 3 in items:
            raise ValueError("three")
        return list(items)

    answers = together(Window(run, Batching(most=8, wait=0.5)), range(6))
    assert isinstance(answers.pop(3), ValueError)
    assert answers == {item: item for item in (0, 1, 2, 4, 5)}


def test_a_window_goes_on_after_a_failure() -> None:
    def run(items: Sequence[int]) -> list[int]:
        if items[0] < 0:
            raise ValueError("below zero")
        return list(items)

    window: Window[int, int] = Window(run, Batching(most=4, wait=0.0))
    with pytest.raises(ValueError, match="below zero"):
        window(-1, 1)
    assert window(5, 1) == 5


def test_interrupted_wait_leaves_the_lead_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    window: Window[int, int] = Window(list, Batching(most=4, wait=5.0))

    def interrupted(_: float | None = None) -> bool:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(window._changed, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            window(1, 1)
    window._batching = Batching(most=1, wait=0.0)
    answers: list[int] = []
    following = threading.Thread(target=lambda: answers.append(window(2, 1)), daemon=True)
    following.start()
    following.join(5)
    assert answers == [2]
