"""PuLID as a second identity adapter for SDXL: from a face to tokens that its attention reads (arXiv 2404.16022, v1.1).

Whose face it is comes from ArcFace, as with InstantID; what it looks like comes from EVA, which is shown the face
alone, grey on white, so that neither colours nor background are learned with it. Steps and constants are those of
`pulid/pipeline_v1_1.py` of ToTheBeginning/PuLID. What finds and parses faces is not: there it is facexlib's RetinaFace
and BiSeNet, here whatever gives five points and the same labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load as read_tensors
from torch import Tensor
from torch.nn import functional

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.eva_vision import EvaVision
from nanoswap.pipelines.face import Floats
from nanoswap.pipelines.face_attention import Adapter
from nanoswap.pipelines.id_former import ROUNDS, IdFormer

# What isn't the face: background, ears and what hangs from them, neck and what hangs from it, cloth, hat. Hair and
# glasses stay. See `parser.LABELS`.
_WHITE: Final = (0, 7, 8, 9, 14, 15, 16, 18)
_GREY: Final = (0.299, 0.587, 0.114)
# CLIP's, RGB: `OPENAI_DATASET_MEAN` and `_STD`.
_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_STD: Final = (0.26862954, 0.26130258, 0.27577711)
_FORMER: Final = "id_adapter."
_ATTENTION: Final = "id_adapter_attn_layers."


class Pulid:
    """Thread safe. `adapter` is what `face_attention.install` takes: PuLID's attention, ortho v2.

    zeros: tokens of nothing behind the 32, which a place may look at instead of at the face; v1.1's demo has 20 with
    ordinary checkpoints and 10 with distilled ones. `adapter.scale`: the demo has 0.8, alone; beside another adapter
    less is enough.
    """

    def __init__(self, former: IdFormer, eva: EvaVision, adapter: Adapter, *, zeros: int) -> None:
        """Raises `ValueError` where the two networks don't go together. Both are on one device and in one dtype."""
        if former.sizes.seen != eva.sizes.dim or former.sizes.identity <= eva.sizes.out:
            raise ValueError(
                f"the tower sees {eva.sizes.dim} and says {eva.sizes.out}, and {former.sizes.seen} and less than "
                f"{former.sizes.identity} are read"
            )
        self.adapter = adapter
        self._former, self._eva, self._zeros = former, eva, zeros
        with torch.inference_mode():
            like = former.latents
            seen = like.new_zeros(1, 1 + eva.sizes.row**2, eva.sizes.dim)
            self._nothing = self._made(like.new_zeros(1, former.sizes.identity), [seen] * ROUNDS)

    @classmethod
    def load(
        cls, pulid: bytes, eva: bytes, *, device: str, dtype: torch.dtype, zeros: int = 20, scale: float = 0.8
    ) -> Pulid:
        """pulid: `pulid_v1.1.safetensors`; eva: timm's `eva02_large_patch14_clip_336`, safetensors.

        Raises what safetensors raises for bytes that are no such file, and `ValueError`, `KeyError` or `RuntimeError`
        for files of other networks.
        """
        tensors = {key: value.to(device, dtype) for key, value in read_tensors(pulid).items()}
        former, attention = _under(tensors, _FORMER), _under(tensors, _ATTENTION)
        if len(former) + len(attention) != len(tensors):
            raise ValueError("a file of PuLID's has weights of something else")
        tower = {key: value.to(device, dtype) for key, value in read_tensors(eva).items()}
        adapter = Adapter(attention, scale, ortho=True)
        return cls(IdFormer.load(former), EvaVision.load(tower), adapter, zeros=zeros)

    def nothing(self) -> Tensor:
        """(1, 1, 32 + zeros, D): what is read for nobody, the caller's own."""
        return self._nothing.clone()

    @torch.inference_mode()
    def tokens(self, embedding: Floats, face: Rgb, seen: npt.NDArray[np.uint8]) -> Tensor:
        """The same for somebody, the caller's to wipe.

        embedding  float32 (512,), as ArcFace gives it, not of unit length.
        face       uint8 (512, 512, 3), RGB, aligned as `align.FFHQ`.
        seen       uint8 (512, 512), the same pixels' `parser.LABELS`.

        Raises `ValueError` for other shapes. The networks' own working memory isn't wiped.
        """
        whose = self._former.sizes.identity - self._eva.sizes.out
        if embedding.shape != (whose,) or face.shape != (*seen.shape, 3):
            raise ValueError(f"an identity of {embedding.shape}, a face of {face.shape}, labels of {seen.shape}")
        like = self._former.latents
        made: list[Tensor] = []
        try:
            made.append(grey_on_white(face, seen))
            made.append(made[-1].to(like.device))
            made.append(shown_to_eva(made[-1], self._eva.sizes.side))
            made.append(made[-1].to(like.dtype))
            entered, looks = self._eva(made[-1])
            made += [*entered, looks]
            made.append(looks.float())
            made.append(functional.normalize(made[-1], dim=-1))
            made.append(torch.tensor(embedding, device=like.device)[None])
            made.append(torch.cat([made[-1], made[-2]], -1))
            made.append(made[-1].to(like.dtype))
            return self._made(made[-1], entered)
        finally:
            for each in made:
                each.zero_()

    def _made(self, identity: Tensor, entered: list[Tensor]) -> Tensor:
        tokens = self._former(identity, entered)
        padded = functional.pad(tokens, (0, 0, 0, self._zeros))[:, None]
        tokens.zero_()
        return padded


def grey_on_white(face: Rgb, seen: npt.NDArray[np.uint8]) -> Tensor:
    """float32 (1, 3, S, S), 0..1: the face without colours, and nothing that is not face."""
    pixels = torch.from_numpy(face.astype(np.float32)).div_(255)
    white = torch.from_numpy(np.isin(seen, _WHITE))
    grey = (pixels @ torch.tensor(_GREY)).masked_fill_(white, 1)
    picture = grey.expand(1, 3, -1, -1).contiguous()
    for each in (pixels, white, grey):
        each.zero_()
    return picture


def shown_to_eva(picture: Tensor, side: int) -> Tensor:
    """(1, 3, side, side), as EVA takes it."""
    # Not smoothed before: PuLID pins torchvision 0.15, which didn't do so to tensors unless asked.
    smaller = functional.interpolate(picture, (side, side), mode="bicubic", align_corners=False)
    mean, std = (picture.new_tensor(each)[:, None, None] for each in (_MEAN, _STD))
    return smaller.sub_(mean).div_(std)


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
