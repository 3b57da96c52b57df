"""The target's own look as a reference: IP-Adapter's plus-face adapter (arXiv 2308.06721) sees the crop to be swapped.

Whose face it is to be, other adapters say. This one is shown what was there, so that light, hair and the mood of the
picture are not made up: CLIP's vision tower looks at the crop, and a resampler makes sixteen tokens of what it saw.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import torch
from torch import Tensor

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.latents import to_tensor

# OpenAI CLIP's means and deviations, `preprocessor_config.json` of CLIP-ViT-H-14-laion2B-s32B-b79K.
_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION: Final = (0.26862954, 0.26130258, 0.27577711)


class Reference:
    """encoder    transformers' `CLIPVisionModelWithProjection`.
    resampler  diffusers' `IPAdapterPlusImageProjection`, (N, L, W) to (N, n, D).
    guided     the tokens come behind those of a black picture, as diffusers makes them.
    """

    def __init__(self, encoder: Any, resampler: Any, *, guided: bool) -> None:
        self._encoder, self._resampler, self._guided = encoder, resampler, guided
        self._side = int(encoder.config.image_size)

    @torch.inference_mode()
    def __call__(self, crop: Rgb) -> Tensor:
        """(R, 1, n, D), the caller's to wipe. crop: uint8 (S, S, 3)."""
        small = np.asarray(cv2.resize(crop, (self._side, self._side), interpolation=cv2.INTER_CUBIC), np.uint8)
        pixels = to_tensor(small, self._encoder.device)
        small.fill(0)
        for channel, (mean, deviation) in enumerate(zip(_MEAN, _DEVIATION, strict=True)):
            pixels[:, channel].sub_(mean).div_(deviation)
        both = torch.cat([torch.zeros_like(pixels), pixels]) if self._guided else pixels
        try:
            # What goes into the last block, not what comes out of it: so the adapter was trained.
            seen: Tensor = self._encoder(both.to(self._encoder.dtype), output_hidden_states=True).hidden_states[-2]
            tokens: Tensor = self._resampler(seen)
            seen.zero_()
            return tokens[:, None]
        finally:
            pixels.zero_()
            both.zero_()
