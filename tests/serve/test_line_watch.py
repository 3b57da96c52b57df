"""A line that is watched from elsewhere: never waited for, never believed for too long."""

import threading
from collections.abc import Iterator

import pytest

from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Line, Policy, RoomUnavailable
from nanoswap.queue.ticket import Kind
from nanoswap.serve.line_watch import LineWatch
from tests.serve.conftest import wait_until


class Wavering(MemoryRoom):
    """A room that can be away, broken, or without an end."""

    def __init__(self) -> None:
        super().__init__(Policy())
        self.error: Exception | None = None
        self.looks = 0
        self.answers = threading.Event()
        self.answers.set()
        self.closed = threading.Event()

    async def line(self, kind: Kind) -> Line:
        self.looks += 1
        # Holds the watch's own thread up, as a store that doesn't answer would.
        self.answers.wait(20)
        if self.error is not None:
            raise self.error
        return await super().line(kind)

    async def close(self) -> None:
        self.closed.set()


@pytest.fixture
def room() -> Iterator[Wavering]:
    wavering = Wavering()
    yield wavering
    wavering.answers.set()


def test_sees_the_line_and_what_becomes_of_it(room: Wavering) -> None:
    watch = LineWatch(room, Kind.VIDEO, pause=0.01)
    wait_until(watch.line)
    line = watch.line()
    assert line is not None
    assert line.kind is Kind.VIDEO
    wait_until(lambda: (seen := watch.line()) is not None and seen.now > line.now)
    watch.close()
    assert room.closed.wait(10)


@pytest.mark.parametrize("error", [RoomUnavailable(), ValueError("a bug of ours")], ids=["away", "broken"])
def test_a_failure_keeps_the_last_answer_for_a_while_and_the_watch_for_ever(
    room: Wavering, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    patient = LineWatch(room, Kind.IMAGE, pause=0.01, fresh=1000.0)
    hasty = LineWatch(room, Kind.IMAGE, pause=0.01, fresh=0.2)
    wait_until(lambda: patient.line() and hasty.line())
    room.error = error
    wait_until(lambda: hasty.line() is None)
    assert patient.line() is not None
    looks = room.looks
    wait_until(lambda: room.looks > looks + 20)
    room.error = None
    wait_until(hasty.line)
    wait_until(lambda: caplog.text.count("image line seen again") == 2)
    assert caplog.text.count("image line not seen: " + type(error).__name__) == 2, "said once each, not at every look"
    assert "bug of ours" not in caplog.text
    patient.close()
    hasty.close()


def test_asking_never_waits_for_a_store_that_does_not_answer(room: Wavering) -> None:
    room.answers.clear()
    watch = LineWatch(room, Kind.IMAGE, pause=0.01)
    wait_until(lambda: room.looks)
    assert watch.line() is None
    watch.close()
    assert not room.closed.is_set()
