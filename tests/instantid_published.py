"""InstantID as it was published: how its adapter's file is laid out, and what it changes in diffusers' own pipeline.

What tests and benches measure ours against. Needs torch and diffusers, nothing else, because the bench of a GPU is
carried to machines that have nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import torch
from diffusers import ControlNetModel, EulerDiscreteScheduler, StableDiffusionXLControlNetInpaintPipeline
from torch import Tensor

from nanoswap.pipelines.recipe import Recipe

TAKES: Final = 512  # numbers of the face encoder
QUERIES: Final = 16  # tokens of a face
_HEAD: Final = 64  # width of a head of the resampler


class IdentityNet(ControlNetModel):
    """The first change: it reads the tokens of the face and not the prompt."""

    face: Tensor | None = None

    def forward(self, sample: Any, timestep: Any, encoder_hidden_states: Any, *more: Any, **named: Any) -> Any:
        return super().forward(sample, timestep, self.face, *more, **named)


class Published(StableDiffusionXLControlNetInpaintPipeline):
    """The second: a row of the batch has a face of its own."""

    def prepare_ip_adapter_image_embeds(self, image: Any, embeds: Any, device: Any, count: int, cfg: bool) -> Any:
        raw = [each.to(device, self.unet.dtype)[:, None] for each in embeds]
        rows = [torch.cat([torch.zeros_like(each), each]) if cfg else each for each in raw]
        self.controlnet.face = self.unet.encoder_hid_proj(rows)[0][:, 0]
        return rows


def scheduler(recipe: Recipe) -> Any:
    """SDXL's own, spaced as the recipe says."""
    euler: Any = EulerDiscreteScheduler
    return euler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        timestep_spacing=recipe.spacing,
    )


def face_adapter(
    unet: Any,
    width: int,
    some: Callable[..., Tensor],
    norm: Callable[[int], tuple[Tensor, Tensor]],
    takes: int = TAKES,
) -> dict[str, dict[str, Tensor]]:
    """The key names and shapes of InstantID's `ip-adapter.bin` for this UNet, which are IP-Adapter plus's too.

    width: of the resampler (published: 1280). some: random numbers of a shape; norm: weights and biases of a norm.
    """
    cross, heads = unet.config.cross_attention_dim, width // _HEAD * _HEAD
    resampler = {
        "latents": some(1, QUERIES, width),
        "proj_in.weight": some(width, takes),
        "proj_in.bias": some(width),
        "proj_out.weight": some(cross, width),
        "proj_out.bias": some(cross),
    }
    resampler["norm_out.weight"], resampler["norm_out.bias"] = norm(cross)
    for layer in range(4):
        at = f"layers.{layer}"
        for name in ("0.norm1", "0.norm2", "1.0"):
            resampler[f"{at}.{name}.weight"], resampler[f"{at}.{name}.bias"] = norm(width)
        resampler |= {
            f"{at}.0.to_q.weight": some(heads, width),
            f"{at}.0.to_kv.weight": some(2 * heads, width),
            f"{at}.0.to_out.weight": some(width, heads),
            f"{at}.1.1.weight": some(4 * width, width),
            f"{at}.1.3.weight": some(width, 4 * width),
        }
    attention: dict[str, Tensor] = {}
    for index, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):  # at odd places, as in the published file
            inner = unet.get_submodule(name.removesuffix(".processor")).inner_dim
            attention |= {f"{index}.to_{which}_ip.weight": some(inner, cross) for which in ("k", "v")}
    return {"image_proj": resampler, "ip_adapter": attention}
