"""The inswapper network in torch: the same weights as in the ONNX file, run the way a GPU likes.

ONNX Runtime runs the file as it was published: one row at a time, channels first, and on a GPU one small kernel after
another. Here the network is stated anew (a stem of four convolutions, blocks that restyle their features with the
identity, two doublings) with channels last, any batch, bfloat16 or float16 for the convolutions and float32 for the
statistics. On CUDA a batch is one launch of a recorded graph. Everything that files of this kind may differ in is a
`Plan`, read from the file by `inswapper_graph` and never assumed, and `load_torch_net` hands a network out only after
it gave what the file itself gives: a wrong re-statement never serves.

The architecture and its counts (138.29 M parameters, 174.6 GMAC a face) are public: insightface names them for
inswapper_128, and the layers below add up to them. Needs torch and numpy, and onnx only to read a file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from nanoswap.pipelines.swap_net import Crops, Latents, Painted

if TYPE_CHECKING:
    from nanoswap.pipelines.inswapper_graph import SwapWeights

Doubling = Literal["half_pixel", "align_corners", "asymmetric"]
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


class GraphMismatch(ValueError):
    """The network in torch doesn't give what the file gives."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvPlan:
    """One square convolution with a bias and what surrounds it.

    pad       pixels on each side, mirrored (without the edge itself) or zero.
    slope     of the leaky ReLU behind it, or behind its restyling: 0 is a ReLU, 1 is none.
    """

    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1
    pad: int = 1
    mirrored: bool = False
    slope: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything of the network but its weights.

    size, latent   pixels of a crop's side; numbers of an identity.
    stem, head     the convolutions before and after the blocks; the picture is doubled before the first two of `head`.
    blocks         two convolutions each, both restyled; the block's input is added to its output.
    doubling       where the samples of a doubled picture lie, in ONNX's words.
    epsilon        added to the variance of a channel over the picture.
    gain, offset   the answer is tanh times gain plus offset.
    """

    size: int
    latent: int
    stem: tuple[ConvPlan, ...]
    blocks: tuple[tuple[ConvPlan, ConvPlan], ...]
    head: tuple[ConvPlan, ...]
    doubling: Doubling = "half_pixel"
    epsilon: float = 1e-8
    gain: float = 0.5
    offset: float = 0.5


def published(
    widths: tuple[int, int, int, int] = (128, 256, 512, 1024), blocks: int = 6, latent: int = 512, size: int = 128
) -> Plan:
    """The plan as it is publicly known, with the widths of inswapper_128 or others."""
    w0, w1, w2, w3 = widths
    inner = ConvPlan(inputs=w3, outputs=w3, mirrored=True, slope=0.0)
    outer = ConvPlan(inputs=w3, outputs=w3, mirrored=True, slope=1.0)
    return Plan(
        size=size,
        latent=latent,
        stem=(
            ConvPlan(inputs=3, outputs=w0, kernel=7, pad=3, mirrored=True),
            ConvPlan(inputs=w0, outputs=w1),
            ConvPlan(inputs=w1, outputs=w2, stride=2),
            ConvPlan(inputs=w2, outputs=w3, stride=2),
        ),
        blocks=((inner, outer),) * blocks,
        head=(
            ConvPlan(inputs=w3, outputs=w2),
            ConvPlan(inputs=w2, outputs=w1),
            ConvPlan(inputs=w1, outputs=w0),
            ConvPlan(inputs=w0, outputs=3, kernel=7, pad=3, mirrored=True, slope=1.0),
        ),
    )


class InswapperNet(nn.Module):
    """The network of a `Plan`, for inference only: no parameter wants a gradient."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan, self._dtype = plan, torch.float32
        self.stem = nn.ModuleList([_conv(one) for one in plan.stem])
        self.blocks = nn.ModuleList([_conv(one) for one in chain.from_iterable(plan.blocks)])
        self.head = nn.ModuleList([_conv(one) for one in plan.head])
        # All scales and shifts in one product: (restyling, scale or shift, channel).
        self.styles = nn.Linear(plan.latent, 2 * sum(one.outputs for one in chain.from_iterable(plan.blocks)))
        self.requires_grad_(False)

    @classmethod
    def of(cls, weights: SwapWeights) -> InswapperNet:
        """The network of a file, float32, on the processor. The arrays become the network's own memory."""
        with torch.device("meta"):
            net = cls(weights.plan)
        layers = [*net.stem, *net.blocks, *net.head, net.styles]
        for layer, (weight, bias) in zip(layers, (*weights.convs, weights.styles), strict=True):
            layer.weight = nn.Parameter(torch.from_numpy(weight), requires_grad=False)
            layer.bias = nn.Parameter(torch.from_numpy(bias), requires_grad=False)
        return net.placed("cpu", torch.float32)

    def placed(self, device: str, dtype: torch.dtype) -> InswapperNet:
        """Itself, moved: convolutions in `dtype` with channels last, the identity's part in float32."""
        self._dtype = dtype
        for layer in chain(self.stem, self.blocks, self.head):
            layer.to(dtype=dtype)
        # torch's stubs have this form of `to` for tensors only.
        self.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """target: (N, 3, S, S) RGB 0..1, any float; source: (N, latent). Gives float32 (N, 3, S, S), about 0..1."""
        plan = self.plan
        styles = self.styles(source.float()).view(len(source), 2 * len(plan.blocks), 2, -1, 1, 1).unbind(1)
        x = target.to(self._dtype, memory_format=torch.channels_last)
        for conv, one in zip(self.stem, plan.stem, strict=True):
            x = _leak(conv(_bordered(x, one)), one)
        for index, (inner, outer) in enumerate(plan.blocks):
            y = self.blocks[2 * index](_bordered(x, inner))
            # Restyled straight into the next convolution's bordered input, which saves a pass over it.
            room, inside = _room(y, outer)
            _leak(_restyle(y, styles[2 * index], plan.epsilon, inside), inner)
            y = self.blocks[2 * index + 1](_mirror(room, outer))
            x = _leak(_restyle(y, styles[2 * index + 1], plan.epsilon, y), outer).add_(x)
        for index, (conv, one) in enumerate(zip(self.head, plan.head, strict=True)):
            if index < 2:
                x = _double(x, plan.doubling)
            x = _leak(conv(_bordered(x, one)), one)
        return x.float().tanh_().mul_(plan.gain).add_(plan.offset)


class TorchSwapNet:
    """Implements `SwapNet`. Takes `net` over: it is moved to `device` and into `dtype`, and belongs to this now.

    graphs    record one CUDA graph for each of `ROWS` now, so that no request pays for it. Raises `ValueError` on a
              device that has none.
    On CUDA calls queue for the one set of buffers, and what these held of faces and identities is overwritten with
    zeros after each call. The network's own working memory isn't: the next call overwrites it.
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
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graphs: dict[int, torch.cuda.CUDAGraph] = {}
        torch.cuda.synchronize(device)
        if graphs:
            # The largest first: the smaller ones then fit into the memory that it left to the pool.
            pool = torch.cuda.graph_pool_handle()
            for rows in reversed(ROWS):
                self._graphs[rows] = self._record(rows, pool)

    def __call__(self, crops: Crops, latents: Latents) -> Crops:
        count = len(crops)
        with self._lock, torch.inference_mode(), torch.cuda.stream(self._stream):
            try:
                self._host_crops.numpy()[:count] = crops
                self._host_latents.numpy()[:count] = latents
                self._crops[:count].copy_(self._host_crops[:count], non_blocking=True)
                self._latents[:count].copy_(self._host_latents[:count], non_blocking=True)
                if self._graphs:
                    self._graphs[next(rows for rows in ROWS if rows >= count)].replay()
                else:
                    self._step(count)
                self._host_painted[:count].copy_(self._painted[:count], non_blocking=True)
                self._stream.synchronize()
                return self._host_painted.numpy()[:count].copy()
            finally:
                # Also in rows that only fill the batch up: they were painted from zeros, and hold no one.
                for each in (self._crops, self._latents, self._painted):
                    each[:count].zero_()
                for each in (self._host_crops, self._host_latents, self._host_painted):
                    each[:count].zero_()

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


def load_torch_net(onnx_bytes: bytes, *, device: str, dtype: str, reference: Reference | None) -> TorchSwapNet:
    """The network of a file. device: cpu or cuda; dtype: one of `DTYPES`.

    `reference` runs the same file; two random rows must come out the same, first of the re-statement in float32 and
    then of what would be served. None trusts the reading of the graph alone. Raises `UnknownGraph` for a graph of
    another kind, `GraphMismatch`, `DeviceMissing`, and `KeyError` for another dtype.
    """
    from nanoswap.pipelines.inswapper_graph import read_weights
    from nanoswap.pipelines.onnx_net import DeviceMissing

    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceMissing(f"this build of torch can't use '{device}'")
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


def _conv(plan: ConvPlan) -> nn.Conv2d:
    return nn.Conv2d(
        plan.inputs, plan.outputs, plan.kernel, stride=plan.stride, padding=0 if plan.mirrored else plan.pad
    )


def _leak(x: Tensor, plan: ConvPlan) -> Tensor:
    """In place."""
    if plan.slope != 1:
        functional.leaky_relu_(x, plan.slope)
    return x


def _restyle(x: Tensor, style: Tensor, epsilon: float, out: Tensor) -> Tensor:
    """Each channel to mean 0 and variance 1 over its picture, times its scale, plus its shift, into `out`.

    style: float32 (N, 2, C, 1, 1). Mean and variance are float32 and centred (torch's variance is Welford's), whatever
    x is; on CUDA both kernels read half floats as they are, so x is never copied to float32.
    """
    mean = x.mean((2, 3), keepdim=True, dtype=torch.float32)
    variance = torch.empty_like(mean)
    torch.var(x, (2, 3), correction=0, keepdim=True, out=variance)
    scale = variance.add_(epsilon).rsqrt_().mul_(style[:, 0])
    return torch.addcmul(style[:, 1] - mean * scale, x, scale, out=out)


def _room(x: Tensor, plan: ConvPlan) -> tuple[Tensor, Tensor]:
    """Memory for x with the border that `plan` mirrors, and the part of it that is x's."""
    border = plan.pad if plan.mirrored else 0
    rows, channels, height, width = x.shape
    room = torch.empty(
        (rows, channels, height + 2 * border, width + 2 * border),
        dtype=x.dtype, device=x.device, memory_format=torch.channels_last,
    )  # fmt: skip
    return room, room[:, :, border : border + height, border : border + width]


def _mirror(room: Tensor, plan: ConvPlan) -> Tensor:
    """Fill the border of a picture of at least 2 * pad + 2 pixels.

    Both edges go in one copy, as a slice of two lines: on a small batch it is the number of kernels that counts.
    (torch's own reflecting pad would turn channels-last pictures round on CUDA, and back.)
    """
    for line in range(plan.pad if plan.mirrored else 0):
        for axis in (2, 3):
            last = room.shape[axis] - 1
            edge, source = plan.pad - 1 - line, plan.pad + 1 + line
            _lines(room, axis, edge, last - edge).copy_(_lines(room, axis, source, last - source))
    return room


def _lines(room: Tensor, axis: int, first: int, second: int) -> Tensor:
    lines = slice(first, second + 1, second - first)
    return room[:, :, lines] if axis == 2 else room[:, :, :, lines]


def _bordered(x: Tensor, plan: ConvPlan) -> Tensor:
    if not plan.mirrored:
        return x
    room, inside = _room(x, plan)
    inside.copy_(x)
    return _mirror(room, plan)


def _double(x: Tensor, doubling: Doubling) -> Tensor:
    height, width = 2 * x.shape[2], 2 * x.shape[3]
    if doubling != "asymmetric":
        corners = doubling == "align_corners"
        return functional.interpolate(x, size=(height, width), mode="bilinear", align_corners=corners)
    # Samples at 0, 1/2, 1, …: those of aligned corners, with the last row and column repeated once.
    longer = functional.pad(x, (0, 1, 0, 1), mode="replicate")
    return functional.interpolate(longer, size=(height + 1, width + 1), mode="bilinear", align_corners=True)[
        :, :, :height, :width
    ]
