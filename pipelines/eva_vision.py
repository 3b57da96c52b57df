"""What PuLID sees a face with: the vision half of EVA02-CLIP-L-14-336 (arXiv 2303.15389).

A transformer over patches that is told places twice: learned vectors are added once, and every attention turns its
queries and keys by where they are. Names of weights are those of timm's `eva02_large_patch14_clip_336`, whose file is
the one to get, and all sizes are read from it, with two exceptions: a head is 64 wide, and a row of patches is as long
as 16 were, because the network was first trained on pictures of 224 px and then on larger ones (`ref_feat_shape` in
timm's `models/eva.py`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

_HEAD: Final = 64
_TRAINED: Final = 16  # patches in a row, at first
_SLOWEST: Final = 10_000.0  # of the turns: RoPE's usual base
_EPSILON: Final = 1e-6  # of every norm; timm's default
_DEPTHS: Final = 6  # PuLID looks at what enters each further sixth of the blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The published ones, or a file's.

    side, patch  px of a picture, and of a patch.
    inner        between the layers of a block's second half.
    out          numbers of the answer.
    """

    side: int = 336
    patch: int = 14
    dim: int = 1024
    inner: int = 2730
    depth: int = 24
    out: int = 768

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Sizes:
        """Raises `KeyError` for weights that are not such a tower's, `ValueError` for sizes that don't go together."""
        dim, _, patch, _ = weights["patch_embed.proj.weight"].shape
        places = weights["pos_embed"].shape[1] - 1
        depth = sum(key.endswith(".attn.q_proj.weight") for key in weights)
        if dim % _HEAD or depth % _DEPTHS or math.isqrt(places) ** 2 != places:
            raise ValueError(f"{depth} blocks of {dim} over {places} places are not such a tower's")
        return cls(
            side=math.isqrt(places) * patch,
            patch=patch,
            dim=dim,
            inner=weights["blocks.0.mlp.fc2.weight"].shape[1],
            depth=depth,
            out=weights["head.weight"].shape[0],
        )

    @property
    def row(self) -> int:
        """Patches in a row."""
        return self.side // self.patch


class EvaVision(nn.Module):
    """For inference only: no parameter wants a gradient."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.cls_token = nn.Parameter(torch.empty(1, 1, sizes.dim))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + sizes.row**2, sizes.dim))
        self.patch_embed = _Patches(sizes)
        self.blocks = nn.ModuleList(_Block(sizes) for _ in range(sizes.depth))
        self.norm = nn.LayerNorm(sizes.dim, _EPSILON)
        self.head = nn.Linear(sizes.dim, sizes.out)
        self.requires_grad_(False)

    @classmethod
    def load(cls, weights: Mapping[str, Tensor]) -> EvaVision:
        """The weights become the network's own memory. Raises as `Sizes.of`, and `RuntimeError` for a weight that is
        missing, of another shape, or one too many."""
        with torch.device("meta"):
            net = cls(Sizes.of(weights))
        net.load_state_dict(weights, assign=True)
        return net.requires_grad_(False)

    def forward(self, picture: Tensor) -> tuple[list[Tensor], Tensor]:
        """picture: (B, 3, side, side), RGB, normalised as CLIP's. Gives what enters five of the blocks, (B, 1 +
        patches, dim) each (of 24: 4, 8, 12, 16 and 20, counted from 0; of 6 n: n, 2 n to 5 n), and what the class
        token becomes after the head, (B, out). All of it is the caller's to wipe."""
        patches = self.patch_embed(picture)
        states = torch.cat([self.cls_token.expand(len(picture), -1, -1), patches], 1) + self.pos_embed
        turns = _turns(self.sizes.row, states.device)
        entered = []
        for index, block in enumerate(self.blocks):
            if index and index % (self.sizes.depth // _DEPTHS) == 0:
                entered.append(states)
            states = block(states, turns)
        answer: Tensor = self.head(self.norm(states)[:, 0])
        return entered, answer


class _Patches(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, sizes.dim, sizes.patch, sizes.patch)

    def forward(self, picture: Tensor) -> Tensor:
        out: Tensor = self.proj(picture).flatten(2).transpose(1, 2)
        return out


class _Block(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(sizes.dim, _EPSILON), nn.LayerNorm(sizes.dim, _EPSILON)
        self.attn, self.mlp = _Attention(sizes), _Gated(sizes)

    def forward(self, states: Tensor, turns: Tensor) -> Tensor:
        states = states + self.attn(self.norm1(states), turns)
        out: Tensor = states + self.mlp(self.norm2(states))
        return out


class _Attention(nn.Module):
    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.q_proj = nn.Linear(sizes.dim, sizes.dim)
        self.k_proj = nn.Linear(sizes.dim, sizes.dim, bias=False)
        self.v_proj = nn.Linear(sizes.dim, sizes.dim)
        self.norm = nn.LayerNorm(sizes.dim, _EPSILON)
        self.proj = nn.Linear(sizes.dim, sizes.dim)

    def forward(self, states: Tensor, turns: Tensor) -> Tensor:
        query, key, value = (
            layer(states).unflatten(-1, (-1, _HEAD)).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        read = functional.scaled_dot_product_attention(_turned(query, turns), _turned(key, turns), value)
        out: Tensor = self.proj(self.norm(read.transpose(1, 2).flatten(2)))
        return out


class _Gated(nn.Module):
    """SwiGLU with a norm inside."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.fc1_g, self.fc1_x = nn.Linear(sizes.dim, sizes.inner), nn.Linear(sizes.dim, sizes.inner)
        self.norm = nn.LayerNorm(sizes.inner, _EPSILON)
        self.fc2 = nn.Linear(sizes.inner, sizes.dim)

    def forward(self, states: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.norm(functional.silu(self.fc1_g(states)) * self.fc1_x(states)))
        return out


def _turns(row: int, device: torch.device) -> Tensor:
    """By how much the pairs of a head's numbers are turned at each patch, row by row: float32 (row², 32) radians. The
    first half says how far down it is, the second how far to the right."""
    pairs = _HEAD // 4
    speeds = _SLOWEST ** -(torch.arange(pairs, device=device, dtype=torch.float32) / pairs)
    along = torch.arange(row, device=device, dtype=torch.float32)[:, None] / row * _TRAINED * speeds
    down, right = along[:, None].expand(-1, row, -1), along[None].expand(row, -1, -1)
    return torch.cat([down, right], -1).flatten(0, 1)


def _turned(states: Tensor, turns: Tensor) -> Tensor:
    """(B, H, 1 + row², 64): neighbouring numbers are a pair; the class token is nowhere and stays."""
    first, places = states[:, :, :1], states[:, :, 1:].float()
    x, y = places[..., 0::2], places[..., 1::2]
    sine, cosine = turns.sin(), turns.cos()
    turned = torch.stack([x * cosine - y * sine, y * cosine + x * sine], -1).flatten(-2)
    return torch.cat([first, turned.to(states.dtype)], 2)
