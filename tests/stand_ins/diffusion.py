"""Files of a diffusion engine in the layout of the published ones, saved by the libraries that load them; a few hundred
thousand random numbers instead of five milliards.

What a face comes out as means nothing. What must hold for real weights holds for these as well: whose face it is, where
its points are and the seed change the picture, and nothing else does.
"""

from __future__ import annotations

import io
import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors.torch import load, save
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests import instantid_published
from tests.stand_ins.pulid import eva, parser, pulid

TEXT = 32  # width of each text encoder; together they are as wide as the cross attention
CROSS = 2 * TEXT
SEEN = 48  # width of the vision tower
ARCHITECTURE: dict[str, Any] = {
    "block_out_channels": (32, 64),
    "attention_head_dim": (2, 4),
    "layers_per_block": 1,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "transformer_layers_per_block": (1, 2),
    "projection_class_embeddings_input_dim": 6 * 8 + TEXT,
    "cross_attention_dim": CROSS,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
}


@cache
def unet(seed: int = 0) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=16, up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"), **ARCHITECTURE
    ).requires_grad_(False)


@cache
def identity_net() -> ControlNetModel:
    torch.manual_seed(1)
    net = ControlNetModel(conditioning_embedding_out_channels=(8, 8, 16, 16), **ARCHITECTURE).requires_grad_(False)
    for parameter in net.parameters():
        # A fresh one ends in convolutions of zeros: whatever it sees, it says nothing.
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    # Eight convolutions of small random numbers would leave next to nothing of the points.
    for layer in net.controlnet_cond_embedding.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    return net


@cache
def vae() -> AutoencoderKL:
    torch.manual_seed(2)
    return AutoencoderKL(
        block_out_channels=(16, 16, 32, 32),
        norm_num_groups=8,
        layers_per_block=1,
        latent_channels=4,
        scaling_factor=0.13025,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ).requires_grad_(False)


@cache
def text_encoder(second: bool) -> Any:
    torch.manual_seed(3 + second)
    config = CLIPTextConfig(
        hidden_size=TEXT,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        vocab_size=1000,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        projection_dim=TEXT,
    )
    return (CLIPTextModelWithProjection if second else CLIPTextModel)(config)


def vocabulary() -> dict[str, int]:
    """Bytes as CLIP writes them, alone and at the end of a word, and one word."""
    printed = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in printed] + [chr(256 + n) for n in range(256 - len(printed))]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters), "of</w>"]
    return {word: index for index, word in enumerate(words)}


MERGES = "#version: 0.2\no f</w>\n"


def face_adapter(takes: int = instantid_published.TAKES, seed: int = 5) -> dict[str, dict[str, torch.Tensor]]:
    """As InstantID's ip-adapter.bin; takes: numbers of what it is shown."""
    generator = torch.Generator().manual_seed(seed)
    return instantid_published.face_adapter(
        unet(),
        64,
        lambda *shape: torch.randn(*shape, generator=generator) * 0.4,
        lambda width: (torch.ones(width), torch.zeros(width)),
        takes,
    )


@cache
def image_encoder() -> CLIPVisionModelWithProjection:
    torch.manual_seed(8)
    config = CLIPVisionConfig(
        hidden_size=SEEN,
        intermediate_size=37,
        num_attention_heads=4,
        num_hidden_layers=3,
        image_size=56,
        patch_size=14,
        projection_dim=TEXT,
    )
    encoder = CLIPVisionModelWithProjection(config).requires_grad_(False)
    for layer in encoder.modules():
        if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
            torch.nn.init.xavier_normal_(layer.weight)  # else it sees next to nothing
    return encoder


def _published(data: bytes) -> bytes:
    """With the names of SDXL's files, which older versions of transformers wrote."""
    named = {
        key if key.startswith(("text_model.", "text_projection.")) else f"text_model.{key}": value
        for key, value in load(data).items()
    }
    named["text_model.embeddings.position_ids"] = torch.arange(77)[None]
    return save(named, {"format": "pt"})


def attention_widths() -> list[int]:
    """Of the layers of cross attention, in the order in which published files count them."""
    names = [name for name in unet().attn_processors if name.endswith("attn2.processor")]
    return [unet().get_submodule(name.removesuffix(".processor")).inner_dim for name in names]


@cache
def diffusion_files() -> dict[str, bytes]:
    """By the names of the real manifest."""
    files: dict[str, bytes] = {}
    for name, network in (
        ("sdxl_unet", unet(0)),
        ("sdxl_lightning_4step", unet(6)),
        ("sdxl_vae", vae()),
        ("instantid_net", identity_net()),
        ("sdxl_text_encoder", text_encoder(False)),
        ("sdxl_text_encoder_2", text_encoder(True)),
        ("clip_vit_h", image_encoder()),
    ):
        with tempfile.TemporaryDirectory() as folder:
            network.save_pretrained(folder)
            (weights,) = Path(folder).glob("*.safetensors")
            files[name] = weights.read_bytes()
            if name.startswith("sdxl_text_encoder"):
                files[name] = _published(files[name])
            if name != "sdxl_lightning_4step":
                files[f"{name}_config"] = Path(folder, "config.json").read_bytes()
    adapter = io.BytesIO()
    torch.save(face_adapter(), adapter)
    files["instantid_adapter"] = adapter.getvalue()
    files["clip_vocabulary"] = json.dumps(vocabulary()).encode()
    files["clip_merges"] = MERGES.encode()
    plus = face_adapter(SEEN, 9)
    flat = {f"{section}.{key}": value for section, tensors in plus.items() for key, value in tensors.items()}
    files["ip_adapter_plus_face"] = save(flat)
    files["pulid"] = pulid(CROSS, attention_widths())
    files["eva02_clip_l_336"] = eva()
    files["bisenet_resnet_34"] = parser().SerializeToString()
    return files
