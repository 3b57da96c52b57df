"""Every file that a process writes to, on every file system, as the kernel tells it (fanotify, Linux, root).

A search through folders afterwards never sees a file without a name, nor one that was unlinked a moment later. The
kernel hands over an open descriptor with each event, so such a file can still be read when its name is gone; one
descriptor per file is kept until it has been looked at. Writing through a mapping makes no event: such a file was
opened for writing, and the search of open descriptors (`open_files`) and of writable shared mappings finds it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import stat
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from nanoswap.serve.scratch import in_memory

_CLASS_NOTIF, _CLOEXEC, _UNLIMITED_QUEUE = 0x0, 0x1, 0x10  # linux/fanotify.h
_MARK_ADD, _MARK_FILESYSTEM = 0x1, 0x100
_MODIFY, _CLOSE_WRITE, _OVERFLOW = 0x2, 0x8, 0x4000
_AT_FDCWD = -100
_EVENT: Final = struct.Struct("=IBBHQii")
#: File systems that hold no file's content.
_VIRTUAL: Final = frozenset(
    {"proc", "sysfs", "cgroup", "cgroup2", "devpts", "mqueue", "debugfs", "tracefs", "securityfs", "bpf", "pstore"}
    | {"autofs", "configfs", "fusectl", "nsfs", "binfmt_misc", "selinuxfs", "hugetlbfs"}
)


class NoTrace(RuntimeError):
    """The kernel won't tell which files are written: run as root, with CAP_SYS_ADMIN."""

    def __init__(self, why: str = "") -> None:
        super().__init__(why or type(self).__doc__)


@dataclass(frozen=True, slots=True)
class Written:
    """A file that was written to. in_memory: it lies on a memory file system. descriptor: open for reading."""

    path: str
    pid: int
    in_memory: bool
    descriptor: int


class FileTrace:
    """``with FileTrace(mine) as trace:`` notes the writes of processes for which ``mine(pid)`` is true.

    Raises `NoTrace`.
    """

    def __init__(self, mine: Callable[[int], bool]) -> None:
        self._mine = mine
        self._files: dict[tuple[int, int], Written] = {}
        self._lock = threading.Lock()
        #: Something was written of which nothing is known.
        self.lost = False
        self._library = ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> Self:
        # A descriptor is held for each file until it is looked at.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self._queue = self._library.fanotify_init(
            _CLASS_NOTIF | _CLOEXEC | _UNLIMITED_QUEUE, os.O_RDONLY | os.O_CLOEXEC
        )
        if self._queue < 0:
            raise NoTrace
        #: Mount points whose writes the kernel can't tell.
        self.unwatched: list[str] = []
        self._in_memory = dict(self._mark())
        self._stopping = os.eventfd(0)
        self._thread = threading.Thread(target=self._listen, name="file trace")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.eventfd_write(self._stopping, 1)
        self._thread.join()
        for descriptor in (self._queue, self._stopping):
            os.close(descriptor)
        self.lost = False
        for _ in self.take():
            pass

    def take(self) -> Iterator[Written]:
        """The files that were written to since the last call, each once; descriptors are closed behind the last.

        Raises `NoTrace` when one was lost.
        """
        if self.lost:
            raise NoTrace("events were lost: the trace is worth nothing")
        with self._lock:
            files, self._files = list(self._files.values()), {}
        try:
            yield from files
        finally:
            for file in files:
                os.close(file.descriptor)

    def _mark(self) -> Iterator[tuple[int, bool]]:
        """Asks to be told; the devices of what is watched, and whether each is a memory file system."""
        marked = 0
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            words = line.split()
            path, kind = words[4].encode().decode("unicode_escape"), words[words.index("-") + 1]
            if kind in _VIRTUAL:
                continue
            mask = ctypes.c_uint64(_MODIFY | _CLOSE_WRITE)
            flags = _MARK_ADD | _MARK_FILESYSTEM
            if self._library.fanotify_mark(self._queue, flags, mask, _AT_FDCWD, path.encode()) == 0:
                marked += 1
                with suppress(OSError):
                    yield os.stat(path).st_dev, in_memory(Path(path))
            else:
                self.unwatched.append(path)
        if not marked:
            os.close(self._queue)
            raise NoTrace

    def _listen(self) -> None:
        try:
            self._hear()
        except OSError:
            # Of descriptors there are only so many, and a trace with a hole says nothing.
            self.lost = True

    def _hear(self) -> None:
        while True:
            ready, _, _ = select.select([self._queue, self._stopping], [], [])
            if self._queue not in ready:
                return
            data = os.read(self._queue, 65536)
            while len(data) >= _EVENT.size:
                length, _, _, _, mask, descriptor, pid = _EVENT.unpack_from(data)
                data = data[length:]
                if mask & _OVERFLOW:
                    self.lost = True
                    continue
                self._note(descriptor, pid)

    def _note(self, descriptor: int, pid: int) -> None:
        facts = os.fstat(descriptor)
        key = (facts.st_dev, facts.st_ino)
        with self._lock:
            if stat.S_ISREG(facts.st_mode) and key not in self._files and self._mine(pid):
                path = os.readlink(f"/proc/self/fd/{descriptor}")
                self._files[key] = Written(path, pid, self._in_memory.get(facts.st_dev, False), descriptor)
                return
        os.close(descriptor)


def open_files(pid: int) -> Iterator[tuple[str, int]]:
    """Name and descriptor of every regular file that a process holds open for writing, unlinked ones and memory files
    among them. A descriptor is valid until the next is asked for."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            flags = int(Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().split("flags:")[1].split()[0], 8)
            if flags & os.O_ACCMODE == os.O_RDONLY or not entry.is_file():
                continue
            name, descriptor = os.readlink(entry), os.open(entry, os.O_RDONLY | os.O_CLOEXEC)
            try:
                yield name, descriptor
            finally:
                os.close(descriptor)
