"""Where in a running service do given bytes lie? Its memory, its open and written files, shared memory, Redis.

One search stops the whole tree of processes, reads everything, and lets it go on. A place is told as a person can look
it up: ``memory of PID command``, ``file path``, ``redis key``.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from nanoswap.queue.redis_dump import everything, process_id
from nanoswap.serve.file_trace import FileTrace, open_files
from nanoswap.serve.needles import Keys, Needles
from nanoswap.serve.process_memory import CHUNK, Unread, chunks, command, stopped, tree, written_mappings

_READERS: Final = 2
SERVERS: Final = frozenset({"redis-server", "valkey-server"})


@dataclass(frozen=True, slots=True)
class Remnant:
    """About ``count`` bytes of what ``needle`` names, in ``place``."""

    place: str
    needle: str
    count: int


@dataclass(slots=True)
class Seen:
    """What one search found and how far it saw."""

    remnants: list[Remnant] = field(default_factory=list)
    processes: int = 0
    scanned: int = 0
    unread: Unread = field(default_factory=Unread)
    on_disk: list[str] = field(default_factory=list)
    in_memory: list[str] = field(default_factory=list)


class Search:
    """Of the tree of processes below ``root``, and of its Redis. redis_url: None when there is none to ask.

    Raises `RoomUnavailable` for one that doesn't answer.
    """

    def __init__(self, root: int, redis_url: str | None = None) -> None:
        self._roots, self._redis_url = [root], redis_url
        self._known: dict[int, bool] = {}
        self._shared_memory = Path(f"/proc/{root}/root/dev/shm")
        if redis_url is not None:
            server = process_id(redis_url)
            # A server elsewhere has a number that means another process here.
            if server not in tree(root) and Path(command(server).split(" ")[0].split(":")[0]).name in SERVERS:
                self._roots.append(server)

    def mine(self, pid: int) -> bool:
        """Whether a process belongs to the service. One that is already gone may have: what it wrote is searched."""
        if pid not in self._known:
            if not command(pid):
                return True
            self._known[pid] = any(pid in tree(root) for root in self._roots)
        return self._known[pid]

    def look(self, needles: Needles, trace: FileTrace) -> Seen:
        """Search everything now. Raises `PermissionError`, `OwnTree`, `NoTrace`, `RoomUnavailable`."""
        seen = Seen()
        self._ask_redis(needles, seen)
        with stopped(*self._roots) as processes, ThreadPoolExecutor(_READERS) as readers:
            seen.processes = len(processes)
            for part in readers.map(lambda pid: self._of_process(pid, needles), processes):
                _add(seen, part)
            for written in trace.take():
                if self._known.get(written.pid):
                    (seen.in_memory if written.in_memory else seen.on_disk).append(written.path)
                self._note(f"file {written.path}", needles, _content(written.descriptor), seen)
        for path in self._shared_memory.rglob("*"):
            with suppress(OSError):
                if path.is_file():
                    with path.open("rb") as file:
                        place = Path("/dev/shm") / path.relative_to(self._shared_memory)
                        self._note(f"file {place}", needles, _content(file.fileno()), seen)
        return seen

    def _of_process(self, pid: int, needles: Needles) -> Seen:
        seen = Seen()
        with suppress(ProcessLookupError, FileNotFoundError):
            self._note(f"memory of {pid} {command(pid)[:60]}", needles, chunks(pid, seen.unread), seen)
            seen.on_disk += written_mappings(pid)
            for name, descriptor in open_files(pid):
                self._note(f"open file {name} of {pid}", needles, _content(descriptor), seen)
        return seen

    def _ask_redis(self, needles: Needles, seen: Seen) -> None:
        if self._redis_url is not None:
            for where, data in everything(self._redis_url):
                self._note(f"redis {where}", needles, iter([np.frombuffer(data, np.uint8)]), seen)

    @staticmethod
    def _note(place: str, needles: Needles, pieces: Iterator[npt.NDArray[np.uint8]], seen: Seen) -> None:
        found: list[Keys] = []
        for piece in pieces:
            seen.scanned += len(piece)
            found.append(needles.keys_in(piece))
        keys = np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)
        seen.remnants += [Remnant(place, name, count) for name, count in needles.count(keys).items()]


def _add(seen: Seen, part: Seen) -> None:
    seen.remnants += part.remnants
    seen.scanned += part.scanned
    seen.on_disk += part.on_disk
    for name, count in part.unread.mappings.items():
        seen.unread.add(name, count)


def _content(descriptor: int) -> Iterator[npt.NDArray[np.uint8]]:
    """A file's content, piece by piece."""
    at = 0
    while data := os.pread(descriptor, CHUNK, at):
        yield np.frombuffer(data, np.uint8)
        at += len(data)


def summed(remnants: list[Remnant]) -> dict[str, int]:
    """Place -> bytes of the needle of which most was found there: the forms of one picture overlap."""
    most: Counter[str] = Counter()
    for remnant in remnants:
        most[remnant.place] = max(most[remnant.place], remnant.count)
    return dict(most)
