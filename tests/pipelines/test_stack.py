"""What a C function leaves on a thread's stack, and that it is gone afterwards.

The work is qsort(3): it sorts few bytes in a copy of its own, which lies on the stack. It is called some frames further
down than the rest of the test, so that nothing else comes as deep and overwrites it by chance.
"""

import ctypes
import mmap
import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

import nanoswap.pipelines.stack as stack_module
from nanoswap.pipelines.stack import wipe_stack

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"), reason="needs glibc"
)

#: Eight bytes, made of halves so that it is nowhere whole but where it was sorted.
HALVES = (b"\xd7\x91\xe3\x85", b"\xc9\xfa\x8e\xb6")


def sort_below(frames: int) -> None:
    """Sort 512 bytes of marks, that many C calls further down the stack."""
    if frames:
        # Through C, because Python's own calls don't take place on this stack.
        sorted([0], key=lambda _: sort_below(frames - 1) or 0)
        return
    library = ctypes.CDLL(None)
    data = ctypes.create_string_buffer(b"".join(HALVES) * 64, 512)
    library.qsort(data, ctypes.c_size_t(64), ctypes.c_size_t(8), library.strcmp)
    ctypes.memset(data, 0, 512)


@contextmanager
def watched() -> Iterator[Callable[[], int]]:
    """A function that says how many marks lie below the frames of the calling thread's stack. The kernel reads it, and
    all is prepared before, because whatever is called goes down the stack itself and overwrites some of it.

    Between the slots of frames that are in use marks may lie too: nobody who is below can overwrite those."""
    # The main thread's stack is mapped as far down as it was ever used.
    sort_below(60)
    wipe_stack()
    library = ctypes.CDLL(None)
    low, _ = stack_module._bounds(stack_module._glibc())
    context = ctypes.create_string_buffer(8192)
    library.getcontext(context)
    pointer = ctypes.c_uint64.from_buffer(context, stack_module._POINTER[platform.machine()]).value
    with open("/proc/self/maps") as table:
        areas = [line.split() for line in table]
    bounds = [(*(int(word, 16) for word in area[0].split("-")), area[-1]) for area in areas]
    start = next(
        (area for area in bounds if area[0] <= low < area[1]), next(area for area in bounds if area[2] == "[stack]")
    )[0]
    mark, memory = b"".join(HALVES), os.open("/proc/self/mem", os.O_RDONLY)
    try:
        yield lambda: os.pread(memory, pointer - start, start).count(mark)
    finally:
        os.close(memory)


def main_thread(work: Callable[[], None]) -> None:
    work()


def other_thread(work: Callable[[], None]) -> None:
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]


@pytest.mark.parametrize("thread", [main_thread, other_thread])
def test_what_a_function_of_c_left_is_gone(thread: Callable[[Callable[[], None]], None]) -> None:
    def work() -> None:
        with watched() as marks_left:
            sort_below(40)
            assert marks_left() >= 32, "the work leaves nothing, so this test would show nothing"
            assert wipe_stack()
            assert marks_left() == 0

    thread(work)


@pytest.mark.parametrize("thread", [main_thread, other_thread])
def test_wherever_the_work_lay_to_pages_and_to_our_own_frames(thread: Callable[[Callable[[], None]], None]) -> None:
    def down(above: int) -> int:
        with watched() as marks_left:
            for frames in range(12):
                sort_below(frames)
                wipe_stack()
                assert marks_left() == 0, (above, frames)
        return max([0], key=lambda _: down(above - 1)) if above else 0

    thread(lambda: down(12) and None)


def test_other_threads_keep_theirs() -> None:
    there, go = threading.Event(), threading.Event()
    seen: list[int] = []

    def other() -> None:
        with watched() as marks_left:
            sort_below(40)
            there.set()
            go.wait()
            seen.append(marks_left())

    thread = threading.Thread(target=other)
    thread.start()
    there.wait()
    wipe_stack()
    go.set()
    thread.join()
    assert seen[0] >= 32


@pytest.mark.parametrize("thread", [main_thread, other_thread])
def test_a_thread_goes_on_below_and_above(thread: Callable[[Callable[[], None]], None]) -> None:
    def down(frames: int) -> int:
        if frames == 0:
            assert wipe_stack()
            return 0
        return max([frames], key=lambda each: down(each - 1)) and frames

    def work() -> None:
        for frames in (300, 10, 300):
            assert down(frames) == frames

    thread(work)


def test_on_another_machine_it_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert not wipe_stack()


def test_it_begins_right_above_the_guard() -> None:
    def work() -> None:
        library = stack_module._glibc()
        low, _ = stack_module._bounds(library)
        # The kernel itself fails at memory that may not be read.
        out, into = os.pipe()
        try:
            assert library.write(into, ctypes.c_void_p(low), ctypes.c_size_t(1)) == 1
            assert library.write(into, ctypes.c_void_p(low - 1), ctypes.c_size_t(1)) == -1
        finally:
            os.close(out)
            os.close(into)

    other_thread(work)


def test_pages_are_as_large_as_the_system_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pages: list[int] = []
    memset = ctypes.memset

    def noted(address: int, value: int, count: int) -> None:
        pages.append(address)
        memset(address, value, count)

    monkeypatch.setattr(mmap, "PAGESIZE", 65536)
    monkeypatch.setattr(ctypes, "memset", noted)
    assert wipe_stack()
    assert pages[0] % 65536 == 0


@pytest.mark.parametrize("where", ["below", "above"])
def test_a_stack_that_is_not_the_threads_is_let_alone(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    low, high = stack_module._bounds(stack_module._glibc())
    elsewhere = (low - 2**20, low) if where == "below" else (high, high + 2**20)
    monkeypatch.setattr(stack_module, "_bounds", lambda _: elsewhere)
    monkeypatch.setattr(ctypes, "memset", lambda *_: pytest.fail("something was overwritten"))
    assert not wipe_stack()


def test_the_library_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wipe_stack()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: pytest.fail("opened again"))
    assert wipe_stack()
