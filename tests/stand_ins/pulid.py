"""Stand-ins for PuLID's files: names as in the published ones, random weights, and as small as heads of 64 allow.

The names are written down here from `pulid/encoders_transformer.py` and `pulid/attention_processor.py` of
ToTheBeginning/PuLID and from timm's `models/eva.py`, and not taken from our networks: that ours load these files says
something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import torch
from safetensors.torch import save

from tests.stand_ins.graph import Graph

Shapes = dict[str, tuple[int, ...]]

SIDE = 56  # px that the small tower sees
_DIM = 64
_SAYS = 96
LAYERS = ("to_q", "to_kv", "to_out")


def pulid(cross_dim: int, widths: Sequence[int], seed: int = 0) -> bytes:
    """`pulid_v1.1.safetensors` for a UNet whose cross-attention reads `cross_dim` numbers a token and has `widths`, in
    the order of `unet.attn_processors`; of 32 tokens, and for `eva()`."""
    former = former_shapes(
        identity=512 + _SAYS, seen=_DIM, mapped=_DIM, dim=_DIM, inner=_DIM, wide=2 * _DIM, depth=5, out=cross_dim
    )
    return _filled(
        {f"id_adapter.{name}": shape for name, shape in former.items()}
        | {f"id_adapter_attn_layers.{name}": shape for name, shape in attention_shapes(cross_dim, widths).items()},
        seed,
    )


def eva(seed: int = 0) -> bytes:
    """timm's `eva02_large_patch14_clip_336` for pictures of `SIDE` px."""
    return _filled(eva_shapes(side=SIDE, dim=_DIM, inner=2 * _DIM, depth=6, out=_SAYS), seed)


def former_shapes(
    *,
    identity: int = 1280,
    seen: int = 1024,
    mapped: int = 1024,
    dim: int = 1024,
    inner: int = 1024,
    wide: int = 4096,
    depth: int = 10,
    out: int = 2048,
) -> Shapes:
    """Defaults: the published ones."""
    shapes: Shapes = {"latents": (1, 32, dim), "proj_out": (dim, out)}
    for layer in range(depth):
        attention, feed_forward = f"layers.{layer}.0", f"layers.{layer}.1"
        shapes |= _norm(f"{attention}.norm1", dim) | _norm(f"{attention}.norm2", dim) | _norm(f"{feed_forward}.0", dim)
        for name, shape in zip(LAYERS, ((inner, dim), (2 * inner, dim), (dim, inner)), strict=True):
            shapes[f"{attention}.{name}.weight"] = shape
        shapes |= {f"{feed_forward}.1.weight": (wide, dim), f"{feed_forward}.3.weight": (dim, wide)}
    mappings = {f"mapping_{depth}": (seen, dim) for depth in range(5)} | {"id_embedding_mapping": (identity, 5 * dim)}
    for name, (inputs, outputs) in mappings.items():
        shapes |= _linear(f"{name}.0", inputs, mapped) | _norm(f"{name}.1", mapped)
        shapes |= _linear(f"{name}.3", mapped, mapped) | _norm(f"{name}.4", mapped)
        shapes |= _linear(f"{name}.6", mapped, outputs)
    return shapes


def attention_shapes(cross_dim: int, widths: Sequence[int]) -> Shapes:
    """Self-attention and cross-attention take turns in `unet.attn_processors`, and only the latter has weights."""
    return {
        f"{2 * index + 1}.{name}.weight": (width, cross_dim)
        for index, width in enumerate(widths)
        for name in ("id_to_k", "id_to_v")
    }


def eva_shapes(*, side: int = 336, dim: int = 1024, inner: int = 2730, depth: int = 24, out: int = 768) -> Shapes:
    """Defaults: the published ones."""
    shapes: Shapes = {"cls_token": (1, 1, dim), "pos_embed": (1, 1 + (side // 14) ** 2, dim)}
    shapes |= {"patch_embed.proj.weight": (dim, 3, 14, 14), "patch_embed.proj.bias": (dim,)}
    for index in range(depth):
        block = f"blocks.{index}"
        shapes |= _norm(f"{block}.norm1", dim) | _norm(f"{block}.norm2", dim) | _norm(f"{block}.attn.norm", dim)
        shapes |= _linear(f"{block}.attn.q_proj", dim, dim) | {f"{block}.attn.k_proj.weight": (dim, dim)}
        shapes |= _linear(f"{block}.attn.v_proj", dim, dim) | _linear(f"{block}.attn.proj", dim, dim)
        shapes |= _linear(f"{block}.mlp.fc1_g", dim, inner) | _linear(f"{block}.mlp.fc1_x", dim, inner)
        shapes |= _norm(f"{block}.mlp.norm", inner) | _linear(f"{block}.mlp.fc2", inner, dim)
    return shapes | _norm("norm", dim) | _linear("head", dim, out)


def parser() -> onnx.ModelProto:
    """A parser of 19 labels: saturated green is background, what is almost black is hair, and the rest is skin. A
    second answer, as such networks have for their training, is coarser, and here it is wrong."""
    g = Graph()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    weights, bias = np.zeros((19, 3)), np.full(19, -9.0)
    weights[0], bias[0] = (-0.5, 1.0, -0.5), 0.0
    weights[1], bias[1] = 0.0, 0.6
    weights[17], bias[17] = -1.0, 0.75
    # The network is given (rgb - mean) / std.
    bias += weights @ mean
    labels = g.conv("input", (weights * std).reshape(19, 3, 1, 1), bias)
    g("Identity", labels, out="output")
    g("Neg", g("AveragePool", labels, kernel_shape=[8, 8], strides=[8, 8]), out="coarse")
    return g.model(
        {"input": [1, 3, 512, 512]},
        {"output": [1, 19, 512, 512], "coarse": [1, 19, 64, 64]},
    )


def _norm(name: str, size: int) -> Shapes:
    return {f"{name}.weight": (size,), f"{name}.bias": (size,)}


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _filled(shapes: Mapping[str, tuple[int, ...]], seed: int) -> bytes:
    """Random, and such that every number has a part in the answer and none drowns the others."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in shapes.items():
        value = torch.randn(shape, generator=random)
        if len(shape) == 1:
            value = value * 0.2 + (1 if name.endswith("weight") else 0)
        elif not name.endswith(("cls_token", "pos_embed", "latents")):
            value = value * np.prod(shape[1:]) ** -0.5
        tensors[name] = value
    return save(tensors)
