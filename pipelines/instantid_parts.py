"""From files of weights to the parts of the flagship: diffusers' and transformers' own classes.

What is only needed once (tokenizers, text encoders: the prompt is the engine's) is gone afterwards.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch
import transformers
from diffusers import AutoencoderKL, ControlNetModel, EulerDiscreteScheduler, StableDiffusionXLPipeline
from diffusers import UNet2DConditionModel as UNet
from safetensors.torch import load
from torch import Tensor, nn

from nanoswap.pipelines.denoiser import Parts
from nanoswap.pipelines.diffusion_files import encoder, network, quiet, settings
from nanoswap.pipelines.face_attention import Adapter, install
from nanoswap.pipelines.pulid import Pulid
from nanoswap.pipelines.recipe import Recipe
from nanoswap.pipelines.reference import Reference
from nanoswap.pipelines.roles import Role

_ENCODERS: Final[tuple[tuple[Any, Role, Role], ...]] = (
    (transformers.CLIPTextModel, "text_encoder", "text_encoder_config"),
    (transformers.CLIPTextModelWithProjection, "text_encoder_2", "text_encoder_2_config"),
)
_BEGIN: Final = "<|startoftext|>"  # OpenAI CLIP's vocabulary
_END: Final = "<|endoftext|>"
_LONGEST: Final = 77  # tokens
_PAD_2: Final = "!"  # what OpenCLIP's encoder was trained with; `tokenizer_2` of SDXL


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """parts for the `Denoiser`; the autoencoder; the resampler of the face adapter; the second adapter and the
    reference, where their files are. All on the device, in the dtype."""

    parts: Parts
    vae: Any
    resampler: Any
    pulid: Pulid | None
    reference: Reference | None


def load_parts(files: Mapping[Role, bytes], recipe: Recipe, *, device: str, dtype: torch.dtype) -> Loaded:
    """The parts of an `instantid` engine, of what the manifest says that it needs.

    Raises whatever diffusers, transformers, torch and json raise for files that are not what they should be.
    """
    quiet()
    unet = network(UNet, files["unet"], files["unet_config"]).to(device, dtype)
    identity_net = network(ControlNetModel, files["identity_net"], files["identity_net_config"]).to(device, dtype)
    vae = network(AutoencoderKL, files["vae"], files["vae_config"]).to(device, dtype)
    encoders = [
        encoder(kind, transformers.CLIPTextConfig, [files[role]], files[config], dtype).to(device)
        for kind, role, config in _ENCODERS
    ]
    vocabulary, merges = _words(files["vocabulary"], files["merges"])
    pipeline: Any = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=encoders[0],
        text_encoder_2=encoders[1],
        tokenizer=_tokenizer(vocabulary, merges, pad=_END),
        tokenizer_2=_tokenizer(vocabulary, merges, pad=_PAD_2),
        unet=unet,
        scheduler=EulerDiscreteScheduler(),  # type: ignore[no-untyped-call]
        add_watermarker=False,
    )
    with torch.inference_mode():
        prompt, nothing, pooled, pooled_nothing = pipeline.encode_prompt(
            recipe.prompt,
            device=torch.device(device),
            do_classifier_free_guidance=recipe.guided,
            negative_prompt=recipe.negative or None,
        )
    adapters = [torch.load(io.BytesIO(files["face_adapter"]), map_location="cpu", weights_only=True)]
    if "reference_adapter" in files:
        adapters.append(_nested(load(files["reference_adapter"])))
    nowhere = [""] * len(adapters)
    pipeline.load_ip_adapter(
        adapters, subfolder=nowhere, weight_name=nowhere, image_encoder_folder=None, low_cpu_mem_usage=False
    )
    face, *others = unet.encoder_hid_proj.image_projection_layers
    # Tokens are made once per face, not once per step.
    unet.encoder_hid_proj = nn.Identity()
    scales = [recipe.face_scale, recipe.reference_scale]
    branches = [Adapter(one["ip_adapter"], scale) for one, scale in zip(adapters, scales, strict=False)]
    pulid = reference = None
    if "second_adapter" in files:
        pulid = Pulid.load(
            files["second_adapter"],
            files["vision"],
            device=device,
            dtype=dtype,
            # PuLID's demo (`app_v1_1.py`): ten for distilled networks.
            zeros=20 if recipe.guided else 10,
            scale=recipe.second_scale,
        )
        branches.insert(1, pulid.adapter)
    if len(branches) > 1:
        install(unet, branches)
    else:
        pipeline.set_ip_adapter_scale(recipe.face_scale)
    # The adapters' files are in float32, and what was loaded of them isn't what the UNet is.
    for part in (unet, face, *others):
        part.to(device, dtype).eval().requires_grad_(False)
    if others:
        vision = encoder(
            transformers.CLIPVisionModelWithProjection,
            transformers.CLIPVisionConfig,
            [files["image_encoder"]],
            files["image_encoder_config"],
            dtype,
        )
        reference = Reference(vision.to(device), others[0], guided=recipe.guided)
    if device.startswith("cuda"):
        for part in (unet, identity_net, vae):
            part.to(memory_format=torch.channels_last)
    guided = recipe.guided
    parts = Parts(
        unet,
        identity_net,
        torch.cat([nothing, prompt]) if guided else prompt,
        torch.cat([pooled_nothing, pooled]) if guided else pooled,
    )
    return Loaded(parts, vae, face, pulid, reference)


def _nested(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """`image_proj.latents` of a safetensors file as `latents` of `image_proj`."""
    nested: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        section, _, name = key.partition(".")
        nested.setdefault(section, {})[name] = value
    return nested


def _words(vocabulary: bytes, merges: bytes) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    pairs = [tuple(line.split()) for line in merges.decode().splitlines() if line and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("the merges are not two words a line")
    return settings(vocabulary), pairs


def _tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, ...]], pad: str) -> Any:
    return transformers.CLIPTokenizer(
        vocab=vocabulary,
        merges=merges,  # type: ignore[arg-type]
        bos_token=_BEGIN,
        eos_token=_END,
        unk_token=_END,
        pad_token=pad,
        model_max_length=_LONGEST,
    )
