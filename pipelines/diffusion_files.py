"""Networks of diffusers and transformers out of files that the store has hashed: bytes, no folders, nothing fetched.

Weights go into networks that are made without any, so no memory is spent on a random start; and a file that lacks a
weight, or has one too many, doesn't load.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import diffusers
import torch
import transformers
from safetensors.torch import load


def quiet() -> None:
    """diffusers and transformers tell the operator's log about libraries that are not needed here."""
    for library in (diffusers, transformers):
        said: Any = library.utils.logging
        said.set_verbosity_error()
        said.disable_progress_bar()


def network(kind: Any, weights: bytes, config: bytes) -> Any:
    """One of diffusers' networks: of its class, its safetensors file and its `config.json`; to be moved to its device
    and dtype. Raises what torch, safetensors and json raise for files that are not what they should be."""
    with torch.device("meta"):
        made = kind.from_config(settings(config))
    tensors = load(weights)
    made._fix_state_dict_keys_on_load(tensors)  # names of older files, as `from_pretrained` does
    made.load_state_dict(tensors, strict=True, assign=True)
    return made.eval().requires_grad_(False)


def encoder(kind: Any, config_kind: Any, weights: Iterable[bytes], config: bytes, dtype: torch.dtype) -> Any:
    """One of transformers' encoders, of one safetensors file or several, in `dtype` but for what must stay finer.
    It renames what older versions called otherwise. Raises also `ValueError`."""
    tensors: dict[str, torch.Tensor] = {}
    for data in weights:
        tensors |= load(data)
    for old in ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"):
        tensors.pop(old, None)  # of files of before transformers 4.31
    made, said = kind.from_pretrained(
        None,
        config=config_kind.from_dict(settings(config)),
        state_dict=tensors,
        # Not by `to`, which would round what must stay finer (the angles of positions) as well.
        dtype=dtype,
        output_loading_info=True,
    )
    for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if said[what]:
            raise ValueError(f"an encoder's file has {what.replace('_', ' ')}: {min(map(str, said[what]))}")
    return made.eval().requires_grad_(False)


def settings(data: bytes) -> dict[str, Any]:
    """A JSON object. Raises `ValueError` for anything else."""
    config = json.loads(data)
    if not isinstance(config, dict):
        raise ValueError("a configuration is not an object")
    return config
