"""One step of diffusion for many faces at once, each at its own step, with its own identity and its own noise.

A row of the batch is one face, and nothing crosses between rows: the IdentityNet and the attention of the UNet read
that row's tokens and no others. (diffusers' own pipeline repeats the tokens of the first picture over the batch, so
that two people's pictures made together get each other's faces: huggingface/diffusers#9813.) What is the same at each
step of a face (its tokens, what the IdentityNet's first layers make of its points, the prompt) is made once.

The steps are Euler's (Karras et al. 2022, arXiv 2206.00364, without added noise) over diffusers' own list of sigmas.
Outside the mask the crop with as much noise as the step leaves takes the place of what the network made, as in
diffusers' inpainting with a UNet of four channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import torch
from diffusers import EulerDiscreteScheduler
from torch import Tensor, nn
from torch import _dynamo as dynamo

from nanoswap.pipelines.recipe import Recipe

CELL: Final = 8  # px of the picture along the side of one latent
# SDXL's own noise: `scheduler/scheduler_config.json` of stabilityai/stable-diffusion-xl-base-1.0.
_NOISE: Final = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
_COMPILED: Final = (1, 2, 4, 8, 16, 32, 64)  # batches that compiled networks are given; others are filled up


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """unet, identity_net  diffusers' networks, the UNet with its attention to face tokens in place.
    prompt        (R, 77, D): without the prompt and with it where the recipe is guided (R = 2), else with it (R = 1).
    pooled        (R, P)
    """

    unet: Any
    identity_net: Any
    prompt: Tensor
    pooled: Tensor


@dataclass(frozen=True, slots=True)
class Schedule:
    """timesteps, one per step that is run, and sigmas, one more: the last is 0."""

    timesteps: tuple[float, ...]
    sigmas: tuple[float, ...]
    pure: float | None
    """What the noise is multiplied with where the crop is forgotten, at strength 1; below that None."""

    @classmethod
    def of(cls, recipe: Recipe) -> Schedule:
        euler: Any = EulerDiscreteScheduler
        scheduler = euler(timestep_spacing=recipe.spacing, **_NOISE)
        scheduler.set_timesteps(recipe.steps)
        skipped = recipe.steps - recipe.run
        timesteps = tuple(float(step) for step in scheduler.timesteps[skipped:])
        sigmas = tuple(float(sigma) for sigma in scheduler.sigmas[skipped:])
        return cls(timesteps, sigmas, float(scheduler.init_noise_sigma) if recipe.strength == 1 else None)

    def begun(self, original: Tensor, noise: Tensor) -> Tensor:
        """The latents before the first step."""
        return original + noise * self.sigmas[0] if self.pure is None else noise * self.pure


class Denoising:
    """One face on its way. Implements `Job` of `StepBatcher`.

    latents, original, noise  float32 (1, 4, s, s): as they are now, of the crop, and of the seed; s = size / 8.
    mask      float32 (1, 1, s, s), 1 where the face is made anew.
    hint      (1, C, s, s): what the IdentityNet's first layers make of the keypoint picture.
    tokens    of each adapter, (R, 1, n, D). The first adapter's are also the IdentityNet's.
    """

    __slots__ = ("bucket", "hint", "index", "latents", "mask", "noise", "original", "schedule", "tokens")

    def __init__(
        self, original: Tensor, noise: Tensor, mask: Tensor, hint: Tensor, tokens: Sequence[Tensor], schedule: Schedule
    ) -> None:
        self.original, self.noise, self.mask, self.hint, self.tokens = original, noise, mask, hint, tuple(tokens)
        self.schedule, self.index = schedule, 0
        self.bucket = int(original.shape[-1]) * CELL
        self.latents = schedule.begun(original, noise)

    @property
    def done(self) -> bool:
        return self.index == len(self.schedule.timesteps)

    def wipe(self) -> None:
        """Overwrite all that is of this face. Idempotent."""
        wipe((self.original, self.noise, self.mask, self.hint, self.latents, *self.tokens))


@torch.inference_mode()
def wipe(tensors: Iterable[Tensor]) -> None:
    """Overwrite them with zeros."""
    for each in tensors:
        each.zero_()


class Denoiser:
    """Takes `parts` over: they belong to this now.

    compiler  torch's backend that compiles what runs at every step (`inductor`); None leaves it as it is.
    rows      the sizes of batches that compiled networks are given; none when they aren't compiled.
    """

    def __init__(self, parts: Parts, recipe: Recipe, *, device: str, dtype: torch.dtype, compiler: Any = None) -> None:
        self.recipe, self.schedule = recipe, Schedule.of(recipe)
        self._parts, self._device, self._dtype = parts, torch.device(device), dtype
        # Once per face and not once per step.
        self._first_layers = parts.identity_net.controlnet_cond_embedding
        parts.identity_net.controlnet_cond_embedding = nn.Identity()
        self.rows = () if compiler is None else _COMPILED
        if compiler is not None:
            # A graph for each network, size and number of rows. torch gives up after eight, and counts all networks and
            # engines together, because diffusers wraps their forwards in one function.
            settings: Any = dynamo.config
            settings.recompile_limit += 2 * len(_COMPILED) * len(recipe.sizes)
            settings.accumulated_recompile_limit += 2 * len(_COMPILED) * len(recipe.sizes)
            for network in (parts.unet, parts.identity_net):
                network.compile(fullgraph=True, dynamic=False, backend=compiler)

    def warm_rows(self, most: int) -> list[int]:
        """Sizes of batches that a step of up to `most` jobs may come to, and that are to be made once before."""
        return [*(rows for rows in self.rows if rows < most), self._enough(most)]

    @torch.inference_mode()
    def begin(self, original: Tensor, mask: Tensor, picture: Tensor, tokens: Sequence[Tensor], seed: int) -> Denoising:
        """original: float32 (1, 4, s, s), the crop's latents; mask: float32 (1, 1, s, s), 0 or 1; picture: the keypoint
        picture, float32 (1, 3, 8 s, 8 s), 0..1; tokens: see `Denoising`, which takes them over."""
        # On the processor, so that a seed means the same picture on every machine.
        noise = torch.randn(original.shape, generator=torch.Generator().manual_seed(seed)).to(self._device)
        hint = self._first_layers(picture.to(self._device, self._dtype))
        return Denoising(original, noise, mask, hint, tokens, self.schedule)

    @torch.inference_mode()
    def step(self, jobs: Sequence[Denoising]) -> None:
        """Take every job, all of one size, one step further; none when it raises."""
        filled = self._filled(jobs)
        now, then = (
            torch.tensor([[[[job.schedule.sigmas[job.index + more]]]] for job in filled], device=self._device)
            for more in (0, 1)
        )
        timesteps = torch.tensor([job.schedule.timesteps[job.index] for job in filled], device=self._device)
        latents, original, noise, mask = (
            torch.cat([getattr(job, name) for job in filled]) for name in ("latents", "original", "noise", "mask")
        )
        made = latents + (then - now) * self._predict(filled, latents / (now**2 + 1).sqrt(), timesteps)
        made = mask * made + (1 - mask) * (original + then * noise)
        if self._device.type == "cuda":
            # Steps are not queued up on the device: whoever comes joins at the next one.
            torch.cuda.current_stream(self._device).synchronize()
        for job, row in zip(jobs, torch.split(made, 1), strict=False):
            job.latents.zero_()
            job.latents, job.index = row, job.index + 1

    def _predict(self, jobs: Sequence[Denoising], latents: Tensor, timesteps: Tensor) -> Tensor:
        """The noise that the network sees, float32 (B, 4, s, s)."""
        parts, count, guided = self._parts, len(jobs), self.recipe.guided
        times = 2 if guided else 1
        tokens = [
            torch.stack(rows, 1).flatten(0, 1) for rows in zip(*(job.tokens for job in jobs), strict=True)
        ]  # without the prompt first, as everything that is guided
        side = jobs[0].bucket
        size = torch.tensor([side, side, 0, 0, side, side], device=self._device, dtype=self._dtype)
        sample = torch.cat([latents.to(self._dtype)] * times)
        steps = torch.cat([timesteps] * times)
        told = {
            "text_embeds": parts.pooled.repeat_interleave(count, 0),
            "time_ids": size.expand(count * times, -1),
        }
        down, middle = parts.identity_net(
            sample,
            steps,
            encoder_hidden_states=tokens[0][:, 0],
            controlnet_cond=torch.cat([job.hint for job in jobs] * times),
            conditioning_scale=self.recipe.net_scale,
            added_cond_kwargs=told,
            return_dict=False,
        )
        seen: Tensor
        (seen,) = parts.unet(
            sample,
            steps,
            encoder_hidden_states=parts.prompt.repeat_interleave(count, 0),
            added_cond_kwargs={**told, "image_embeds": tokens},
            down_block_additional_residuals=down,
            mid_block_additional_residual=middle,
            return_dict=False,
        )
        seen = seen.float()
        if guided:
            without, with_prompt = seen.chunk(2)
            seen = without + self.recipe.guidance * (with_prompt - without)
        return seen

    def _filled(self, jobs: Sequence[Denoising]) -> list[Denoising]:
        """Compiled networks know some sizes of batches; the first job's own row fills up what is missing."""
        return [*jobs, *[jobs[0]] * (self._enough(len(jobs)) - len(jobs))]

    def _enough(self, count: int) -> int:
        return next((rows for rows in self.rows if rows >= count), count)
