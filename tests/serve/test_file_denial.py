"""What a process can and can't do once it has denied itself new files; each in its own, as there is no way back."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

import nanoswap.serve.file_denial as file_denial
from nanoswap.serve.file_denial import CanNotDeny, deny_new_files

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="needs Linux's seccomp"
)

HEAD = """
import ctypes, errno, os, platform, socket, subprocess, sys, tempfile, threading
from pathlib import Path
from nanoswap.serve.file_denial import deny_new_files
os.chdir(sys.argv[1])
X86 = platform.machine() == "x86_64"
libc = ctypes.CDLL(None, use_errno=True)

def error(call):
    # The name of the error that a call ends with, or None.
    try:
        call()
    except OSError as failed:
        return errno.errorcode[failed.errno]

def raw(number, *words):
    # The same of a system call by its number.
    words = [ctypes.c_char_p(w) if isinstance(w, bytes) else ctypes.c_long(w) for w in words]
    if libc.syscall(ctypes.c_long(number), *words) == -1:
        return errno.errorcode[ctypes.get_errno()]

"""


def child(folder: Path, code: str) -> None:
    """Run ``code`` in a process of its own whose working folder this is; it asserts for itself."""
    made = subprocess.run([sys.executable, "-c", HEAD + code, str(folder)], capture_output=True, text=True, timeout=60)
    assert made.returncode == 0, made.stderr


#: Ways of making something with a name, or a file without one. ``old`` is a file that is there.
WAYS = {
    "open": "lambda: open('new', 'w')",
    "append": "lambda: open('old', 'a')",
    "openat": "lambda: os.open('new', os.O_CREAT | os.O_WRONLY, dir_fd=os.open('.', os.O_RDONLY))",
    "nameless": "lambda: os.open('.', os.O_TMPFILE | os.O_RDWR)",
    "temporary": "lambda: os.close(tempfile.mkstemp(dir='.')[0])",
    "mkdir": "lambda: os.mkdir('new')",
    "mkdirat": "lambda: os.mkdir('new', dir_fd=os.open('.', os.O_RDONLY))",
    "mkfifo": "lambda: os.mkfifo('new')",
    "mknod": "lambda: os.mknod('new')",
    "link": "lambda: os.link('old', 'new')",
    "symlink": "lambda: os.symlink('old', 'new')",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_file_can_be_made_before_and_not_after(tmp_path: Path, way: str) -> None:
    (tmp_path / "old").write_bytes(b"")
    child(
        tmp_path,
        f"""
make = {WAYS[way]}
assert error(make) is None
for one in Path(".").glob("new"):
    one.rmdir() if one.is_dir() else one.unlink()
deny_new_files()
before = sorted(os.listdir("."))
assert error(make) == "EACCES", error(make)
assert sorted(os.listdir(".")) == before
""",
    )


#: By call number, x86-64 and Arm: what no Python function comes to.
CALLS = {
    "open": (2, None, "b'new', os.O_CREAT | os.O_WRONLY, 0o600", "EACCES"),
    "creat": (85, None, "b'new', 0o600", "EACCES"),
    "mkdir": (83, None, "b'new', 0o700", "EACCES"),
    "mknod": (133, None, "b'new', 0o100600, 0", "EACCES"),
    "link": (86, None, "b'old', b'new'", "EACCES"),
    "symlink": (88, None, "b'old', b'new'", "EACCES"),
    "openat": (257, 56, "-100, b'new', os.O_CREAT | os.O_WRONLY, 0o600", "EACCES"),
    "mkdirat": (258, 34, "-100, b'new', 0o700", "EACCES"),
    "mknodat": (259, 33, "-100, b'new', 0o100600, 0", "EACCES"),
    "linkat": (265, 37, "-100, b'old', -100, b'new', 0", "EACCES"),
    "symlinkat": (266, 36, "b'old', -100, b'new'", "EACCES"),
    "open_by_handle_at": (304, 265, "-1, 0, os.O_CREAT", "EACCES"),
    # struct open_how: flags O_CREAT | O_WRONLY, mode 0600, resolve 0.
    "openat2": (437, 437, "-100, b'new', (0o101).to_bytes(8, 'little') + (0o600).to_bytes(16, 'little'), 24", "ENOSYS"),
    "io_uring_setup": (425, 425, "1, bytes(120)", "ENOSYS"),
}


@pytest.mark.parametrize("call", CALLS)
def test_each_call_has_its_rule(tmp_path: Path, call: str) -> None:
    intel, arm, words, expected = CALLS[call]
    number = intel if platform.machine() == "x86_64" else arm
    if number is None:
        pytest.skip("this machine doesn't have the call")
    (tmp_path / "old").write_bytes(b"")
    child(
        tmp_path,
        f"""
deny_new_files()
assert raw({number}, {words}) == {expected!r}, raw({number}, {words})
assert os.listdir(".") == ["old"]
""",
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="only x86-64 has a second set of numbers")
def test_other_calling_conventions_have_no_calls(tmp_path: Path) -> None:
    """open(2) of the x32 convention. (The kernel may lack x32; then it says the same without a filter.)"""
    child(tmp_path, "deny_new_files()\nassert raw(0x40000000 + 2, b'new', 0o101, 0o600) == 'ENOSYS'")


def test_the_program_refuses_another_architecture_and_x32() -> None:
    """Run on the filter itself: the kernel here may not have those conventions at all."""
    machine = file_denial._MACHINES["x86_64"]
    program = file_denial._program(machine)
    allow, nothing = 0x7FFF0000, 0x00050000 | 38
    assert run(program, machine.architecture, 0) == allow
    assert run(program, 0x40000003, 5, 0o101) == nothing
    assert run(program, machine.architecture, 0x40000000 + 2) == nothing
    assert run(program, machine.architecture, 257, 0, 0, 0o101) == 0x00050000 | 13
    assert run(program, machine.architecture, 257, 0, 0, 0o1) == allow
    arm = file_denial._MACHINES["aarch64"]
    assert run(file_denial._program(arm), arm.architecture, 56, 0, 0, 0o101) == 0x00050000 | 13
    assert run(file_denial._program(arm), arm.architecture, 34) == 0x00050000 | 13


def run(program: bytes, architecture: int, number: int, *arguments: int) -> int:
    """What a classic BPF program answers; the five instructions that ours has (linux/filter.h)."""
    import struct

    data = struct.pack("<iIQ6Q", number, architecture, 0, *arguments, *[0] * (6 - len(arguments)))
    at, accumulator = 0, 0
    while True:
        code, true, false, value = struct.unpack_from("<HBBI", program, 8 * at)
        at += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += true if holds else false


def test_binds_threads_that_began_before(tmp_path: Path) -> None:
    child(
        tmp_path,
        """
go, seen = threading.Event(), []
def old():
    go.wait()
    seen.append(error(lambda: open("new", "w")))
thread = threading.Thread(target=old)
thread.start()
deny_new_files()
go.set()
thread.join()
assert seen == ["EACCES"], seen
""",
    )


def test_binds_children(tmp_path: Path) -> None:
    child(
        tmp_path,
        """
deny_new_files()
code = "import sys\\ntry: open('new', 'w')\\nexcept PermissionError: sys.exit(7)"
assert subprocess.run([sys.executable, "-c", code]).returncode == 7
assert os.listdir(".") == []
""",
    )


def test_a_later_filter_cannot_lift_it(tmp_path: Path) -> None:
    child(tmp_path, "deny_new_files()\ndeny_new_files()\nassert error(lambda: open('new', 'w')) == 'EACCES'")


def test_what_is_open_goes_on(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"said")
    child(
        tmp_path,
        """
log = open("log", "w")
deny_new_files()
log.write("goes on"); log.flush()
assert Path("log").read_text() == "goes on"
assert Path("old").read_bytes() == b"said"
with open("old", "r+b") as old:
    old.write(b"done")
with open("/dev/null", "r+b", buffering=0) as nothing:
    nothing.write(b"x")
memory = os.memfd_create("m")
os.write(memory, b"x")
a, b = socket.socketpair()
a.send(b"x")
assert b.recv(1) == b"x"
assert subprocess.run(["true"], stdin=subprocess.DEVNULL).returncode == 0
""",
    )


def test_devices_are_opened_without_making_them(tmp_path: Path) -> None:
    """`open(path, "wb")` asks to create even where the file is there: only reading, and writing with "r+", go on."""
    child(tmp_path, "deny_new_files()\nassert error(lambda: open('/dev/null', 'wb')) == 'EACCES'")


def test_elsewhere_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    with pytest.raises(CanNotDeny, match="Linux on x86-64"):
        deny_new_files()
