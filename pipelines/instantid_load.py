"""From files of weights to the parts of the flagship: diffusers' and transformers' own classes, and nothing fetched.

The files are bytes that the store has hashed, so nothing is read from a folder in between. Weights go into networks
that are made without any, so no memory is spent on a random start, and a file that lacks a weight, or has one too many,
doesn't load. What is only needed once (tokenizers, text encoders: the prompt is the engine's) is gone afterwards.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import diffusers
import torch
import transformers
from diffusers import AutoencoderKL, ControlNetModel, EulerDiscreteScheduler, StableDiffusionXLPipeline
from diffusers import UNet2DConditionModel as UNet
from safetensors.torch import load as read_tensors
from torch import nn

from nanoswap.pipelines.denoiser import Parts
from nanoswap.pipelines.manifest import Role
from nanoswap.pipelines.recipe import Recipe

_BEGIN: Final = "<|startoftext|>"  # OpenAI CLIP's vocabulary
_END: Final = "<|endoftext|>"
_LONGEST: Final = 77  # tokens
_PAD_2: Final = "!"  # what OpenCLIP's encoder was trained with; `tokenizer_2` of SDXL


@dataclass(frozen=True, slots=True, eq=False)
class Loaded:
    """parts for the `Denoiser`; the autoencoder; the resampler of the face adapter. All on the device, in the dtype."""

    parts: Parts
    vae: Any
    resampler: Any


def load_parts(files: Mapping[Role, bytes], recipe: Recipe, *, device: str, dtype: torch.dtype) -> Loaded:
    """The parts of an `instantid` engine, of what the manifest says that it needs.

    Raises whatever diffusers, transformers, torch and json raise for files that are not what they should be.
    """
    # They tell the operator's log about libraries that are not needed here.
    for library in (diffusers, transformers):
        said: Any = library.utils.logging
        said.set_verbosity_error()
        said.disable_progress_bar()
    unet = _network(UNet, files["unet"], files["unet_config"]).to(device, dtype)
    identity_net = _network(ControlNetModel, files["identity_net"], files["identity_net_config"]).to(device, dtype)
    vae = _network(AutoencoderKL, files["vae"], files["vae_config"]).to(device, dtype)
    vocabulary, merges = _words(files["vocabulary"], files["merges"])
    text = transformers.CLIPTextModel
    pipeline: Any = StableDiffusionXLPipeline(
        vae=vae,
        text_encoder=_encoder(text, files["text_encoder"], files["text_encoder_config"]).to(device, dtype),
        text_encoder_2=_encoder(
            transformers.CLIPTextModelWithProjection, files["text_encoder_2"], files["text_encoder_2_config"]
        ).to(device, dtype),
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
    adapter = torch.load(io.BytesIO(files["face_adapter"]), map_location="cpu", weights_only=True)
    pipeline.load_ip_adapter(adapter, subfolder="", weight_name="", image_encoder_folder=None, low_cpu_mem_usage=False)
    pipeline.set_ip_adapter_scale(recipe.face_scale)
    resampler = unet.encoder_hid_proj.image_projection_layers[0]
    # The tokens are made once per face, not once per step.
    unet.encoder_hid_proj = nn.Identity()
    for network in (unet, identity_net, vae, resampler):
        network.to(device, dtype).eval().requires_grad_(False)
    if device.startswith("cuda"):
        for network in (unet, identity_net, vae):
            network.to(memory_format=torch.channels_last)
    guided = recipe.guided
    parts = Parts(
        unet,
        identity_net,
        torch.cat([nothing, prompt]) if guided else prompt,
        torch.cat([pooled_nothing, pooled]) if guided else pooled,
    )
    return Loaded(parts, vae, resampler)


def _network(kind: Any, weights: bytes, config: bytes) -> Any:
    """One of diffusers' networks."""
    with torch.device("meta"):
        network = kind.from_config(_config(config))
    tensors = read_tensors(weights)
    network._fix_state_dict_keys_on_load(tensors)  # names of older files, as `from_pretrained` does
    network.load_state_dict(tensors, strict=True, assign=True)
    return network


def _encoder(kind: Any, weights: bytes, config: bytes) -> Any:
    """One of transformers' text encoders; it renames what older versions called otherwise."""
    described = transformers.CLIPTextConfig.from_dict(_config(config))
    tensors = read_tensors(weights)
    tensors.pop("text_model.embeddings.position_ids", None)  # of files of before transformers 4.31
    encoder, said = kind.from_pretrained(None, config=described, state_dict=tensors, output_loading_info=True)
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if said[key]:
            raise ValueError(f"a text encoder's file has {key.replace('_', ' ')}: {sorted(map(str, said[key]))[0]}")
    return encoder


def _config(data: bytes) -> dict[str, Any]:
    config = json.loads(data)
    if not isinstance(config, dict):
        raise ValueError("a configuration is not an object")
    return config


def _words(vocabulary: bytes, merges: bytes) -> tuple[dict[str, int], list[tuple[str, ...]]]:
    pairs = [tuple(line.split()) for line in merges.decode().splitlines() if line and not line.startswith("#version")]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError("the merges are not two words a line")
    return _config(vocabulary), pairs


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
