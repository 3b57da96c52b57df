"""From the files of FLUX.2 [klein] 4B to an engine that is warm: diffusers' and transformers' own classes, no folders.

The text encoder is as large as the network that
paints, and needed once, because the prompt is the engine's: it is loaded first and gone before the others come, so the
two never share the device.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import torch
from diffusers import (
    AutoencoderKLFlux2,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinInpaintPipeline,
    Flux2Transformer2DModel,
)
from tokenizers import Tokenizer
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from nanoswap.pipelines.diffusion_files import encoder, network, quiet
from nanoswap.pipelines.klein import PROMPT, SIZE, KleinEngine
from nanoswap.pipelines.roles import Role

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


def load_klein(name: str, files: Mapping[Role, bytes], *, device: str, dtype: str, size: int = SIZE) -> KleinEngine:
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
    quiet()
    prompt = _prompt(files, device, kind)
    pipeline: Any = Flux2KleinInpaintPipeline(  # type: ignore[no-untyped-call]
        scheduler=FlowMatchEulerDiscreteScheduler(**_SCHEDULE),  # type: ignore[no-untyped-call]
        vae=network(AutoencoderKLFlux2, files["vae"], files["vae_config"]).to(device, kind),
        text_encoder=None,
        tokenizer=None,
        transformer=network(Flux2Transformer2DModel, files["transformer"], files["transformer_config"]).to(
            device, kind
        ),
        is_distilled=True,
    )
    pipeline.set_progress_bar_config(disable=True)
    engine = KleinEngine(name, pipeline, prompt, size=size)
    engine.warm()
    return engine


@torch.no_grad()
def _prompt(files: Mapping[Role, bytes], device: str, kind: torch.dtype) -> Tensor:
    """What the text encoder makes of `PROMPT`, (1, 512, 3 D)."""
    shards = [files["text_encoder"], *([files["text_encoder_rest"]] if "text_encoder_rest" in files else [])]
    loaded = encoder(Qwen3ForCausalLM, Qwen3Config, shards, files["text_encoder_config"], kind)
    pipeline: Any = Flux2KleinInpaintPipeline(  # type: ignore[no-untyped-call]
        scheduler=None,
        vae=None,
        text_encoder=loaded.to(device),
        tokenizer=_tokenizer(files["tokenizer"]),
        transformer=None,
    )
    prompt: Tensor = pipeline.encode_prompt(PROMPT, device=torch.device(device))[0]
    return prompt


def _tokenizer(data: bytes) -> Any:
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=Tokenizer.from_str(data.decode()), pad_token=_PAD, chat_template=_CHAT
    )
