"""Clips let pictures by, and nobody waits for somebody who has died."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from nanoswap.serve import shared_gpu
from nanoswap.serve.shared_gpu import SharedGpu


def test_clip_waits_for_a_picture_and_no_longer(tmp_path: Path) -> None:
    gpu, working, done = SharedGpu(str(tmp_path / "gpu")), threading.Event(), []

    def picture() -> None:
        with gpu.picture():
            working.set()
            time.sleep(0.2)
            done.append(time.monotonic())

    thread = threading.Thread(target=picture)
    thread.start()
    working.wait()
    assert gpu.let_pictures_by() > 0.1
    assert done
    thread.join()
    assert gpu.let_pictures_by() < 0.1
    assert (tmp_path / "gpu").stat().st_size == 0


def test_pictures_do_not_wait_for_each_other(tmp_path: Path) -> None:
    gpu = SharedGpu(str(tmp_path / "gpu"))
    with gpu.picture(), gpu.picture():
        pass


def test_clip_is_slowed_and_not_stopped_by_pictures_without_end(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(shared_gpu, "PATIENCE_SECONDS", 0.1)
    gpu = SharedGpu(str(tmp_path / "gpu"))
    with gpu.picture():
        assert 0.1 <= gpu.let_pictures_by() < 1.0


def test_a_dead_process_holds_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "gpu")
    code = (
        "import sys, time; from nanoswap.serve.shared_gpu import SharedGpu\n"
        "with SharedGpu(sys.argv[1]).picture():\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        holder.wait()
        assert SharedGpu(path).let_pictures_by() < 0.5


def test_where_nothing_is_shared_nothing_is_opened() -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    gpu = SharedGpu(None)
    with gpu.picture():
        assert gpu.let_pictures_by() == 0.0
        if before:
            assert len(os.listdir("/proc/self/fd")) == len(before)
