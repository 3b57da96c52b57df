"""From what two networks say of a face to PuLID's tokens: its `IDFormer`, as version 1.1 for SDXL has it.

ArcFace's and EVA's numbers, together, become five tokens. In five rounds they, and 32 learned ones, read what EVA saw
at five depths, and what the learned ones hold in the end are the tokens for SDXL. Names of weights are those of the
published file (`id_adapter.` in `pulid_v1.1.safetensors`, 151,398,400 numbers), and all sizes are read from it, except
that a head is 64 wide. After `pulid/encoders_transformer.py` of ToTheBeginning/PuLID (arXiv 2404.16022).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

_HEAD: Final = 64
ROUNDS: Final = 5
"""How many depths of EVA are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """The published ones, or a file's.

    identity, seen   numbers of ArcFace and EVA together; and of each token at EVA's depths.
    mapped           between the layers that bring either to `dim`.
    inner, wide      of attention, all heads together; between the two layers behind it.
    tokens, queries  made of the identity; learned.
    """

    identity: int = 1280
    seen: int = 1024
    mapped: int = 1024
    dim: int = 1024
    inner: int = 1024
    wide: int = 4096
    depth: int = 10
    tokens: int = 5
    queries: int = 32
    out: int = 2048

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> Sizes:
        """Raises `KeyError` for weights that are not an IDFormer's, `ValueError` for sizes that don't go together."""
        _, queries, dim = weights["latents"].shape
        depth = sum(key.startswith("layers.") and key.endswith(".0.to_q.weight") for key in weights)
        sizes = cls(
            identity=weights["id_embedding_mapping.0.weight"].shape[1],
            seen=weights["mapping_0.0.weight"].shape[1],
            mapped=weights["mapping_0.0.weight"].shape[0],
            dim=dim,
            inner=weights["layers.0.0.to_q.weight"].shape[0],
            wide=weights["layers.0.1.1.weight"].shape[0],
            depth=depth,
            tokens=weights["id_embedding_mapping.6.weight"].shape[0] // dim,
            queries=queries,
            out=weights["proj_out"].shape[1],
        )
        if sizes.inner % _HEAD or depth % ROUNDS:
            raise ValueError(f"attention of {sizes.inner} and {depth} layers: heads have {_HEAD}, rounds are {ROUNDS}")
        return sizes


class IdFormer(nn.Module):
    """For inference only: no parameter wants a gradient."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.latents = nn.Parameter(torch.empty(1, sizes.queries, sizes.dim))
        self.proj_out = nn.Parameter(torch.empty(sizes.dim, sizes.out))
        self.layers = nn.ModuleList(
            nn.ModuleList([_Attention(sizes), _feed_forward(sizes)]) for _ in range(sizes.depth)
        )
        for depth in range(ROUNDS):
            setattr(self, f"mapping_{depth}", _mapping(sizes.seen, sizes.mapped, sizes.dim))
        self.id_embedding_mapping = _mapping(sizes.identity, sizes.mapped, sizes.dim * sizes.tokens)
        self.requires_grad_(False)

    @classmethod
    def load(cls, weights: Mapping[str, Tensor]) -> IdFormer:
        """The weights become the network's own memory. Raises as `Sizes.of`, and `RuntimeError` for a weight that is
        missing, of another shape, or one too many."""
        with torch.device("meta"):
            net = cls(Sizes.of(weights))
        net.load_state_dict(weights, assign=True)
        return net.requires_grad_(False)

    def forward(self, identity: Tensor, seen: Sequence[Tensor]) -> Tensor:
        """identity: (B, identity); seen: five times (B, N, seen). Gives (B, queries, out)."""
        whose = self.id_embedding_mapping(identity).unflatten(-1, (self.sizes.tokens, self.sizes.dim))
        latents = torch.cat([self.latents.expand(len(identity), -1, -1), whose], 1)
        each = self.sizes.depth // ROUNDS
        for depth, states in zip(range(ROUNDS), seen, strict=True):
            context = torch.cat([whose, self.get_submodule(f"mapping_{depth}")(states)], 1)
            for layer in range(depth * each, (depth + 1) * each):
                attention, feed_forward = self.get_submodule(f"layers.{layer}").children()
                latents = attention(context, latents) + latents
                latents = feed_forward(latents) + latents
        return latents[:, : self.sizes.queries] @ self.proj_out


class _Attention(nn.Module):
    """Latents read a context and themselves."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(sizes.dim), nn.LayerNorm(sizes.dim)
        self.to_q = nn.Linear(sizes.dim, sizes.inner, bias=False)
        self.to_kv = nn.Linear(sizes.dim, 2 * sizes.inner, bias=False)
        self.to_out = nn.Linear(sizes.inner, sizes.dim, bias=False)

    def forward(self, context: Tensor, latents: Tensor) -> Tensor:
        """(B, N, dim) and (B, M, dim) to (B, M, dim)."""
        latents = self.norm2(latents)
        query = _heads(self.to_q(latents))
        key, value = self.to_kv(torch.cat([self.norm1(context), latents], 1)).chunk(2, -1)
        read = functional.scaled_dot_product_attention(query, _heads(key), _heads(value))
        out: Tensor = self.to_out(read.transpose(1, 2).flatten(2))
        return out


def _heads(states: Tensor) -> Tensor:
    return states.view(*states.shape[:2], -1, _HEAD).transpose(1, 2)


def _feed_forward(sizes: Sizes) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(sizes.dim),
        nn.Linear(sizes.dim, sizes.wide, bias=False),
        nn.GELU(),
        nn.Linear(sizes.wide, sizes.dim, bias=False),
    )


def _mapping(inputs: int, between: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, between),
        nn.LayerNorm(between),
        nn.LeakyReLU(),
        nn.Linear(between, between),
        nn.LayerNorm(between),
        nn.LeakyReLU(),
        nn.Linear(between, outputs),
    )
