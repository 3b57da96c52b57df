"""The target's look as tokens: what diffusers' own pipeline makes of the same picture, and whose crop it is."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

if os.environ.get("NANOSWAP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="torch isn't installed, and engines of diffusion are optional")

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.models.embeddings import IPAdapterPlusImageProjection

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.engine import Request
from nanoswap.pipelines.reference import Reference
from tests.clips import portrait
from tests.pipelines.test_instantid import apart, load
from tests.stand_ins import diffusion

pytestmark = pytest.mark.filterwarnings("ignore:.estimate. is deprecated:FutureWarning")


def resampler() -> Any:
    unet = type(diffusion.unet()).from_config(diffusion.unet().config)
    unet.load_state_dict(diffusion.unet().state_dict())
    unet._load_ip_adapter_weights([diffusion.face_adapter(diffusion.SEEN, 9)], low_cpu_mem_usage=False)
    (made,) = unet.encoder_hid_proj.image_projection_layers
    assert isinstance(made, IPAdapterPlusImageProjection)
    return made


@pytest.mark.parametrize("guided", [False, True])
def test_tokens_are_those_of_diffusers(guided: bool) -> None:
    torch.set_num_threads(1)
    crop = np.ascontiguousarray(portrait("astronaut")[40:264, 110:334])
    encoder, project = diffusion.image_encoder(), resampler()
    ours = Reference(encoder, project, guided=guided)(crop)

    class Hands(StableDiffusionXLPipeline):
        def __init__(self) -> None:
            self.image_encoder = encoder

    class Pixels:
        """As CLIP's processor, on a picture that has its size."""

        def __call__(self, picture: np.ndarray, return_tensors: str) -> Any:
            mean, deviation = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
            values = (picture / 255 - mean) / deviation
            return type("Batch", (), {"pixel_values": torch.tensor(values.transpose(2, 0, 1)[None]).float()})

    pipe: Any = Hands()
    pipe.feature_extractor = Pixels()
    import cv2

    small = cv2.resize(crop, (56, 56), interpolation=cv2.INTER_CUBIC)
    with torch.inference_mode():
        seen, nothing = pipe.encode_image(small, torch.device("cpu"), 1, output_hidden_states=True)
        rows = [project(nothing), project(seen)] if guided else [project(seen)]
    assert ours.shape == (len(rows), 1, 16, diffusion.CROSS)
    assert float((ours[:, 0] - torch.cat(rows)).abs().max()) < 1e-5
    other = Reference(encoder, project, guided=guided)(crop[::-1].copy())
    assert float((other[-1] - ours[-1]).abs().max()) > 1e-3


def test_reference_is_the_crop_that_is_swapped_and_is_wiped(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = load(models, "instantid-reference")
    seen: list[np.ndarray] = []
    jobs: list[Any] = []
    reference = engine._nets.reference
    begin = engine._nets.denoiser.begin

    def look(crop: np.ndarray) -> Any:
        seen.append(crop.copy())
        return reference(crop)

    def kept(*args: Any) -> Any:
        jobs.append(begin(*args))
        assert [tuple(each.shape[1:3]) for each in jobs[-1].tokens] == [(1, 16), (1, 16)]
        return jobs[-1]

    monkeypatch.setattr(engine, "_nets", replace(engine._nets, reference=look))
    monkeypatch.setattr(engine._nets.denoiser, "begin", kept)
    rgb = portrait("astronaut").copy()
    face = engine.detect(rgb)[0]
    source = engine.prepare(portrait("hopper"), engine.detect(portrait("hopper"))[0])
    engine.swap([(rgb, face)], source, Request(CancelToken()))
    assert seen[0].shape == (128, 128, 3)
    assert not any(bool(each.any()) for each in jobs[0].tokens)
    assert all(bool(each.any()) for each in source.tokens)
    # Without it another picture comes out: it is looked at.
    blind = portrait("astronaut").copy()
    monkeypatch.setattr(engine, "_nets", replace(engine._nets, reference=lambda crop: reference(np.zeros_like(crop))))
    engine.swap([(blind, face)], source, Request(CancelToken()))
    assert apart(blind, rgb) > 0
