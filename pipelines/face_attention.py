"""Cross-attention that reads, besides the prompt, whose face it is: any number of identity adapters in one layer.

An adapter is a pair of matrices per layer. What the text says is added to what the adapter's tokens say, times a scale
that is fixed when it is installed: it is part of the compiled network. That is IP-Adapter's attention (arXiv
2308.06721), which InstantID uses as it is and PuLID with one change, `ortho`, so both can be in one network.

PuLID's second way of `ortho` (`ORTHO_v2` in its `attention_processor.py`): of what a face says, the part that goes
along with what the text says anyway is left out, except as far as a place looks at the face at all. So the face doesn't
make the text louder or fainter. Along means: over all places of the picture, channel by channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

# What files call the two matrices: InstantID's and IP-Adapter's; PuLID's.
_NAMES: Final = (("to_k_ip", "to_v_ip"), ("id_to_k", "id_to_v"))
_LOOKED_AT: Final = 5  # tokens that say how far a place looks at the face; PuLID, `attention_processor.py`
_SMALLEST: Final = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, slots=True, eq=False)
class Adapter:
    """One adapter for all layers.

    weights  as in its file, (C, D) each: `{i}.to_k_ip.weight` and `{i}.to_v_ip.weight` ("ip_adapter" of InstantID's
             `ip-adapter.bin`), or `{i}.id_to_k.weight` and `{i}.id_to_v.weight` (PuLID, without what stands before
             the number). i: where the layer stands in `unet.attn_processors`.
    scale    of what it says.
    ortho    PuLID's; see above.
    """

    weights: Mapping[str, Tensor]
    scale: float
    ortho: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """One adapter in one layer; to_k, to_v: (C, D)."""

    to_k: Tensor
    to_v: Tensor
    scale: float
    ortho: bool


class FaceAttention(nn.Module):
    """A processor for diffusers' `Attention`, of transformer blocks: (B, N, C) in and out. It keeps nothing between
    calls, and no row of a batch has a part in another."""

    def __init__(self, branches: Sequence[Branch]) -> None:
        super().__init__()
        self.to_k = nn.ParameterList(nn.Parameter(one.to_k, requires_grad=False) for one in branches)
        self.to_v = nn.ParameterList(nn.Parameter(one.to_v, requires_grad=False) for one in branches)
        self.scales = tuple(one.scale for one in branches)
        self.orthos = tuple(one.ortho for one in branches)

    def forward(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: tuple[Tensor, Sequence[Tensor]],
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """encoder_hidden_states: of the text (B, L, D), and per adapter (B, 1, n, D), as diffusers' UNet hands on its
        `image_embeds`. attention_mask: of the text only. Raises `ValueError` for another number of adapters."""
        text, faces = encoder_hidden_states
        if len(faces) != len(self.scales):
            raise ValueError(f"{len(self.scales)} adapters, and tokens for {len(faces)}")
        rows = len(text)
        if attention_mask is not None:
            attention_mask = attn.prepare_attention_mask(attention_mask, text.shape[1], rows)
            attention_mask = attention_mask.view(rows, attn.heads, -1, attention_mask.shape[-1])
        query = _heads(attn.to_q(hidden_states), attn.heads)
        key, value = (_heads(layer(text), attn.heads) for layer in (attn.to_k, attn.to_v))
        said = _joined(functional.scaled_dot_product_attention(query, key, value, attn_mask=attention_mask))
        answer = said
        for index, tokens in enumerate(faces):
            key, value = (
                _heads(functional.linear(tokens[:, 0], to[index]), attn.heads) for to in (self.to_k, self.to_v)
            )
            face = _joined(functional.scaled_dot_product_attention(query, key, value))
            if self.orthos[index]:
                # Against the text alone, so that adapters may come in any order.
                face = _ortho(said, face, query, key)
                answer = (answer.float() + self.scales[index] * face).to(said.dtype)
            else:
                answer = answer + self.scales[index] * face
        made: Tensor = attn.to_out[1](attn.to_out[0](answer))
        return made


def install(unet: Any, adapters: Sequence[Adapter]) -> None:
    """Put a `FaceAttention` in the place of the processor of every `attn2` of diffusers' `UNet2DConditionModel`; those
    of `attn1` stay. The weights are brought to the UNet's device and dtype, and shared where they are there already.

    It reads `added_cond_kwargs["image_embeds"]`, a tensor per adapter, where `unet.config.encoder_hid_dim_type` is
    "ip_image_proj" and `unet.encoder_hid_proj` is what makes tokens of it, or `Identity`; neither is changed here.

    Raises `ValueError`, and changes nothing, for weights of another network and for layers that this doesn't know.
    """
    processors = dict(unet.attn_processors)
    layers = {i: name for i, name in enumerate(processors) if name.endswith("attn2.processor")}
    for adapter in adapters:
        if len(adapter.weights) != 2 * len(layers):
            raise ValueError(f"{len(adapter.weights)} matrices for {len(layers)} layers: an adapter of another network")
    for i, name in layers.items():
        layer = unet.get_submodule(name.removesuffix(".processor"))
        if layer.group_norm is not None or layer.spatial_norm is not None or layer.norm_cross:
            raise ValueError(f"'{name}' has a norm that no transformer block has")
        if layer.residual_connection or layer.rescale_output_factor != 1:
            raise ValueError(f"'{name}' adds or scales, which no transformer block does")
        branches = []
        for adapter in adapters:
            pair = _pair(adapter.weights, i)
            if any(one.shape != layer.to_k.weight.shape for one in pair):
                raise ValueError(f"matrices of {tuple(pair[0].shape)} at {i}: an adapter of another network")
            to_k, to_v = (one.to(unet.device, unet.dtype) for one in pair)
            branches.append(Branch(to_k, to_v, adapter.scale, adapter.ortho))
        processors[name] = FaceAttention(branches)
    unet.set_attn_processor(processors)


def _pair(weights: Mapping[str, Tensor], i: int) -> tuple[Tensor, Tensor]:
    for k, v in _NAMES:
        names = f"{i}.{k}.weight", f"{i}.{v}.weight"
        if all(name in weights for name in names):
            return weights[names[0]], weights[names[1]]
    raise ValueError(f"there are no matrices for layer {i}")


def _heads(states: Tensor, heads: int) -> Tensor:
    """(B, N, H d) to (B, H, N, d)."""
    return states.view(*states.shape[:2], heads, -1).transpose(1, 2)


def _joined(states: Tensor) -> Tensor:
    """The way back."""
    return states.transpose(1, 2).flatten(2)


def _ortho(said: Tensor, face: Tensor, query: Tensor, key: Tensor) -> Tensor:
    """What is added of `face`, float32 (B, N, C). said, face: (B, N, C); query: (B, H, N, d); key: (B, H, n, d)."""
    said, face = said.float(), face.float()
    # Not divided by the root of d, as attention is: so it was published.
    looks = (query.float() @ key.float().transpose(-2, -1)).softmax(-1).mean(1)
    share = looks[..., :_LOOKED_AT].sum(-1, keepdim=True)
    # A text that says nothing has no direction, and 0 / 0 would spread over the whole picture.
    along = (said * face).sum(1, keepdim=True) / said.square().sum(1, keepdim=True).clamp_min(_SMALLEST) * said
    return face + (share - 1) * along
