"""Between pixels and latents, against diffusers' own processor of pictures and the network itself."""

import os
import threading
from typing import Any

import numpy as np
import pytest

if os.environ.get("NANOSWAP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="torch isn't installed, and engines of diffusion are optional")

import torch
from diffusers.image_processor import VaeImageProcessor

from nanoswap.pipelines.latents import Autoencoder, to_tensor
from tests.clips import portrait
from tests.stand_ins import diffusion

CROP = np.ascontiguousarray(portrait("astronaut")[40:168, 110:238])


def test_latents_and_pixels_are_those_of_diffusers() -> None:
    vae, ours = diffusion.vae(), Autoencoder(diffusion.vae())
    processor: Any = VaeImageProcessor(vae_scale_factor=8)
    with torch.inference_mode():
        shown = processor.preprocess(CROP[None].astype(np.float32) / 255)
        theirs = vae.encode(shown).latent_dist.mode() * 0.13025
        latents = ours.encode(CROP)
        assert latents.shape == (1, 4, 16, 16)
        assert float((latents - theirs).abs().max()) < 1e-6
        back = vae.decode(theirs / 0.13025).sample
        (expected,) = processor.postprocess(back, output_type="np")
    given = ours.decode(latents)
    assert given.dtype == np.uint8
    assert np.abs(given.astype(float) - expected * 255).max() <= 0.51
    assert given.std() > 1


def test_tensor_of_a_picture_is_a_copy() -> None:
    rgb = CROP.copy()
    tensor = to_tensor(rgb, "cpu")
    assert tensor.shape == (1, 3, 128, 128)
    assert float(tensor[0, 1, 5, 7]) == pytest.approx(rgb[5, 7, 1] / 255)
    tensor.zero_()
    assert np.array_equal(rgb, CROP)


def test_one_picture_at_a_time() -> None:
    class Vae:
        dtype, device = torch.float32, torch.device("cpu")
        config = type("Config", (), {"scaling_factor": 0.5})()
        inside, most = 0, 0

        def decode(self, latents: Any) -> Any:
            self.inside += 1
            self.most = max(self.most, self.inside)
            threading.Event().wait(0.02)
            self.inside -= 1
            return type("Out", (), {"sample": torch.zeros(1, 3, 8, 8)})()

    vae = Vae()
    ours = Autoencoder(vae)
    threads = [threading.Thread(target=ours.decode, args=(torch.zeros(1, 4, 1, 1),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert vae.most == 1
