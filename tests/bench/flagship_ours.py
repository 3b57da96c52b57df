"""The flagship as it is served, with networks of random weights and noise in the place of pictures: what the GPU bench
times and counts. It is made of the service's own `Denoiser` and `Autoencoder`, and does without OpenCV but for
`engine`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.denoiser import CELL, Denoiser, Denoising, Parts
from nanoswap.pipelines.engine import Request, Rgb
from nanoswap.pipelines.latents import Autoencoder, to_tensor
from nanoswap.pipelines.recipe import Recipe
from nanoswap.pipelines.runtime import Runtime
from nanoswap.pipelines.style import Style
from tests.bench.flagship_parts import DTYPE, TAKES, Plan, build, prompts, scale

RUNTIME = Runtime()


@dataclass(frozen=True, slots=True)
class Lane:
    """A recipe at one size; all of its steps are run. compiled: by torch or not at all."""

    size: int
    steps: int
    guided: bool
    compiled: bool

    @property
    def recipe(self) -> Recipe:
        if self.guided:
            return Recipe(steps=self.steps, sizes=(self.size,), spacing="leading", guidance=5.0)
        return Recipe(steps=self.steps, sizes=(self.size,))

    def __str__(self) -> str:
        how = "guided" if self.guided else "unguided"
        return f"{self.size} px, {self.steps} steps, {how}, {'compiled' if self.compiled else 'eager'}"


@dataclass(frozen=True, slots=True)
class Flop:
    """Floating-point operations of one picture's step, and of the autoencoder there and back; of torch's counter."""

    step: int
    encode: int
    decode: int

    def picture(self, recipe: Recipe) -> int:
        return self.encode + recipe.run * (2 if recipe.guided else 1) * self.step + self.decode


class Ours:
    """The service's parts, fed with noise. compiler: torch's backend for lanes that are compiled."""

    def __init__(self, plan: Plan, device: str, compiler: str = "") -> None:
        self._plan, self._device, self._compiler = plan, device, compiler
        self.nets = build(plan, device)
        (self.resampler,) = self.nets.unet.encoder_hid_proj.image_projection_layers
        # As `load_parts` leaves the UNet: tokens are made once per face.
        self.nets.unet.encoder_hid_proj = nn.Identity()
        self._first_layers = self.nets.identity_net.controlnet_cond_embedding
        self.autoencoder = Autoencoder(self.nets.vae)
        self._denoisers: dict[Lane, Denoiser] = {}

    def denoiser(self, lane: Lane) -> Denoiser:
        """All lanes share the networks. Those that were compiled once stay so: eager lanes come first."""
        if lane not in self._denoisers:
            self._denoisers[lane] = self._made(lane)
        return self._denoisers[lane]

    def _made(self, lane: Lane) -> Denoiser:
        recipe, nets = lane.recipe, self.nets
        nets.identity_net.controlnet_cond_embedding = self._first_layers
        scale(nets.unet, recipe)
        prompt, pooled = prompts(self._plan, 2 if recipe.guided else 1, self._device)
        parts = Parts(nets.unet, nets.identity_net, prompt, pooled)
        compiler = self._compiler if lane.compiled else None
        return Denoiser(parts, recipe, device=self._device, dtype=DTYPE, compiler=compiler)

    @torch.inference_mode()
    def tokens(self, seed: int, guided: bool) -> Tensor:
        """As `Identity` makes them, which needs OpenCV."""
        row = torch.randn(TAKES, generator=torch.Generator().manual_seed(seed))
        both = torch.stack([torch.zeros_like(row), row] if guided else [row])[:, None]
        made: Tensor = self.resampler(both.to(self._device, DTYPE))
        return made[:, None]

    def begin(self, denoiser: Denoiser, seed: int) -> Denoising:
        """A picture's work up to its first step."""
        recipe = denoiser.recipe
        crop, mask, points = noise(recipe.sizes[0])
        original = self.autoencoder.encode(crop)
        cells = to_tensor(mask[::CELL, ::CELL, None], self._device)
        hint = to_tensor(points, self._device)
        return denoiser.begin(original, cells, hint, [self.tokens(seed, recipe.guided)], seed)


@cache
def noise(size: int) -> tuple[Rgb, np.ndarray, Rgb]:
    """A crop, what of it is made anew (its middle), and in the place of the keypoint picture some points."""
    rng = np.random.default_rng(0)
    crop = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    mask = np.zeros((size, size), np.uint8)
    mask[size // 4 : size * 3 // 4, size // 4 : size * 3 // 4] = 255
    return crop, mask, np.where(rng.random((size, size, 3)) > 0.95, 255, 0).astype(np.uint8)


def flop(plan: Plan, sizes: Sequence[int]) -> dict[int, Flop]:
    ours = Ours(plan, "meta")
    return {size: count(ours, size) for size in sizes}


def count(ours: Ours, size: int) -> Flop:
    """On networks of shapes alone, for a batch of one without guidance."""

    def counted(call: Callable[[], object]) -> int:
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            call()
        return int(counter.get_total_flops())

    denoiser, vae = ours.denoiser(Lane(size, 1, guided=False, compiled=False)), ours.nets.vae
    job = ours.begin(denoiser, 0)
    pixels = torch.empty(1, 3, size, size, device="meta", dtype=DTYPE)
    return Flop(
        counted(lambda: denoiser.step([job])),
        counted(lambda: vae.encode(pixels)),
        counted(lambda: vae.decode(job.latents.to(DTYPE))),
    )


def engine(ours: Ours, denoiser: Denoiser) -> Callable[[int], None]:
    """A swap by the service's engine, of a face that fills a picture of the crop's size. Raises `ImportError` where
    what finds faces isn't there: it isn't asked, but the engine's module needs it."""
    from nanoswap.pipelines.face import Face
    from nanoswap.pipelines.identity import Identity
    from nanoswap.pipelines.instantid import POINTS, IdentitySource, InstantIdEngine
    from nanoswap.pipelines.instantid import Networks as Whole

    size, nobody = denoiser.recipe.sizes[0], cast(Any, None)
    identity = Identity(ours.resampler, guided=denoiser.recipe.guided)
    whole = Whole(detector=nobody, encoder=nobody, identity=identity, autoencoder=ours.autoencoder, denoiser=denoiser)
    made = InstantIdEngine("flagship", whole, Style(), step_batch=RUNTIME.step_batch, admitted=RUNTIME.admitted)
    box, points = np.array([0, 0, size, size], np.float32), POINTS * np.float32(size)
    face = Face(box=box, points=points, score=1.0, frame=(size, size))

    def swap(seed: int) -> None:
        rgb = noise(size)[0].copy()
        embedding = np.random.default_rng(seed).standard_normal(TAKES).astype(np.float32)
        source = IdentitySource(identity(embedding, rgb, face))
        made.swap([(rgb, face)], source, Request(CancelToken(), seed))
        source.wipe()

    return swap
