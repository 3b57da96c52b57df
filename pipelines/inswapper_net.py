"""The inswapper network in torch: what a file of this kind may say of itself, and the layers that do it.

A stem of four convolutions, blocks that restyle their features with the identity, two doublings and a head; channels
last, any batch, bfloat16 or float16 for the convolutions and float32 for the statistics. Everything that files of this
kind may differ in is a `Plan`, read from the file by `inswapper_graph` and never assumed.

The architecture and its counts (138.29 M parameters, 174.6 GMAC a face) are public: insightface names them for
inswapper_128, and the layers below add up to them. Needs torch only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from nanoswap.pipelines.inswapper_graph import SwapWeights

Doubling = Literal["half_pixel", "align_corners", "asymmetric"]


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
