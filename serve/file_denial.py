"""A process that can't make a file any more (Linux, seccomp).

The promise is that media never reach a disk. Here the kernel keeps it: once a replica has loaded what it needs, every
call that would create a file, a folder, a link or a nameless file fails with EACCES, in every thread of the process and
every process that it starts, whoever calls: our code, a library's cache, a temporary file of a decoder. Files that are
open already (logs, sockets, the GPU's devices) and memory files (memfd_create, no name on any file system) go on.

It is new files that are denied, no more: one that is there may still be opened for writing where its permissions allow
that, and renamed, and a unix socket may be bound to a name. A read-only root and a scratch in memory are for those
(deploy/README.md).

seccomp and not Landlock: a Landlock domain binds the calling thread only, and a Ray worker has dozens that began
before us. The filter looks at the number of the call and, of open and openat, at the flags; openat2 and io_uring carry
their flags where a filter can't see them, so they are as if the kernel had none. See seccomp(2), linux/filter.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_SET_MODE_FILTER, _ALL_THREADS = 1, 1  # SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF_LD|W|ABS, BPF_JMP|…|K, BPF_RET|K
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_X32: Final = 0x40000000
#: O_CREAT and the bit of O_TMPFILE that is its own, the same on both machines.
_CREATING: Final = 0o100 | 0o20000000


@dataclass(frozen=True, slots=True)
class _Machine:
    """Call numbers (asm/unistd.h): seccomp itself; opens -> index of their flags; those that create; those unseen."""

    architecture: int
    seccomp: int
    opens: dict[int, int]
    creating: tuple[int, ...]
    unseen: tuple[int, ...]


_MACHINES: Final = {
    "x86_64": _Machine(
        0xC000003E,
        317,
        {2: 1, 257: 2, 304: 2},  # open, openat, open_by_handle_at
        (85, 83, 258, 133, 259, 86, 265, 88, 266),  # creat, mkdir(at), mknod(at), link(at), symlink(at)
        (437, 425),  # openat2, io_uring_setup
    ),
    "aarch64": _Machine(0xC00000B7, 277, {56: 2, 265: 2}, (34, 33, 37, 36), (437, 425)),
}


class CanNotDeny(RuntimeError):
    """This system has no way for a process to deny itself new files: Linux on x86-64 or 64-bit Arm is needed."""

    def __init__(self, why: str = "") -> None:
        super().__init__(why or type(self).__doc__)


def deny_new_files() -> None:
    """From now on nothing in this process can create a file. There is no way back. Raises `CanNotDeny`."""
    machine = _MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None:
        raise CanNotDeny
    code = _program(machine)
    library = ctypes.CDLL(None, use_errno=True)
    instructions = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(instructions))
    library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    answer = library.syscall(machine.seccomp, _SET_MODE_FILTER, _ALL_THREADS, program)
    if answer != 0:
        raise CanNotDeny(f"the kernel refuses a seccomp filter: {os.strerror(ctypes.get_errno())}")


def _program(machine: _Machine) -> bytes:
    """The filter as struct sock_filter[]. Each rule is whole in itself, so none jumps further than its own end."""
    # Another calling convention has other numbers: none of its calls exists here.
    rules = [_load(_ARCHITECTURE), _jump(_EQUAL, machine.architecture, 1, 0), _refuse(errno.ENOSYS), _load(_NUMBER)]
    rules += [_jump(_AT_LEAST, _X32, 0, 1), _refuse(errno.ENOSYS)]
    rules += _refused(machine.unseen, errno.ENOSYS)
    rules += _refused(machine.creating, errno.EACCES)
    for number, argument in machine.opens.items():
        rules += [
            _jump(_EQUAL, number, 0, 4),
            _load(_ARGUMENTS + 8 * argument),
            _jump(_ANY_BIT, _CREATING, 0, 1),
            _refuse(errno.EACCES),
            _instruction(_RETURN, _ALLOW),
        ]
    return b"".join([*rules, _instruction(_RETURN, _ALLOW)])


def _refused(numbers: Iterable[int], error: int) -> list[bytes]:
    return [rule for number in numbers for rule in (_jump(_EQUAL, number, 0, 1), _refuse(error))]


def _load(offset: int) -> bytes:
    return _instruction(_LOAD, offset)


def _refuse(error: int) -> bytes:
    return _instruction(_RETURN, _ERRNO | error)


def _jump(code: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("HBBI", code, if_true, if_false, value)


def _instruction(code: int, value: int) -> bytes:
    return struct.pack("HBBI", code, 0, 0, value)
