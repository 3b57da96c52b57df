"""`nanoswap prove` finds a leak of each kind, in a process tree that leaks on command."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from nanoswap.queue.redis_server import RedisServer
from nanoswap.serve.file_trace import FileTrace, NoTrace
from nanoswap.serve.needles import Needles
from nanoswap.serve.process_memory import OwnTree, Unread, chunks, stopped, tree
from nanoswap.serve.search import Search, Seen
from tests.serve.conftest import wait_until

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0, reason="reading other processes' memory takes Linux and root"
)

#: A process that holds nothing of what it is told but what the leak keeps.
LEAKER = """
import ctypes, mmap, os, sys, tempfile, threading, time
import numpy as np

kept = []
with open(0, "rb", buffering=0) as told:
    code, data = told.readline().decode(), bytearray(told.readall())
kept.append(eval(code))
data[:] = bytes(len(data))
print("leaked", flush=True)
time.sleep(600)
"""

#: What leaks -> where it is found.
LEAKS = {
    "bytes(data)": "memory of",
    "np.frombuffer(data, np.uint8).copy()": "memory of",
    "(lambda block: (block.write(data), block))(mmap.mmap(-1, len(data)))": "memory of",
    "os.write(os.memfd_create('m'), data)": "open file /memfd:m",
    "(lambda file: (file.write(data), file.flush(), file))(tempfile.TemporaryFile())": "file ",
    "(lambda name: (open(name, 'wb').write(data), os.unlink(name)))(tempfile.mktemp())": "file ",
    "open('/dev/shm/nanoswap-leak', 'wb').write(data)": "file /dev/shm/nanoswap-leak",
    "print(data.hex(), file=open(tempfile.mktemp(), 'w'))": "file ",
    # Written through a mapping: no event tells of it.
    "(lambda name: (open(name, 'wb').truncate(len(data)), kept.append(mmap.mmap(os.open(name, os.O_RDWR), len(data))), "
    "kept[-1].write(data)))(tempfile.mktemp())": "memory of",
    "os.fork() or (time.sleep(0.1), kept.append(bytes(data)), time.sleep(600))": "memory of",
}


@pytest.fixture
def secret() -> np.ndarray:
    return np.frombuffer(os.urandom(50_000), np.uint8)


@pytest.fixture(autouse=True)
def _no_leak_is_left() -> Iterator[None]:
    yield
    Path("/dev/shm/nanoswap-leak").unlink(missing_ok=True)


class Leaker:
    """One leak, in a process of its own."""

    def __init__(self, code: str, data: bytes) -> None:
        environment = os.environ | {
            "GLIBC_TUNABLES": "glibc.malloc.perturb=165:glibc.malloc.tcache_count=0",
            "PYTHONMALLOC": "malloc",
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", LEAKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        )
        assert self.process.stdin is not None
        self.process.stdin.write(code.encode() + b"\n" + data)

    def leak(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        assert self.process.stdout.readline() == b"leaked\n"

    def __enter__(self) -> "Leaker":
        return self

    def __exit__(self, *_: object) -> None:
        for pid in reversed(tree(self.process.pid)):
            os.kill(pid, 9)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


def look(
    code: str, secret: np.ndarray, redis_url: str | None = None, forms: dict[str, np.ndarray] | None = None
) -> Seen:
    with Leaker(code, secret.tobytes()) as leaker:
        search = Search(leaker.process.pid, redis_url)
        try:
            with FileTrace(search.mine) as trace:
                leaker.leak()
                return search.look(Needles(forms or {"secret": secret}), trace)
        except NoTrace:
            pytest.skip("the kernel gives no trace of files")


@pytest.mark.parametrize("code", list(LEAKS))
def test_leak_of_each_kind_is_found(code: str, secret: np.ndarray) -> None:
    forms = {"secret": secret, "hex": np.frombuffer(secret.tobytes().hex().encode(), np.uint8)}
    seen = look(code, secret, forms=forms)
    places = [remnant.place for remnant in seen.remnants if remnant.count > 49_000]
    assert any(place.startswith(LEAKS[code]) for place in places), seen.remnants


def test_nothing_is_found_where_nothing_leaks(secret: np.ndarray) -> None:
    seen = look("None", secret)
    assert seen.remnants == []
    assert seen.on_disk == []
    assert seen.processes == 1
    assert seen.scanned > 5_000_000
    assert seen.unread.mappings == {}


def test_write_to_a_disk_is_told_even_without_a_remnant(secret: np.ndarray, tmp_path: Path) -> None:
    seen = look(f"open({str(tmp_path / 'log')!r}, 'w').write('nothing')", secret)
    assert seen.on_disk == [str(tmp_path / "log")]
    assert seen.remnants == []


def test_other_processes_may_write(secret: np.ndarray, tmp_path: Path) -> None:
    with Leaker("None", secret.tobytes()) as leaker:
        search = Search(leaker.process.pid, None)
        with FileTrace(search.mine) as trace:
            leaker.leak()
            (tmp_path / "mine").write_text("not the service's")
            assert search.look(Needles({"secret": secret}), trace).on_disk == []


@pytest.mark.parametrize("where", ["key", "value", "slow log"])
def test_leak_in_redis_is_found(where: str, secret: np.ndarray) -> None:
    data = secret[:5000].tobytes()
    with RedisServer() as server, redis.Redis.from_url(server.url) as client:
        if where == "slow log":
            client.config_set("slowlog-max-len", 10)
            client.config_set("slowlog-log-slower-than", 0)
            # The slow log keeps the beginning of a word.
            client.get(data[:120])
            client.config_set("slowlog-log-slower-than", -1)
        else:
            client.set(*((data, "1") if where == "key" else ("1", data)))
        seen = look("None", secret, server.url)
        places = {remnant.place for remnant in seen.remnants}
        assert ("redis slow log" if where == "slow log" else "redis key") in places
        # The server is another process of this machine, and belongs to the service.
        assert any(place.startswith(f"memory of {server.pid}") for place in places)


def test_trace_that_ran_out_of_descriptors_says_so(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    code = "import sys; input(); [open(f'{sys.argv[1]}/{number}', 'w').write('x') for number in range(60)]"
    with (
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE) as writer,
        FileTrace(lambda pid: pid == writer.pid) as trace,
    ):
        assert writer.stdin is not None
        try:
            here = len(list(Path("/proc/self/fd").iterdir()))
            resource.setrlimit(resource.RLIMIT_NOFILE, (here + 20, limits[1]))
            writer.stdin.write(b"\n")
            writer.stdin.close()
            wait_until(lambda: trace.lost)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        with pytest.raises(NoTrace, match="lost"):
            list(trace.take())


def test_own_tree_is_never_stopped() -> None:
    with pytest.raises(OwnTree), stopped(os.getppid()):
        pass


def test_stopped_tree_goes_on_afterwards(secret: np.ndarray) -> None:
    with Leaker("os.fork() or time.sleep(600)", secret.tobytes()) as leaker:
        leaker.leak()
        with stopped(leaker.process.pid) as processes:
            assert len(processes) == 2
            assert [state(pid) for pid in processes] == ["T", "T"]
            assert sum(len(piece) for piece in chunks(processes[0], Unread())) > 5_000_000
        assert "T" not in [state(pid) for pid in processes]


def test_tree_goes_on_when_whoever_stopped_it_is_killed(secret: np.ndarray) -> None:
    stopper = (
        "import sys, time; from nanoswap.serve.process_memory import stopped\n"
        "with stopped(int(sys.argv[1])): print('stopped', flush=True); time.sleep(600)"
    )
    with Leaker("None", secret.tobytes()) as leaker:
        leaker.leak()
        pid = leaker.process.pid
        with subprocess.Popen([sys.executable, "-c", stopper, str(pid)], stdout=subprocess.PIPE) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == b"stopped\n"
            assert state(pid) == "T"
            other.kill()
        wait_until(lambda: state(pid) != "T")


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
