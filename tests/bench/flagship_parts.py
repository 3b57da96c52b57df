"""The flagship's networks with random weights, at full size or tiny, and the rival that ours is measured against.

The shapes are those of the published files, as their `config.json`s state them: SDXL base 1.0 (UNet, autoencoder) and
InstantID (IdentityNet, adapter); `PUBLISHED` holds their numbers of weights, which the shapes must give. A network is
born on its device in bfloat16, so that nothing of twice the size is ever there. How long a network takes is a matter of
its shapes; what it paints here means nothing.

The rival is diffusers' own `StableDiffusionXLControlNetInpaintPipeline`, with the two changes that InstantID is: the
IdentityNet reads the tokens of the face, and a row of the batch has a face of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from PIL import Image
from torch import Tensor, nn

from nanoswap.pipelines.recipe import Recipe
from tests.instantid_published import TAKES, IdentityNet, Published, face_adapter, scheduler

DTYPE: Final = torch.bfloat16
#: Weights of the published files.
PUBLISHED: Final = {"UNet": 2_567_463_684, "IdentityNet": 1_251_014_160, "VAE": 83_653_863, "adapter": 422_765_824}
_WORDS: Final = 77  # tokens of the prompt


@dataclass(frozen=True, slots=True)
class Plan:
    """Keywords of diffusers' classes. pooled: width of the prompt's one vector. resampler: width of the adapter's."""

    unet: dict[str, Any]
    identity_net: dict[str, Any]
    vae: dict[str, Any]
    pooled: int
    resampler: int

    @property
    def cross(self) -> int:
        return int(self.unet["cross_attention_dim"])


@dataclass(slots=True)
class Networks:
    """unet has its attention to face tokens in place, and `encoder_hid_proj` as diffusers puts it there."""

    unet: Any
    identity_net: Any
    vae: Any
    adapter: int
    """Weights of the adapter's file, which in the end are in the UNet."""


def _plan(both: dict[str, Any], up: tuple[str, ...], hint: tuple[int, ...], vae: dict[str, Any], **more: int) -> Plan:
    both = {**both, "in_channels": 4, "use_linear_projection": True, "addition_embed_type": "text_time"}
    levels = len(vae["block_out_channels"])
    return Plan(
        unet={**both, "out_channels": 4, "up_block_types": up},
        identity_net={**both, "conditioning_embedding_out_channels": hint},
        # True as published. It asks pipelines for float32, which ours doesn't heed and which would slow the rival down.
        vae={
            **vae,
            "latent_channels": 4,
            "scaling_factor": 0.13025,
            "force_upcast": False,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
        },
        **more,
    )


FULL: Final = _plan(
    {
        "block_out_channels": (320, 640, 1280),
        "layers_per_block": 2,
        "attention_head_dim": (5, 10, 20),
        "transformer_layers_per_block": (1, 2, 10),
        "cross_attention_dim": 2048,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 6 * 256 + 1280,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    },
    ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    (16, 32, 96, 256),
    {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2},
    pooled=1280,
    resampler=1280,
)
TINY: Final = _plan(
    {
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "attention_head_dim": (2, 4),
        "transformer_layers_per_block": (1, 2),
        "cross_attention_dim": 64,
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + 32,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    },
    ("CrossAttnUpBlock2D", "UpBlock2D"),
    (8, 8, 16, 16),
    {"block_out_channels": (16, 16, 32, 32), "layers_per_block": 1, "norm_num_groups": 8},
    pooled=32,
    resampler=64,
)


def build(plan: Plan, device: str, identity_net: type[ControlNetModel] = ControlNetModel) -> Networks:
    """Random networks on `device` (`meta`: shapes alone), laid out as the service lays them out."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(DTYPE)
    try:
        with torch.device(device), torch.no_grad():
            unet: Any = UNet2DConditionModel(**plan.unet)
            net: Any = identity_net(**plan.identity_net)
            vae: Any = AutoencoderKL(**plan.vae)
            for parameter in net.parameters():
                # A fresh one ends in convolutions of zeros, and products with zeros flatter a GPU's clock.
                if device == "meta" or not parameter.any():
                    nn.init.normal_(parameter, std=0.01)

            def some(*shape: int) -> Tensor:
                return torch.randn(*shape, device=unet.device, dtype=unet.dtype) * 0.02

            adapter = face_adapter(unet, plan.resampler, some, lambda width: (1 + some(width), some(width)))
            unet._load_ip_adapter_weights([adapter], low_cpu_mem_usage=False)
    finally:
        torch.set_default_dtype(before)
    for network in (unet, net, vae):
        network.eval().requires_grad_(False)
        if device == "cuda":
            network.to(memory_format=torch.channels_last)
    return Networks(unet, net, vae, sum(each.numel() for part in adapter.values() for each in part.values()))


def scale(unet: Any, recipe: Recipe) -> None:
    """Fix how loud the face is, as diffusers' `set_ip_adapter_scale` does."""
    for processor in unet.attn_processors.values():
        if hasattr(processor, "scale"):
            processor.scale = [recipe.face_scale]


def prompts(plan: Plan, rows: int, device: str) -> tuple[Tensor, Tensor]:
    """What the text encoders would have given, (R, 77, D) and (R, P): the prompt is the engine's, and encoded once."""
    prompt = torch.randn(rows, _WORDS, plan.cross, device=device, dtype=DTYPE)
    return prompt, torch.randn(rows, plan.pooled, device=device, dtype=DTYPE)


class Rival:
    """diffusers' pipeline on networks of its own: pictures in, a picture out, batch of one. Its text encoders are left
    out as ours are. compiler: of the same two networks as ours."""

    def __init__(self, plan: Plan, device: str) -> None:
        self._plan, self._device = plan, device
        self._nets = build(plan, device, IdentityNet)

    def compile(self, compiler: str) -> None:
        for network in (self._nets.unet, self._nets.identity_net):
            network.compile(dynamic=False, backend=compiler)

    def of(self, recipe: Recipe, crop: np.ndarray, mask: np.ndarray, points: np.ndarray) -> Callable[[], Any]:
        """A call that makes one picture. crop, points: uint8 (S, S, 3); mask: uint8 (S, S)."""
        pipe: Any = Published(
            vae=self._nets.vae,
            text_encoder=None,
            text_encoder_2=None,
            tokenizer=None,
            tokenizer_2=None,
            unet=self._nets.unet,
            controlnet=self._nets.identity_net,
            scheduler=scheduler(recipe),
            add_watermarker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        scale(self._nets.unet, recipe)
        prompt, pooled = prompts(self._plan, 2, self._device)
        told = {"prompt_embeds": prompt[1:], "pooled_prompt_embeds": pooled[1:]}
        if recipe.guided:
            told |= {"negative_prompt_embeds": prompt[:1], "negative_pooled_prompt_embeds": pooled[:1]}
        picture, painted, seen = (Image.fromarray(each) for each in (crop, mask, points))
        face = torch.randn(1, 1, TAKES)

        def call() -> Any:
            return pipe(
                **told,
                image=picture,
                mask_image=painted,
                control_image=seen,
                ip_adapter_image_embeds=[face],
                strength=recipe.strength,
                num_inference_steps=recipe.steps,
                guidance_scale=recipe.guidance,
                controlnet_conditioning_scale=recipe.net_scale,
                generator=torch.Generator().manual_seed(0),
            ).images[0]

        return call
