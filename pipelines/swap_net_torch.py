"""The inswapper network as a GPU likes to run it: the same weights as in the ONNX file, many faces at once.

ONNX Runtime runs the file as it was published: channels first, and on a GPU one small kernel after another. Here the
network is stated anew in torch (`inswapper_net`), and on CUDA a batch is one launch of a recorded graph.
`load_torch_net` hands a network out only after it gave what the file itself gives: a wrong re-statement never serves.
Needs torch and numpy, and onnx only to read a file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from nanoswap.pipelines.gpu_memory import gpu_memory, wipe_pool
from nanoswap.pipelines.inswapper_net import InswapperNet
from nanoswap.pipelines.model_store import ModelError
from nanoswap.pipelines.runtime import DeviceMissing
from nanoswap.pipelines.swap_net import Crops, Latents, Painted

Reference = Callable[[npt.NDArray[np.float32], npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""float32 (N, 3, S, S) RGB 0..1 and float32 (N, 512) to float32 (N, 3, S, S): the file, run by somebody else."""

ROWS: Final = (1, 2, 4, 8, 16, 32, 64)
"""Batches that a CUDA graph is recorded for. Others are filled up to the next, or split at the largest."""
DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# The re-statement in float32 on the processor against the reference: largest difference, of the range 0..1. A reference
# that has 10 bits of mantissa (a file that computes in float16, or TF32, which ONNX Runtime's convolutions on CUDA are
# unless told otherwise) is allowed more: 0.003 was measured for a narrow float16 file on the processor.
_SAME: Final = 1e-3
_SAME_COARSE: Final = 1e-2
# What is served against the reference: mean difference, of the range. 0.001 of it is the cut to bytes; on a network of
# random weights of the full size, bfloat16 adds 0.0045 and float16 0.0006.
_NEAR: Final = {"float32": 0.003, "float16": 0.006, "bfloat16": 0.02}


class GraphMismatch(ModelError):
    """The network in torch doesn't give what the file gives."""


class TorchSwapNet:
    """Implements `SwapNet`. Takes `net` over: it is moved to `device` and into `dtype`, and belongs to this now.

    graphs    record one CUDA graph for each of `ROWS` now, so that no request pays for it. Raises `ValueError` on a
              device that has none.
    On CUDA calls queue for the one set of buffers, and what these held of faces and identities is overwritten with
    zeros after each call; the network's own working memory when a job is over, by `rinse`.
    """

    def __init__(self, net: InswapperNet, *, device: str, dtype: torch.dtype, graphs: bool) -> None:
        if graphs and not device.startswith("cuda"):
            raise ValueError(f"there are no graphs on '{device}'")
        self.size: int = net.plan.size
        self._latent = net.plan.latent
        self._net = net.placed(device, dtype)
        self._cuda = _Cuda(self._net, device, graphs) if device.startswith("cuda") else None

    def __call__(self, crops: Crops, latents: Latents) -> Painted:
        """As `SwapNet`. A value is cut off and not rounded to its byte, as insightface does
        (`np.clip(255 * y, 0, 255).astype(np.uint8)`), so that both give the same picture. Raises `ValueError` for
        arrays of other shapes, or of unequal length."""
        side = (self.size, self.size, 3)
        if crops.shape[1:] != side or latents.shape != (len(crops), self._latent):
            raise ValueError(f"crops are (N, {side}) and identities (N, {self._latent})")
        if not len(crops):
            return Painted(crops.copy(), None)
        most = ROWS[-1]
        parts = [self._run(crops[at : at + most], latents[at : at + most]) for at in range(0, len(crops), most)]
        return Painted(parts[0] if len(parts) == 1 else np.concatenate(parts), None)

    def rinse(self) -> None:
        """Overwrite the working memory of the recorded graphs, cuBLAS' too, and torch's cache. Waits for a call that is
        being made."""
        if self._cuda is not None:
            self._cuda.rinse()

    def _run(self, crops: Crops, latents: Latents) -> Crops:
        if self._cuda is not None:
            return self._cuda(crops, latents)
        with torch.inference_mode():
            mine = torch.from_numpy(crops.copy()), torch.from_numpy(np.array(latents, np.float32))
            painted = _paint(self._net, *mine)
            for each in mine:
                each.zero_()
            return np.asarray(painted.numpy())


class _Cuda:
    """Fixed buffers on the device and pinned ones beside it, a stream of their own, and a graph for each of `ROWS`."""

    def __init__(self, net: InswapperNet, device: str, graphs: bool) -> None:
        self._net, self._lock = net, threading.Lock()
        side, most = net.plan.size, ROWS[-1]
        shapes = ((most, side, side, 3), torch.uint8), ((most, net.plan.latent), torch.float32)
        self._crops, self._latents = (torch.zeros(shape, dtype=dtype, device=device) for shape, dtype in shapes)
        self._painted = torch.zeros_like(self._crops)
        self._host_crops, self._host_latents = (torch.zeros(s, dtype=d, pin_memory=True) for s, d in shapes)
        self._host_painted = torch.zeros_like(self._host_crops, pin_memory=True)
        self._memory = gpu_memory(device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        self._pool: Any = torch.cuda.graph_pool_handle()
        torch.cuda.synchronize(device)
        self._workspace: Tensor | None = None
        if graphs:
            # That of this thread: every replay works in it, whoever calls. Taken before the first product is made.
            with torch.cuda.stream(self._stream):
                self._workspace = self._memory.workspace()
            # The largest first: the smaller ones then fit into the memory that it left to the pool.
            for rows in reversed(ROWS):
                self._graphs[rows] = self._record(rows, self._pool)

    def __call__(self, crops: Crops, latents: Latents) -> Crops:
        count = len(crops)
        rows = next(rows for rows in ROWS if rows >= count) if self._graphs else count
        with self._lock, torch.inference_mode(), torch.cuda.stream(self._stream):
            try:
                self._host_crops.numpy()[:count] = crops
                self._host_latents.numpy()[:count] = latents
                self._crops[:count].copy_(self._host_crops[:count], non_blocking=True)
                self._latents[:count].copy_(self._host_latents[:count], non_blocking=True)
                if self._graphs:
                    self._graphs[rows].replay()
                else:
                    self._memory.enter()
                    self._step(count)
                self._host_painted[:count].copy_(self._painted[:count], non_blocking=True)
                self._stream.synchronize()
                return self._host_painted.numpy()[:count].copy()
            finally:
                # Also rows that only fill the batch up: they were painted from zeros and hold no one, but then all is
                # zero, which is more easily seen to be so.
                for each in (self._crops, self._latents, self._painted):
                    each[:rows].zero_()
                # When this returns it has happened; and after an error nothing copies into the pinned buffers any more.
                self._stream.synchronize()
                for each in (self._host_crops, self._host_latents, self._host_painted):
                    each[:count].zero_()

    def rinse(self) -> None:
        if self._graphs:
            with self._lock, torch.cuda.stream(self._stream):
                wipe_pool(self._crops.device, self._pool)
                if self._workspace is not None:
                    self._workspace.zero_()
                self._stream.synchronize()
        self._memory.rinse()

    def _step(self, rows: int) -> None:
        self._painted[:rows].copy_(_paint(self._net, self._crops[:rows], self._latents[:rows]))

    def _record(self, rows: int, pool: Any) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode():
            with torch.cuda.stream(self._stream):
                for _ in range(3):  # libraries choose their kernels and take their workspace before the recording
                    self._step(rows)
            self._stream.synchronize()
            # Other threads (ONNX Runtime's among them) may allocate meanwhile.
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                self._step(rows)
        return graph


def check_torch_device(device: str) -> None:
    """Raises `DeviceMissing`."""
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceMissing(f"this build of torch can't use '{device}'")


def load_torch_net(onnx_bytes: bytes, *, device: str, dtype: str, reference: Reference | None) -> TorchSwapNet:
    """The network of a file. device: cpu or cuda; dtype: one of `DTYPES`.

    `reference` runs the same file; two random rows must come out the same, first of the re-statement in float32 and
    then of what would be served. None trusts the reading of the graph alone. Raises `UnknownGraph` for a graph of
    another kind, `GraphMismatch`, `DeviceMissing`, and `KeyError` for another dtype.
    """
    from nanoswap.pipelines.inswapper_graph import read_weights

    check_torch_device(device)
    kind = DTYPES[dtype]
    weights = read_weights(onnx_bytes)
    net, plan = InswapperNet.of(weights), weights.plan
    rng = np.random.default_rng(0)
    crops = rng.integers(0, 256, (2, plan.size, plan.size, 3), dtype=np.uint8)
    latents = rng.standard_normal((2, plan.latent)).astype(np.float32)
    latents /= np.linalg.norm(latents, axis=1, keepdims=True)
    expected = None
    if reference is not None:
        target = np.ascontiguousarray(crops.transpose(0, 3, 1, 2)) * np.float32(1 / 255)
        expected = reference(target, latents)
        with torch.inference_mode():
            stated = net(torch.from_numpy(target), torch.from_numpy(latents)).numpy()
        coarse = weights.half or device == "cuda"
        _agree("re-stated in float32", float(np.abs(stated - expected).max()), _SAME_COARSE if coarse else _SAME)
    served = TorchSwapNet(net, device=device, dtype=kind, graphs=device == "cuda")
    if expected is not None:
        # The middle of what a byte may stand for.
        given = (served(crops, latents).crops.transpose(0, 3, 1, 2) + np.float32(0.5)) / 255
        _agree(f"served in {dtype}", float(np.abs(given - np.clip(expected, 0, 1)).mean()), _NEAR[dtype])
    return served


def _agree(what: str, difference: float, allowed: float) -> None:
    if not difference <= allowed:  # also when it is no number
        raise GraphMismatch(f"the network {what} differs from its file by {difference:.2g}, allowed is {allowed:g}")


def _paint(net: InswapperNet, crops: Tensor, latents: Tensor) -> Tensor:
    """uint8 (N, S, S, 3) to the same."""
    target = crops.permute(0, 3, 1, 2).float().mul_(1 / 255)
    answer: Tensor = net(target, latents).mul_(255).clamp_(0, 255)
    painted = answer.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    for each in (target, answer):
        each.zero_()
    return painted
