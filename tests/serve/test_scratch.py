"""Where the folder of a run lies, and what is said when that is a disk."""

import os
import random
import socket
import sys
import tempfile
from pathlib import Path

import pytest

import nanoswap.serve.scratch as scratch_module
from nanoswap.queue.redis_server import RedisServer
from nanoswap.serve.local import child_environment, ray_environment, service_ports
from nanoswap.serve.scratch import in_memory, scratch

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's statfs")


@linux
def test_the_kernel_says_what_is_in_memory() -> None:
    kinds = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        place, kind = line.split()[1:3]
        kinds[place] = kind  # of mounts over each other the last one counts
    tried = {place: kind for place, kind in kinds.items() if os.path.isdir(place) and os.access(place, os.R_OK)}
    assert "proc" in tried.values()
    for place, kind in tried.items():
        assert in_memory(Path(place)) == (kind in ("tmpfs", "ramfs", "devtmpfs")), (place, kind)
    assert not in_memory(Path("/nowhere"))


def test_it_is_private_and_goes_with_the_run() -> None:
    with scratch(lambda _: None) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "a").mkdir()
    assert not folder.exists()


@linux
def test_a_place_that_is_not_in_memory_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch_module, "in_memory", lambda folder: False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    said: list[str] = []
    disk = tmp_path / "shm"
    disk.mkdir()
    with scratch(said.append, shared_memory=disk) as folder:
        assert folder.parent == tmp_path
    assert len(said) == 1
    assert "on a disk" in said[0]
    assert str(tmp_path) in said[0]


@linux
def test_in_memory_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch_module, "in_memory", lambda folder: True)
    said: list[str] = []
    with scratch(said.append, shared_memory=tmp_path) as folder:
        assert folder.parent == tmp_path
    assert said == []


def test_everything_of_a_run_lies_below_it(tmp_path: Path) -> None:
    children = child_environment(tmp_path)
    assert Path(children["TMPDIR"]).is_dir()
    assert Path(children["TMPDIR"]).is_relative_to(tmp_path)
    assert children["PYTHONDONTWRITEBYTECODE"] == "1"
    with RedisServer(parent=tmp_path) as server:
        assert server.socket.is_relative_to(tmp_path)


def test_rays_logs_have_an_end(tmp_path: Path) -> None:
    told = ray_environment(tmp_path, 1000.0, 22_000)
    kept = int(told["RAY_ROTATION_MAX_BYTES"]) * (1 + int(told["RAY_ROTATION_BACKUP_COUNT"]))
    assert 0 < kept <= 4 * 2**20


def test_services_of_one_machine_have_ports_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    really = random.randrange

    def draw_first(port: int) -> None:
        # What is drawn after it is really drawn: other services may run beside this test.
        firsts = iter([port])
        monkeypatch.setattr(random, "randrange", lambda *words: next(firsts, None) or really(*words))

    with service_ports() as first:
        # No replica is there yet.
        draw_first(first)
        with service_ports() as second:
            assert second != first
    with socket.socket() as other:
        other.bind(("127.0.0.1", first + 3))
        draw_first(first)
        with service_ports() as third:
            assert third != first
    draw_first(first)
    with service_ports() as again:
        assert again == first
