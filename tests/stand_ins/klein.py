"""FLUX.2 [klein] in miniature: the layout and the names of the published files, and weights that mean nothing.

What is made with them is noise that depends on everything that it should depend on: the target, the source, the prompt
and the seed.
"""

from __future__ import annotations

import json
from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, Flux2Transformer2DModel
from safetensors.torch import save
from tokenizers import AddedToken, Tokenizer
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from transformers import Qwen3Config, Qwen3ForCausalLM

WORDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
"""Qwen's own, which are one token each."""
_WIDTH = 8

TRANSFORMER: dict[str, Any] = {
    "_class_name": "Flux2Transformer2DModel",
    "_diffusers_version": "0.37.0.dev0",
    "patch_size": 1,
    "in_channels": 16,
    "out_channels": None,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 3 * _WIDTH,
    "timestep_guidance_channels": 16,
    "mlp_ratio": 3.0,
    "axes_dims_rope": [4, 4, 4, 4],
    "rope_theta": 2000,
    "eps": 1e-6,
    "guidance_embeds": False,
}
VAE: dict[str, Any] = {
    "_class_name": "AutoencoderKLFlux2",
    "_diffusers_version": "0.37.0.dev0",
    "_name_or_path": "black-forest-labs/FLUX.2-dev",
    "block_out_channels": [8, 8, 8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "force_upcast": True,
    "sample_size": 64,
    "patch_size": [2, 2],
}
TEXT_ENCODER: dict[str, Any] = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    # The pipeline reads what lies behind the 9th, the 18th and the 27th.
    "num_hidden_layers": 28,
    "hidden_size": _WIDTH,
    "intermediate_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 4,
    "vocab_size": 256 + len(WORDS),
    "tie_word_embeddings": True,
}


def klein(seed: int = 0) -> dict[str, bytes]:
    """The files that `load_klein` takes, by their keys."""
    torch.manual_seed(seed)
    transformer = Flux2Transformer2DModel.from_config(TRANSFORMER)
    for name, value in transformer.named_parameters():
        # As they begin, everybody is hardly seen by everybody else.
        value.data.mul_(4 if ".norm_" in name else 2)
    vae = AutoencoderKLFlux2.from_config(VAE)
    vae.bn.running_var.fill_(0.05)  # about what the latents of such an encoder have
    text_encoder = Qwen3ForCausalLM(Qwen3Config(**TEXT_ENCODER))
    # As published, the head is not stored: its weights are those of the first layer.
    words = {name: value for name, value in text_encoder.state_dict().items() if name != "lm_head.weight"}
    half = len(words) // 2
    return {
        "transformer": _saved(transformer.state_dict()),
        "transformer_config": json.dumps(TRANSFORMER).encode(),
        "vae": _saved(vae.state_dict()),
        "vae_config": json.dumps(VAE).encode(),
        "text_encoder": _saved(dict(list(words.items())[:half])),
        "text_encoder_rest": _saved(dict(list(words.items())[half:])),
        "text_encoder_config": json.dumps(TEXT_ENCODER).encode(),
        "tokenizer": _tokenizer(),
    }


def _saved(tensors: dict[str, torch.Tensor]) -> bytes:
    floats = {name: value.bfloat16() if value.is_floating_point() else value for name, value in tensors.items()}
    return save({name: value.contiguous() for name, value in floats.items()}, {"format": "pt"})


def _tokenizer() -> bytes:
    """`tokenizer.json`: one token for a byte, and one for each of Qwen's own words."""
    letters = sorted(ByteLevel.alphabet())
    made = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.decoder = ByteLevelDecoder()
    made.add_special_tokens([AddedToken(word, normalized=False) for word in WORDS])
    return made.to_str().encode()
