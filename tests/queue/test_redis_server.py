"""The private Redis: no file, no persistence, and no life after its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import redis

from nanoswap.queue.redis_room import RedisRoom
from nanoswap.queue.redis_server import NoRedisServer, RedisServer, find_server
from nanoswap.queue.room import Policy, RoomUnavailable
from nanoswap.queue.ticket import Kind


def test_leaves_neither_process_nor_file() -> None:
    with RedisServer() as server:
        folder, pid = server.socket.parent, server.pid
        assert folder.stat().st_mode & 0o077 == 0
        with redis.Redis.from_url(server.url) as store:
            store.set("a", "b")
            assert store.config_get("save") == {"save": ""}
            assert store.config_get("appendonly") == {"appendonly": "no"}
            assert store.config_get("port") == {"port": "0"}
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_dies_with_a_killed_parent() -> None:
    code = (
        "import time\nfrom nanoswap.queue.redis_server import RedisServer\n"
        "with RedisServer() as server: print(server.pid, server.socket, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, socket = parent.stdout.readline().split()
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            break
        state = Path(f"/proc/{pid}/stat")
        if state.exists() and state.read_text().split()[2] == "Z":
            break
        time.sleep(0.02)
    else:
        raise AssertionError("the server outlived its parent")
    for left in Path(socket).parent.iterdir():
        left.unlink()
    Path(socket).parent.rmdir()


def test_missing_server_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(NoRedisServer, match="apt-get install redis-server"):
        find_server()


async def test_restart_in_mid_wait_is_survived_and_absence_is_said() -> None:
    with RedisServer() as server:
        room = RedisRoom(server.url, Policy())
        await room.enlist("w", Kind.IMAGE, 1, 60)
        server.stop()
        started = time.monotonic()
        with pytest.raises(RoomUnavailable):
            await room.line(Kind.IMAGE)
        assert time.monotonic() - started < 5
        server.socket.unlink(missing_ok=True)
        server.start()
        # A new server knows neither the data nor the script.
        assert (await room.line(Kind.IMAGE)).workers == 0
        assert await room.beat(["t_unknown"]) == [None]
        await room.close()
