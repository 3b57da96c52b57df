"""From a face to the tokens by which the diffusion network knows whose face it is to make."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor

from nanoswap.pipelines.align import FFHQ, cut, similarity
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Face, Floats
from nanoswap.pipelines.parser import Parser
from nanoswap.pipelines.pulid import Pulid

_SIDE: Final = 512  # px of the picture of a face that PuLID looks at


class Identity:
    """resampler  InstantID's: diffusers' `IPAdapterPlusImageProjection`, on its device and in its dtype; (N, 1, 512) to
               (N, 16, D).
    guided     each face's tokens come behind those of nobody, which are made of zeros.
    pulid, parser  a second adapter, which sees more than who it is; both or neither.
    """

    def __init__(
        self, resampler: Any, *, guided: bool, pulid: Pulid | None = None, parser: Parser | None = None
    ) -> None:
        self._resampler, self._guided = resampler, guided
        self._pulid, self._parser = pulid, parser
        self._like = next(resampler.parameters())

    @torch.inference_mode()
    def __call__(self, embedding: Floats, rgb: Rgb, face: Face) -> list[Tensor]:
        """For each adapter (R, 1, n, D), the caller's to wipe. embedding: float32 (512,) of `face` of `rgb`, as the
        network gives it: both adapters were trained on it before it is brought to unit length."""
        tokens = [self._resampled(torch.from_numpy(embedding.copy()))]
        if self._pulid is not None:
            tokens.append(self._looked_at(self._pulid, embedding, rgb, face))
        return tokens

    @torch.inference_mode()
    def nobody(self) -> list[Tensor]:
        """Tokens of the same shapes, of no face."""
        tokens = [self._resampled(torch.zeros(512))]
        if self._pulid is not None:
            tokens.append(torch.cat([self._pulid.nothing()] * (2 if self._guided else 1)))
        return tokens

    def _resampled(self, row: Tensor) -> Tensor:
        both = torch.stack([torch.zeros_like(row), row] if self._guided else [row])[:, None]
        try:
            made: Tensor = self._resampler(both.to(self._like.device, self._like.dtype))
            return made[:, None]
        finally:
            row.zero_()
            both.zero_()

    def _looked_at(self, pulid: Pulid, embedding: Floats, rgb: Rgb, face: Face) -> Tensor:
        assert self._parser is not None
        crop = cut(rgb, similarity(face.points, FFHQ), _SIDE)
        (seen,) = self._parser([crop])
        try:
            tokens = pulid.tokens(embedding, crop, seen)
            return torch.cat([pulid.nothing(), tokens]) if self._guided else tokens
        finally:
            crop.fill(0)
            seen.fill(0)
