"""What a file of weights can be to an engine, and what an engine of each kind can't do without."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

Role = Literal[
    "detector",
    "encoder",
    "landmarks",
    "swapper",
    "occluder",
    "enhancer",
    "features",
    # What a diffusion network is made of, and how large each part is (the JSON beside it).
    "unet",
    "unet_config",
    "vae",
    "vae_config",
    "text_encoder",
    "text_encoder_config",
    "text_encoder_2",
    "text_encoder_2_config",
    "vocabulary",
    "merges",
    # InstantID: the network that sees where the face's points are, and the tokens of whose face it is to be.
    "identity_net",
    "identity_net_config",
    "face_adapter",
    # PuLID: other tokens of the same face, from a picture of it.
    "second_adapter",
    "vision",
    "parser",
    # IP-Adapter: tokens of what the target looks like.
    "reference_adapter",
    "image_encoder",
    "image_encoder_config",
    # FLUX.2 klein.
    "transformer",
    "transformer_config",
    "text_encoder_rest",
    "tokenizer",
    # The safety gate: whether a picture is intimate, and how old a face looks.
    "content",
    "age",
]
Kind = Literal["mesh", "neural", "instantid", "klein"]

_SDXL: Final = ("unet", "vae", "text_encoder", "text_encoder_2", "identity_net")
_KLEIN: Final = ("transformer", "vae", "text_encoder")
#: The roles that the safety gate can't do without; only it has a use for them, and each may be had several times.
GATE: Final[frozenset[Role]] = frozenset({"content", "age"})
#: The roles that an engine of a kind can't do without.
NEEDED: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "mesh": frozenset(),
        "neural": frozenset({"detector", "encoder", "swapper"}),
        "klein": frozenset({"tokenizer"} | {name for part in _KLEIN for name in (part, f"{part}_config")}),
        "instantid": frozenset({"detector", "encoder", "vocabulary", "merges", "face_adapter"})
        | {name for part in _SDXL for name in (part, f"{part}_config")},
    }
)
#: The roles that it may have besides.
USABLE: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "mesh": frozenset(),
        "neural": frozenset({"landmarks", "occluder", "enhancer"}),
        "klein": frozenset({"text_encoder_rest"}),
        "instantid": frozenset({"landmarks", "occluder", "second_adapter", "vision", "parser"})
        | {"reference_adapter", "image_encoder", "image_encoder_config"},
    }
)
#: Roles of which an engine needs all or none, by the scale of its recipe that is above 0 if it does.
TOGETHER: Final[Mapping[str, frozenset[str]]] = MappingProxyType(
    {
        "second_scale": frozenset({"second_adapter", "vision", "parser"}),
        "reference_scale": frozenset({"reference_adapter", "image_encoder", "image_encoder_config"}),
    }
)
