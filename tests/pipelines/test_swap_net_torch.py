"""The inswapper network in torch: what the file gives, for every way of writing such a file, or a clear refusal."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tests.inswapper_onnx import FULL, NARROW, Variation, build

if os.environ.get("NANOSWAP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="torch isn't installed, and the torch runtime is optional")

import torch
from torch.utils.flop_counter import FlopCounterMode

from nanoswap.pipelines import inswapper_graph, inswapper_net, swap_net_torch
from nanoswap.pipelines.inswapper_graph import SwapWeights, read_weights
from nanoswap.pipelines.inswapper_net import InswapperNet, published
from nanoswap.pipelines.onnx_graph import UnknownGraph
from nanoswap.pipelines.runtime import DeviceMissing
from nanoswap.pipelines.swap_net_torch import GraphMismatch, TorchSwapNet, load_torch_net

ROOT = Path(__file__).parents[2]
SMALL = 32
FILE = build()


def runtime(data: bytes) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """ONNX Runtime on the file as it is: one row at a time."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])

    def call(target: np.ndarray, source: np.ndarray) -> np.ndarray:
        rows = range(len(target))
        return np.concatenate(
            [session.run(None, {"target": target[i : i + 1], "source": source[i : i + 1]})[0] for i in rows]
        )

    return call


def inputs(rows: int, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    latents = rng.standard_normal((rows, 512)).astype(np.float32)
    latents /= np.linalg.norm(latents, axis=1, keepdims=True)
    return rng.integers(0, 256, (rows, size, size, 3), dtype=np.uint8), latents


def floats(crops: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(crops.transpose(0, 3, 1, 2)) * np.float32(1 / 255)


def stated(weights: SwapWeights, target: np.ndarray, source: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return InswapperNet.of(weights)(torch.from_numpy(target), torch.from_numpy(source)).numpy()


@pytest.fixture(scope="module")
def small() -> TorchSwapNet:
    return load_torch_net(build(size=SMALL), device="cpu", dtype="float32", reference=None)


def test_full_size_has_the_published_counts() -> None:
    with torch.device("meta"):
        net = InswapperNet(published(FULL))
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, 128, 128), torch.empty(1, 512))
    assert sum(one.numel() for one in net.parameters()) == 138_292_739
    assert counter.get_total_flops() / 2 == pytest.approx(174.575e9, rel=1e-4)


@pytest.mark.parametrize(
    "how",
    [
        Variation(),
        Variation(alpha=0.1),
        Variation(epsilon=1e-5),
        Variation(doubling="align_corners"),
        Variation(doubling="asymmetric"),
        Variation(half="stored"),
        Variation(product="matmul"),
        Variation(norm="reciprocal"),
        Variation(norm="pow", product="matmul", halves="gather"),
        Variation(norm="instance"),
        Variation(halves="split", scale_first=False),
        Variation(halves="gather", scale_from_one=True),
        Variation(relu=False),
    ],
    ids=repr,
)
def test_gives_what_the_file_gives(how: Variation) -> None:
    data = build(how=how)
    crops, latents = inputs(2)
    expected = runtime(data)(floats(crops), latents)
    assert expected.std() > 0.2, "too flat a picture would hide a difference"
    weights = read_weights(data)
    assert np.abs(stated(weights, floats(crops), latents) - expected).max() <= 1e-4
    assert weights.plan.epsilon == pytest.approx(how.epsilon, rel=1e-3)


def test_file_that_computes_in_float16() -> None:
    data = build(how=Variation(half="computed", epsilon=1.2e-7))
    crops, latents = inputs(2)
    assert (
        np.abs(stated(read_weights(data), floats(crops), latents) - runtime(data)(floats(crops), latents)).max() < 5e-3
    )
    load_torch_net(data, device="cpu", dtype="float32", reference=runtime(data))


def test_epsilon_matters_where_a_channel_is_flat() -> None:
    """On noise no epsilon shows; on one colour the features' variance is nothing but rounding and borders."""
    data = build(how=Variation(epsilon=1e-2))
    crops, latents = inputs(1)
    crops[:] = 128
    weights = read_weights(data)
    expected = runtime(data)(floats(crops), latents)
    assert np.abs(stated(weights, floats(crops), latents) - expected).max() <= 1e-4
    other = replace(weights, plan=replace(weights.plan, epsilon=1e-5))
    assert np.abs(stated(other, floats(crops), latents) - expected).max() > 1e-2


@pytest.mark.parametrize(
    ("how", "what"),
    [
        (Variation(norm="outside"), r"expected \(x - mean\) / sqrt\(variance \+ epsilon\)"),
        (Variation(residual=False), "added to what its block makes"),
        (Variation(pad_mode="edge"), "padded by its mirror or by zeros"),
        (Variation(doubling="tf_crop_and_resize"), "linear doubling"),
    ],
)
def test_another_graph_is_refused(how: Variation, what: str) -> None:
    with pytest.raises(UnknownGraph, match=what):
        read_weights(build(how=how))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"doubling": "align_corners"},
        {"epsilon": 10.0},
        {"gain": 0.45},
        {"slope": 0.1},
        {"mirrored": False},
        {"styles": 0},
    ],
    ids=repr,
)
def test_wrong_statement_never_serves(dtype: str, wrong: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_weights

    def misread(data: bytes) -> SwapWeights:
        weights = read(data)
        if "styles" in wrong:
            return replace(weights, styles=tuple(np.roll(one, 1, 0) for one in weights.styles))
        if "slope" in wrong or "mirrored" in wrong:
            stem = tuple(replace(one, **wrong) for one in weights.plan.stem)
            return replace(weights, plan=replace(weights.plan, stem=stem))
        return replace(weights, plan=replace(weights.plan, **wrong))

    monkeypatch.setattr(inswapper_graph, "read_weights", misread)
    with pytest.raises(GraphMismatch, match="re-stated in float32"):
        load_torch_net(FILE, device="cpu", dtype=dtype, reference=runtime(FILE))


def test_what_is_served_is_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap_net_torch.TorchSwapNet, "__call__", lambda *_: swap_net_torch.Painted(inputs(2)[0], None))
    with pytest.raises(GraphMismatch, match="served in float32"):
        load_torch_net(FILE, device="cpu", dtype="float32", reference=runtime(FILE))


def test_reference_without_numbers_is_a_mismatch() -> None:
    with pytest.raises(GraphMismatch):
        load_torch_net(FILE, device="cpu", dtype="float32", reference=lambda target, _: target * np.nan)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_serves_bytes_in_every_type(dtype: str) -> None:
    net = load_torch_net(FILE, device="cpu", dtype=dtype, reference=runtime(FILE))
    crops, latents = inputs(3)
    kept = crops.copy(), latents.copy()
    crops.flags.writeable = latents.flags.writeable = False
    painted = net(crops, latents)
    assert painted.masks is None
    assert (painted.crops.dtype, painted.crops.shape, net.size) == (np.uint8, (3, 128, 128, 3), 128)
    assert np.array_equal(crops, kept[0])
    assert np.array_equal(latents, kept[1])
    exact = 255 * runtime(FILE)(floats(crops), latents).transpose(0, 2, 3, 1)
    below = exact - painted.crops
    if dtype == "float32":  # cut off, not rounded, as insightface does
        assert below.min() > -0.01
        assert below.max() < 1.01
    else:
        assert np.abs(below - 0.5).mean() < 3


def test_batch_equals_singles(small: TorchSwapNet) -> None:
    crops, latents = inputs(5, SMALL)
    net = InswapperNet.of(read_weights(build(size=SMALL)))
    with torch.inference_mode():
        target, source = torch.from_numpy(floats(crops)), torch.from_numpy(latents)
        together = net(target, source)
        alone = torch.cat([net(target[i : i + 1], source[i : i + 1]) for i in range(5)])
    assert float((together - alone).abs().max()) <= 1e-3
    singles = np.concatenate([small(crops[i : i + 1], latents[i : i + 1]).crops for i in range(5)])
    assert np.abs(small(crops, latents).crops.astype(int) - singles).max() <= 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_nobody_sees_their_neighbour(dtype: str) -> None:
    net = load_torch_net(build(size=SMALL), device="cpu", dtype=dtype, reference=None)
    crops, latents = inputs(3, SMALL)
    before = net(crops, latents).crops
    crops[1], latents[1] = 255 - crops[1], -latents[1]
    after = net(crops, latents).crops
    assert np.array_equal(before[[0, 2]], after[[0, 2]])
    assert np.abs(before[1].astype(int) - after[1]).max() > 50


def test_any_number_of_rows(small: TorchSwapNet) -> None:
    crops, latents = inputs(70, SMALL)
    assert small(crops[:0], latents[:0]).crops.shape == (0, SMALL, SMALL, 3)
    painted = small(crops, latents).crops
    assert painted.shape == crops.shape
    last = small(crops[64:], latents[64:]).crops
    assert np.array_equal(painted[64:], last)


def test_rows_must_belong_together(small: TorchSwapNet) -> None:
    crops, latents = inputs(2, SMALL)
    for bad in ((crops, latents[:1]), (crops[:, :16], latents), (crops, latents[:, :256])):
        with pytest.raises(ValueError, match="crops are"):
            small(*bad)


def test_statistics_are_float32_whatever_the_type() -> None:
    """A mean far from zero, as bfloat16 can barely hold it: rounded to that type they would be off by percents."""
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(100.0, 3.0, (2, 8, 16, 16)).astype(np.float32)).bfloat16()
    style = torch.stack([torch.ones(2, 8, 1, 1), torch.zeros(2, 8, 1, 1)], 1)
    out = inswapper_net._restyle(x, style, 1e-8, torch.empty(2, 8, 16, 16))
    assert float(out.mean((2, 3)).abs().max()) < 1e-4
    assert float((out.var((2, 3), correction=0) - 1).abs().max()) < 1e-4


def test_device_and_graphs_that_are_not_there() -> None:
    with pytest.raises(ValueError, match="no graphs on 'cpu'"):
        TorchSwapNet(InswapperNet(published(NARROW, 1)), device="cpu", dtype=torch.float32, graphs=True)
    if not torch.cuda.is_available():
        with pytest.raises(DeviceMissing, match="'cuda'"):
            load_torch_net(FILE, device="cuda", dtype="float32", reference=None)


def test_gpu_bench_runs_here_on_a_narrow_network() -> None:
    """The same code as on a GPU, but for the recording of graphs."""
    command = [sys.executable, "-m", "tests.bench.gpu_swap", "--smoke"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert "faces/s" in done.stdout
    assert "smoke" in done.stdout


class Memory:
    """In the place of a GPU's: what it was asked, and what cuBLAS works in."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.mine = torch.ones(8)

    def workspace(self) -> torch.Tensor:
        self.asked.append("workspace")
        return self.mine

    def enter(self) -> None:
        self.asked.append("enter")

    def rinse(self) -> None:
        self.asked.append("rinse")


def on_processor(monkeypatch: pytest.MonkeyPatch, memory: Memory, *, graphs: bool = True) -> swap_net_torch._Cuda:
    """The code of a GPU on the processor, with nothing in the place of streams."""

    class Stream:
        def synchronize(self) -> None: ...

    class Replayed:
        def __init__(self, step: Callable[[], None]) -> None:
            self.replay = step

    def record(self: swap_net_torch._Cuda, rows: int, _: object) -> Replayed:
        memory.asked.append("record")
        return Replayed(lambda: self._step(rows))

    plain, like = torch.zeros, torch.zeros_like
    monkeypatch.setattr(torch, "zeros", lambda *shape, pin_memory=False, **kind: plain(*shape, **kind))
    monkeypatch.setattr(torch, "zeros_like", lambda other, pin_memory=False, **kind: like(other, **kind))
    for name in ("synchronize", "graph_pool_handle"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda *_: Stream())
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(swap_net_torch, "gpu_memory", lambda _: memory)
    monkeypatch.setattr(swap_net_torch._Cuda, "_record", record)
    net = InswapperNet.of(read_weights(build(size=SMALL)))
    return swap_net_torch._Cuda(net.placed("cpu", torch.float32), "cpu", graphs=graphs)


def test_buffers_of_a_batch_that_was_filled_up_are_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is painted of the rows that fill a batch up (three to four) isn't zero, and was left."""
    on_gpu = on_processor(monkeypatch, Memory())
    crops, latents = inputs(3, SMALL)
    assert on_gpu(crops, latents).any()
    for name, each in vars(on_gpu).items():
        assert name == "_workspace" or not isinstance(each, torch.Tensor) or not each.any(), name


def test_working_memory_of_the_graphs_is_taken_first_and_overwritten_while_none_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    memory, locked = Memory(), []
    on_gpu = on_processor(monkeypatch, memory)
    assert memory.asked[:2] == ["workspace", "record"]
    monkeypatch.setattr(swap_net_torch, "wipe_pool", lambda *_: 0)
    zero = torch.Tensor.zero_

    def zeroed(tensor: torch.Tensor) -> torch.Tensor:
        locked.append(on_gpu._lock.locked())
        return zero(tensor)

    monkeypatch.setattr(torch.Tensor, "zero_", zeroed)
    on_gpu.rinse()
    assert not memory.mine.any()
    assert locked == [True]
    assert memory.asked[-1] == "rinse"


def test_without_graphs_each_calling_thread_takes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = Memory()
    on_gpu = on_processor(monkeypatch, memory, graphs=False)
    assert memory.asked == []
    monkeypatch.setattr(on_gpu, "_step", lambda _: memory.asked.append("step"))
    on_gpu(*inputs(2, SMALL))
    assert memory.asked == ["enter", "step"]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_graphs_on_cuda(dtype: str) -> None:
    net = load_torch_net(FILE, device="cuda", dtype=dtype, reference=runtime(FILE))
    crops, latents = inputs(67)
    painted = net(crops, latents).crops
    for count in (1, 3, 64):
        again = net(crops[:count], latents[:count]).crops
        assert np.abs(again.astype(int) - painted[:count]).mean() < 1
    crops[1], latents[1] = 255 - crops[1], -latents[1]
    assert np.array_equal(net(crops, latents).crops[0], painted[0])
    assert net._cuda is not None
    for each in (net._cuda._crops, net._cuda._painted, net._cuda._host_crops, net._cuda._host_painted):
        assert not each.any()
    assert not net._cuda._latents.any()
    assert not net._cuda._host_latents.any()


def test_torch_alone_is_enough_to_look_for_a_device() -> None:
    """An engine that runs in torch only is not refused for want of ONNX Runtime."""
    code = (
        "import sys; sys.modules['onnxruntime'] = None; sys.modules['onnx'] = None\n"
        "from nanoswap.pipelines.swap_net_torch import check_torch_device\n"
        "check_torch_device('cpu')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
