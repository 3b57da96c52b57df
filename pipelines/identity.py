"""From what the identity network says of a face to the tokens that the diffusion network reads."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Face, Floats


class Identity:
    """InstantID's adapter. resampler: diffusers' `IPAdapterPlusImageProjection`, on its device and in its dtype: (N, 1,
    512) to (N, 16, D). guided: each face's tokens come with those of nobody, which are made of zeros."""

    def __init__(self, resampler: Any, *, guided: bool) -> None:
        self._resampler, self._guided = resampler, guided
        self._like = next(resampler.parameters())

    def __call__(self, embedding: Floats, rgb: Rgb, face: Face) -> list[Tensor]:
        """For each adapter (R, 1, n, D), the caller's to wipe. embedding: float32 (512,) of `face` of `rgb`, as the
        network gives it: InstantID was trained on it before it is brought to unit length."""
        row = torch.from_numpy(embedding.copy())[None, None]
        return self._tokens(row)

    def nobody(self) -> list[Tensor]:
        """Tokens of the same shapes, of no face."""
        return self._tokens(torch.zeros(1, 1, 512))

    @torch.inference_mode()
    def _tokens(self, row: Tensor) -> list[Tensor]:
        both = torch.cat([torch.zeros_like(row), row]) if self._guided else row
        try:
            made: Tensor = self._resampler(both.to(self._like.device, self._like.dtype))
            return [made[:, None]]
        finally:
            row.zero_()
            both.zero_()
