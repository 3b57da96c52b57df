"""The memory of running processes, read from outside (Linux, /proc).

A service is a tree of processes. It is stopped as a whole while its memory is read, for a byte that is copied from one
process to another while we look would be missed in both. Read is every page that exists in memory or in swap, of every
mapping: heaps, stacks, data of libraries, shared memory. Left out are pages that are still those of a file on a disk,
program text above all: they hold what the file holds. What the kernel won't show is counted and told.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

PAGE: Final = os.sysconf("SC_PAGE_SIZE")
CHUNK: Final = 8 * 2**20
#: Kernel pages that belong to no process: code and clocks.
_KERNEL: Final = frozenset({"[vdso]", "[vvar]", "[vvar_vclock]", "[vsyscall]"})
_STOP_SECONDS: Final = 5.0
#: Lets every process that it was told of go on when its standard input ends, whatever ended it. Those below go first.
_WAKER: Final = """
import os, signal, sys
for pid in reversed([int(line) for line in sys.stdin]):
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        pass
"""
_PRESENT, _SWAPPED, _OF_FILE = np.uint64(1 << 63), np.uint64(1 << 62), np.uint64(1 << 61)


@dataclass(slots=True)
class Unread:
    """Bytes that exist and could not be read, by mapping."""

    mappings: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, count: int) -> None:
        self.mappings[name] = self.mappings.get(name, 0) + count


class OwnTree(RuntimeError):
    """This command is itself below the service's first process, and would stop with it."""

    def __init__(self) -> None:
        super().__init__(type(self).__doc__)


def command(pid: int) -> str:
    """How the process was called, words with spaces between; empty when it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode(errors="replace")
    return ""


def parent(pid: int) -> int:
    """0 when the process is gone or has none."""
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


def tree(root: int) -> list[int]:
    """The process and everything below it, parents first."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            children.setdefault(parent(int(entry.name)), []).append(int(entry.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return [pid for pid in found if _state(pid) not in ("", "Z")]


@contextmanager
def stopped(*roots: int) -> Iterator[list[int]]:
    """The trees below these processes stand still while the block runs; yields all their processes.

    Raises `PermissionError`, and `OwnTree` when this process is among them.

    It goes on behind the block, and also when this process is killed in it: a small process of its own sees to that.
    """
    still: list[int] = []
    waker = subprocess.Popen([sys.executable, "-S", "-c", _WAKER], stdin=subprocess.PIPE, start_new_session=True)
    assert waker.stdin is not None
    try:
        # A process may have been born while we stopped its parent: look again until there is no new one.
        while fresh := [pid for root in roots for pid in tree(root) if pid not in still]:
            if os.getpid() in fresh:
                raise OwnTree
            for pid in fresh:
                still.append(pid)
                waker.stdin.write(b"%d\n" % pid)
                waker.stdin.flush()
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            deadline = time.monotonic() + _STOP_SECONDS
            while any(_state(pid) not in ("T", "t", "", "Z") for pid in fresh):
                if time.monotonic() > deadline:
                    raise TimeoutError("a process can't be stopped")
                time.sleep(0.001)
        yield [pid for pid in still if _state(pid) not in ("", "Z")]
    finally:
        waker.stdin.close()
        waker.wait()


def chunks(pid: int, unread: Unread) -> Iterator[npt.NDArray[np.uint8]]:
    """What exists in the memory of one process, piece by piece, uint8 (N,), each beginning on a page; a piece is valid
    until the next is asked for. A run that crosses from one piece to the next is two shorter runs.

    Raises `PermissionError` when this user may not look.
    """
    buffer = np.empty(CHUNK, np.uint8)
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory, open(f"/proc/{pid}/pagemap", "rb", buffering=0) as map:
        for begin, end, name, shared in _mappings(pid):
            # What is written through a shared mapping is the file's, and no event tells of it.
            unchanged = _OF_FILE if _on_disk(name) and not shared else np.uint64(0)
            for start, count in _existing(map.fileno(), begin, end, unchanged):
                try:
                    got = os.preadv(memory.fileno(), [buffer.data[:count]], start)
                except OSError:
                    got = 0
                if got < count and name not in _KERNEL:
                    unread.add(name or "anonymous", count - got)
                if got:
                    yield buffer[:got]


def written_mappings(pid: int) -> set[str]:
    """Files on a disk that a process has mapped so that it may write to them."""
    return {name for _, _, name, shared in _mappings(pid) if shared and _on_disk(name)}


def _mappings(pid: int) -> Sequence[tuple[int, int, str, bool]]:
    """Begin, end and name of every mapping that has a page in memory or in swap, and whether it is shared and writable,
    so that its pages are a file's."""
    found: list[tuple[int, int, str, bool]] = []
    begin, end, name, held, shared = 0, 0, "", 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
        first, _, rest = line.partition(" ")
        if not first.endswith(":"):
            if held:
                found.append((begin, end, name, shared))
            low, _, high = first.partition("-")
            begin, end, held = int(low, 16), int(high, 16), 0
            words = rest.split(maxsplit=4)
            name, shared = words[4].strip() if len(words) > 4 else "", words[0][1::2] == "ws"
            # A device's memory counts no pages: it is tried, and what can't be read is told.
            held = int(name.startswith("/dev/") and not name.startswith("/dev/shm"))
        elif first in ("Rss:", "Swap:"):
            held += int(rest.split()[0])
    if held:
        found.append((begin, end, name, shared))
    return found


def _on_disk(name: str) -> bool:
    return name.startswith("/") and not name.startswith(("/dev/", "/memfd:")) and not name.endswith(" (deleted)")


def _existing(pagemap: int, begin: int, end: int, without: np.uint64) -> Iterator[tuple[int, int]]:
    """Address and length of runs of pages that exist and don't have the flag ``without``, at most CHUNK long."""
    for low in range(begin, end, CHUNK):
        pages = (min(low + CHUNK, end) - low) // PAGE
        flags = np.frombuffer(os.pread(pagemap, 8 * pages, low // PAGE * 8), np.uint64)
        there = np.flatnonzero((flags & (_PRESENT | _SWAPPED) != 0) & (flags & without == 0))
        if len(there):
            # Small holes are read along: they are zeros, and a call costs more than a page.
            for run in np.split(there, np.flatnonzero(np.diff(there) > 8) + 1):
                yield low + int(run[0]) * PAGE, int(run[-1] - run[0] + 1) * PAGE


def _state(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return ""
