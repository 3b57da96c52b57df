"""Which of cuBLAS' memory a thread overwrites: code of a GPU on the processor, with nothing in the place of streams."""

import os
import threading
from types import SimpleNamespace

import pytest

if os.environ.get("NANOSWAP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="torch isn't installed, and the torch runtime is optional")

import torch

from nanoswap.pipelines import gpu_memory as module
from nanoswap.pipelines.gpu_memory import GpuMemory, Wiped


def test_a_thread_overwrites_its_own_of_every_stream_and_nobody_elses(monkeypatch: pytest.MonkeyPatch) -> None:
    memory, stream = GpuMemory("cpu"), [1]
    taken: list[torch.Tensor] = []

    def workspace() -> torch.Tensor:
        taken.append(torch.ones(4))
        return taken[-1]

    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: SimpleNamespace(cuda_stream=stream[0]))
    monkeypatch.setattr(memory, "workspace", workspace)
    monkeypatch.setattr(module, "wipe_cache", lambda _: Wiped(0, 0))
    memory.enter()
    memory.enter()
    stream[0] = 2
    memory.enter()
    other = threading.Thread(target=memory.enter)
    other.start()
    other.join()
    assert len(taken) == 3
    memory.rinse()
    assert [bool(each.any()) for each in taken] == [False, False, True]
