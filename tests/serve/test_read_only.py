"""The service on a machine whose every file system is read-only but one small one in memory, and without a home.

A mount namespace stands in for the container (`docker run --read-only --shm-size … --cap-drop ALL`): the same mounts,
made read-only in it alone, and a root without capabilities. Needs root and Linux; skipped where that can't be had.
"""

import ctypes
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

import nanoswap.serve.file_denial as file_denial
from nanoswap.client import Client
from nanoswap.serve.process_memory import command, tree
from tests.clips import make
from tests.corpus import CORPUS
from tests.serve.conftest import Service, start_service, stop_service
from tests.serve.processes import replica

SCRATCH_MIB = 128
#: Of that, what all of Ray, the edge and Redis have in it behind some swaps. Measured: 1.1 MB after minutes.
USED_BYTES = 8_000_000
#: What is not a file system for files of people: the kernel's own.
KERNELS = "proc sysfs cgroup cgroup2 devpts mqueue securityfs debugfs tracefs bpf pstore configfs"
READ_ONLY = f"""
set -eu
while read -r _ place kind _; do
    case " {KERNELS} " in *" $kind "*) ;; *) mount -o remount,bind,ro "$place" ;; esac
done </proc/self/mounts
mount -t tmpfs -o size={SCRATCH_MIB}m,mode=1777,noexec,nosuid,nodev tmpfs /dev/shm
unset HOME XDG_CACHE_HOME XDG_CONFIG_HOME TMPDIR
exec setpriv --bounding-set=-all --inh-caps=-all "$@"
"""
INSIDE = ("unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY, "sh")


def missing() -> str | None:
    """Why it can't be tried here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux"
    try:
        made = subprocess.run([*INSIDE, "true"], capture_output=True, text=True, timeout=20)
    except OSError as error:
        return str(error)
    return made.stderr.strip() or "no mounts here" if made.returncode else None


WHY_NOT = missing()
pytestmark = [pytest.mark.service, pytest.mark.skipif(WHY_NOT is not None, reason=f"no read-only system: {WHY_NOT}")]


@pytest.fixture(scope="module")
def read_only() -> Iterator[Service]:
    running = start_service(inside=INSIDE)
    # Keeps its mounts until we have looked at what it leaves.
    mounts = os.open(f"/proc/{running.process.pid}/ns/mnt", os.O_RDONLY)
    try:
        yield running
        stop_service(running)
        look = ["nsenter", f"--mount=/proc/self/fd/{mounts}", "ls", "-A", "/dev/shm"]
        assert subprocess.run(look, pass_fds=[mounts], check=True, capture_output=True).stdout == b""
        assert running.process.returncode == 0
    finally:
        os.close(mounts)
        with suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)


def seen_from(pid: int, path: str) -> Path:
    """A path as that process sees it."""
    return Path(f"/proc/{pid}/root{path}")


def test_swaps_with_one_small_scratch(read_only: Service, astronaut: bytes, hopper: bytes) -> None:
    pid = read_only.process.pid
    clip = make(CORPUS["constant rate"])
    with Client(read_only.url, token=read_only.sign_in()) as client:
        for _ in range(3):
            assert client.swap(astronaut, hopper, consent=True).data
        assert client.swap(astronaut, clip, consent=True).data
    shm = os.statvfs(seen_from(pid, "/dev/shm"))
    assert shm.f_blocks * shm.f_frsize == SCRATCH_MIB * 2**20
    assert (shm.f_blocks - shm.f_bfree) * shm.f_frsize < USED_BYTES
    (folder,) = seen_from(pid, "/dev/shm").iterdir()
    assert folder.name.startswith("ns-")
    assert folder.stat().st_mode & 0o077 == 0


def test_nothing_else_can_be_written_to(read_only: Service) -> None:
    for pid in tree(read_only.process.pid):
        for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
            before, _, behind = line.partition(" - ")
            place, options, kind = before.split()[4], before.split()[5], behind.split()[0]
            # The scratch is mounted over another /dev/shm, which is read-only as well.
            writable = "rw" in options.split(",") and kind not in KERNELS.split()
            assert not writable or (place, kind) == ("/dev/shm", "tmpfs"), (command(pid), line)
    for place in ("/", "/tmp", "/var/tmp", "/root", str(Path(__file__).parent)):
        with pytest.raises(OSError, match="Read-only file system"):
            (seen_from(read_only.process.pid, place) / "written").touch()


def test_no_process_may_leave_a_core(read_only: Service) -> None:
    for pid in tree(read_only.process.pid):
        (line,) = [one for one in Path(f"/proc/{pid}/limits").read_text().splitlines() if one.startswith("Max core")]
        # One byte: less than any core, and it alone stops one that would be piped to a program (core(5)).
        assert line.split()[4:6] == ["1", "1"], command(pid)


@pytest.mark.parametrize("kind", ["image", "video", "gateway"])
def test_a_replica_has_denied_itself_new_files(read_only: Service, kind: str) -> None:
    pid = replica(read_only.process.pid, kind)
    for thread in Path(f"/proc/{pid}/task").iterdir():
        status = dict(line.split(":\t", 1) for line in (thread / "status").read_text().splitlines() if ":\t" in line)
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1"), thread
    # What is in force is what test_file_denial.py tries, rule for rule.
    assert filter_of(pid) == file_denial._program(file_denial._MACHINES[platform.machine()])


def filter_of(pid: int) -> bytes:
    """The newest seccomp filter of a process, as the kernel has it (ptrace(2): PTRACE_SECCOMP_GET_FILTER)."""
    attach, detach, get_filter = 16, 17, 0x420C
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    library.ptrace.restype = ctypes.c_long
    assert library.ptrace(attach, pid, None, None) == 0, os.strerror(ctypes.get_errno())
    try:
        os.waitpid(pid, 0x40000000)  # __WALL
        count = library.ptrace(get_filter, pid, None, None)
        if count < 0:
            pytest.skip(f"the kernel doesn't show filters: {os.strerror(ctypes.get_errno())}")
        code = ctypes.create_string_buffer(8 * count)
        assert library.ptrace(get_filter, pid, None, ctypes.addressof(code)) == count
        return code.raw
    finally:
        library.ptrace(detach, pid, None, None)
