"""Between pixels and latents: SDXL's autoencoder, eight pixels a side to one latent."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nanoswap.pipelines.engine import Rgb


class Autoencoder:
    """vae: diffusers' `AutoencoderKL`, on its device and in its dtype. Thread safe; one picture at a time, because what
    it holds while it works is by far the most memory of a swap."""

    def __init__(self, vae: Any) -> None:
        self._vae, self._lock = vae, threading.Lock()

    @torch.inference_mode()
    def encode(self, rgb: Rgb) -> Tensor:
        """uint8 (S, S, 3) to float32 (1, 4, S / 8, S / 8): the mean of what the picture may stand for, scaled to about
        unit variance."""
        pixels = to_tensor(rgb, self._vae.device).mul_(2).sub_(1)
        shown = pixels.to(self._vae.dtype)
        try:
            with self._lock:
                mean: Tensor = self._vae.encode(shown).latent_dist.mode()
            return mean.float() * float(self._vae.config.scaling_factor)
        finally:
            pixels.zero_()
            shown.zero_()

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Rgb:
        """The inverse, a new array."""
        with self._lock:
            made: Tensor = self._vae.decode((latents / self._vae.config.scaling_factor).to(self._vae.dtype)).sample
        fine = made.float()
        pixels = fine.add_(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
        here = pixels.cpu()
        try:
            return np.ascontiguousarray(here[0].permute(1, 2, 0).numpy().copy())
        finally:
            for each in (made, fine, pixels, here):
                each.zero_()


def to_tensor(rgb: Rgb, device: torch.device | str) -> Tensor:
    """uint8 (H, W, 3) to float32 (1, 3, H, W), 0..1, a copy."""
    bytes_ = torch.from_numpy(rgb.transpose(2, 0, 1).copy()).to(device)
    floats = bytes_.float()[None].div_(255)
    bytes_.zero_()
    return floats
