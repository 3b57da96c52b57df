"""The one folder of a run: sockets, the edge's configuration, Ray's session with its logs.

Media are never in it, yet it belongs into memory: a read-only system has no other place, and what is in memory is gone
with the machine's power. /dev/shm is believed only when the kernel says that it is a memory file system; a container
may have bound anything there.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

#: f_type of statfs(2): tmpfs and ramfs (linux/magic.h).
_MEMORY: Final = (0x01021994, 0x858458F6)
#: More than any struct statfs.
_STATFS_BYTES: Final = 512
_SHARED_MEMORY: Final = Path("/dev/shm")


def in_memory(folder: Path) -> bool:
    """Whether the kernel keeps the files of ``folder`` in memory; False where it can't be told (not Linux)."""
    if not sys.platform.startswith("linux"):
        return False
    answer = ctypes.create_string_buffer(_STATFS_BYTES)
    if ctypes.CDLL(None).statfs(os.fsencode(folder), answer) != 0:
        return False
    return ctypes.c_ulong.from_buffer(answer).value & 0xFFFFFFFF in _MEMORY


@contextmanager
def scratch(warn: Callable[[str], None], shared_memory: Path = _SHARED_MEMORY) -> Iterator[Path]:
    """A private folder (0700), removed behind the block; ``warn`` is told when it lies on a disk.

    ``shared_memory`` if that is in memory and may be written to, else where temporary files go. Raises OSError where
    neither can be had. Its path is short, because those of unix sockets must be (about 104 bytes).
    """
    parent = shared_memory if in_memory(shared_memory) and os.access(shared_memory, os.W_OK) else None
    folder = Path(tempfile.mkdtemp(prefix="ns-", dir=parent))
    try:
        if not in_memory(folder):
            warn(f"Ray's files lie on a disk, in {folder.parent}: no writable memory file system at {shared_memory}.")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
