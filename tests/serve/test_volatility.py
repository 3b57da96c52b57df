"""What a replica requires of its process, tried in processes that are started with and without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nanoswap.serve.volatility import FREED_MEMORY, swap_devices

glibc = pytest.mark.skipif(sys.platform != "linux" or os.confstr("CS_GNU_LIBC_VERSION") is None, reason="needs glibc")


def child(code: str, environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """Run ``code`` in a process of its own, with only these of the variables that it is about."""
    inherited = {name: value for name, value in os.environ.items() if name not in FREED_MEMORY}
    command = [sys.executable, "-c", f"from nanoswap.serve.volatility import *\n{code}"]
    return subprocess.run(command, env=inherited | environment, capture_output=True, text=True, timeout=60)


def without(name: str) -> dict[str, str]:
    return {other: value for other, value in FREED_MEMORY.items() if other != name}


def tunables(left_out: str) -> dict[str, str]:
    """The environment without one of glibc's settings."""
    kept = [word for word in FREED_MEMORY["GLIBC_TUNABLES"].split(":") if left_out not in word]
    assert len(kept) == 2
    return FREED_MEMORY | {"GLIBC_TUNABLES": ":".join(kept)}


@glibc
def test_a_process_that_is_started_right_may_hold_media() -> None:
    made = child("require_volatile()", FREED_MEMORY)
    assert made.returncode == 0, made.stderr


@glibc
@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "keep what was in them"),
        (without("GLIBC_TUNABLES"), "keep what was in them"),
        (tunables("perturb"), "keep what was in them"),
        (tunables("tcache"), "keep what was in them"),
        (without("PYTHONMALLOC"), "PYTHONMALLOC=malloc"),
    ],
    ids=["nothing", "no tunables", "no filling", "a thread's cache", "Python's own allocator"],
)
def test_one_that_keeps_what_it_frees_may_not(environment: dict[str, str], said: str) -> None:
    made = child("require_volatile()", environment)
    assert made.returncode == 1
    assert "NotVolatile" in made.stderr
    assert said in made.stderr


@glibc
def test_freed_bytes_are_counted() -> None:
    code = "print(*(freed_bytes_kept(size) for size in (40, 200, 1000, 1100, 40_000)))"
    kept = [int(word) for word in child(code, FREED_MEMORY).stdout.split()]
    assert len(kept) == 5
    assert max(kept) <= 8
    kept = [int(word) for word in child(code, {}).stdout.split()]
    # Neither filled nor touched: all of a block but its head.
    assert kept[1] == 200 - 32
    assert kept[4] > 39_000


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_no_cores_and_no_looking_in() -> None:
    code = """
import ctypes, resource
PR_GET_DUMPABLE = 3
before = ctypes.CDLL(None).prctl(PR_GET_DUMPABLE)
refuse_dumps()
print(before, ctypes.CDLL(None).prctl(PR_GET_DUMPABLE), *resource.getrlimit(resource.RLIMIT_CORE))
"""
    assert child(code, FREED_MEMORY).stdout.split() == ["1", "0", "1", "1"]


@pytest.mark.skipif(sys.platform != "linux", reason="about Linux")
def test_a_hard_limit_of_no_cores_stays() -> None:
    code = """
import resource
real = resource.setrlimit
def refused(which, limits):
    if limits != (0, 0):
        raise ValueError("not allowed to raise maximum limit")
    real(which, limits)
resource.setrlimit = refused
refuse_dumps()
print(*resource.getrlimit(resource.RLIMIT_CORE))
"""
    assert child(code, FREED_MEMORY).stdout.split() == ["0", "0"]


@glibc
def test_requiring_it_refuses_dumps_as_well() -> None:
    made = child("require_volatile()\nimport ctypes\nprint(ctypes.CDLL(None).prctl(3))", FREED_MEMORY)
    assert made.stdout.split() == ["0"]


def test_uvloop_is_refused() -> None:
    code = """
import asyncio, uvloop
async def go(): require_plain_loop()
asyncio.run(go())
print("plain")
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner: runner.run(go())
"""
    made = child(code, FREED_MEMORY)
    assert made.stdout.split() == ["plain"]
    assert made.returncode == 1
    assert "RAY_USE_UVLOOP=0" in made.stderr


def test_swap_is_read_from_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    table = "Filename\tType\tSize\tUsed\tPriority\n/swap file\tfile\t1\t0\t-2\n/dev/dm-1 partition 1 0 -3\n"
    monkeypatch.setattr(Path, "read_text", lambda path: table if str(path) == "/proc/swaps" else "")
    assert swap_devices() == ["/swap", "/dev/dm-1"]


@pytest.mark.skipif(sys.platform != "linux", reason="needs seccomp")
def test_closed_disks_stay_closed(tmp_path: Path) -> None:
    made = child(f"close_disks()\nopen({str(tmp_path / 'new')!r}, 'w')", FREED_MEMORY)
    assert "PermissionError" in made.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="about Linux")
def test_a_linux_that_cannot_be_closed_does_not_start() -> None:
    made = child("import platform\nplatform.machine = lambda: 'riscv64'\nclose_disks()", FREED_MEMORY)
    assert made.returncode == 1
    assert "NotVolatile: this process could still make files: This system has no way" in made.stderr


def test_elsewhere_it_is_said() -> None:
    code = "import sys\nfrom nanoswap.serve.log_records import keep_logs_clean\nkeep_logs_clean()\n"
    made = child(f"{code}sys.platform = 'darwin'\nclose_disks()", FREED_MEMORY)
    assert made.returncode == 0, made.stderr
    # With its reason: the class of an exception alone would tell an operator nothing.
    assert "this process could still make files: This system has no way" in made.stderr
