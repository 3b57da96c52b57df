"""From the files of FLUX.2 [klein] 4B to an engine that is warm: diffusers' and transformers' own classes, no folders.

The files are bytes that the store has hashed, and nothing is fetched. The text encoder is as large as the network that
paints, and needed once, because the prompt is the engine's: it is loaded first and gone before the others come, so the
two never share the device. A file that lacks a weight, or has one too many, doesn't load.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import diffusers
import torch
import transformers
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinInpaintPipeline,
    Flux2Transformer2DModel,
)
from safetensors.torch import load as read_tensors
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from nanoswap.pipelines.klein import PROMPT, SIZE, KleinEngine

DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""The weights are published in bfloat16."""

# `scheduler/scheduler_config.json` of black-forest-labs/FLUX.2-klein-4B at e7b7dc2 (SHA-256 067afb01...); what is not
# here is diffusers' default there too.
_SCHEDULE: Final = {"num_train_timesteps": 1000, "shift": 3.0, "use_dynamic_shifting": True}
# What Qwen3's chat template makes of one message when it is to be answered without thinking. Its end is an expression,
# because a template's own last line break is dropped.
_CHAT: Final = (
    "<|im_start|>user\n{{ messages[0].content }}<|im_end|>\n<|im_start|>assistant\n{{ '<think>\n\n</think>\n\n' }}"
)
_PAD: Final = "<|endoftext|>"  # `tokenizer/special_tokens_map.json` of Qwen3


def load_klein(name: str, files: Mapping[str, bytes], *, device: str, dtype: str, size: int = SIZE) -> KleinEngine:
    """The engine, after one run. dtype: one of `DTYPES`; size: see `KleinEngine`.

    files, by the folder of the repository in which they lie:
        transformer, transformer_config    diffusion_pytorch_model.safetensors, config.json
        vae, vae_config                    the same
        text_encoder, text_encoder_rest    model-00001-of-00002.safetensors and -00002-; the second may be missing where
                                           the first holds everything
        text_encoder_config                config.json
        tokenizer                          tokenizer.json

    Raises `KeyError` for a file or a dtype that is missing, and whatever diffusers, transformers, torch and json raise
    for files that are not what they should be.
    """
    kind = DTYPES[dtype]
    # They tell the operator's log about libraries that are not needed here.
    for library in (diffusers, transformers):
        said: Any = library.utils.logging
        said.set_verbosity_error()
        said.disable_progress_bar()
    prompt = _prompt(files, device, kind)
    pipeline: Any = Flux2KleinInpaintPipeline(  # type: ignore[no-untyped-call]
        scheduler=FlowMatchEulerDiscreteScheduler(**_SCHEDULE),  # type: ignore[no-untyped-call]
        vae=_network(AutoencoderKLFlux2, files["vae"], files["vae_config"]).to(device, kind),
        text_encoder=None,
        tokenizer=None,
        transformer=_network(Flux2Transformer2DModel, files["transformer"], files["transformer_config"]).to(
            device, kind
        ),
        is_distilled=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    engine = KleinEngine(name, pipeline, prompt, size=size)
    engine.warm_up()
    return engine


@torch.no_grad()
def _prompt(files: Mapping[str, bytes], device: str, kind: torch.dtype) -> Tensor:
    """What the text encoder makes of `PROMPT`, (1, 512, 3 D)."""
    pipeline: Any = Flux2KleinInpaintPipeline(  # type: ignore[no-untyped-call]
        scheduler=None,
        vae=None,
        text_encoder=_text_encoder(files, kind).to(device).eval(),
        tokenizer=_tokenizer(files["tokenizer"]),
        transformer=None,
    )
    prompt: Tensor = pipeline.encode_prompt(PROMPT, device=torch.device(device))[0]
    return prompt


def _network(kind: Any, weights: bytes, config: bytes) -> Any:
    with torch.device("meta"):
        network = kind.from_config(_object(config))
    network.load_state_dict(read_tensors(weights), strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _text_encoder(files: Mapping[str, bytes], kind: torch.dtype) -> Any:
    tensors = read_tensors(files["text_encoder"])
    if "text_encoder_rest" in files:
        tensors |= read_tensors(files["text_encoder_rest"])
    made: Any = Qwen3ForCausalLM.from_pretrained(
        None,
        config=Qwen3Config.from_dict(_object(files["text_encoder_config"])),
        state_dict=tensors,
        # Not by `to`, which would round the angles of its positions as well.
        dtype=kind,
        output_loading_info=True,
    )
    encoder, said = made
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if said[what]:
            raise ValueError(f"the text encoder's files have {what.replace('_', ' ')}: {min(map(str, said[what]))}")
    return encoder


def _tokenizer(data: bytes) -> Any:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(data.decode()), pad_token=_PAD, chat_template=_CHAT
    )


def _object(data: bytes) -> dict[str, Any]:
    config = json.loads(data)
    if not isinstance(config, dict):
        raise ValueError("a configuration is not an object")
    return config
