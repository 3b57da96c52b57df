"""How a picture is made by diffusion: numbers that belong to weights, fixed before the first request.

They stand in the manifest beside the weights that they were found for, and nobody changes them per request: a network
that has been compiled for one scale would be compiled anew for the next.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, get_args

Spacing = Literal["leading", "trailing"]

_CELL: Final = 64  # px: what the crop's side is a multiple of, so that every level of the UNet halves it


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """steps        of the whole schedule, from pure noise to a picture.
    strength      how much of the schedule is run: at 1 the crop is forgotten, below that the picture begins as the crop
                  with noise. `round down(steps x strength)` steps are run, as diffusers counts.
    spacing       of the steps: `trailing` for distilled networks (Lin et al. 2024, arXiv 2305.08891; SDXL-Lightning's
                  card), `leading` as SDXL itself is published.
    guidance      scale of classifier-free guidance (Ho & Salimans 2022); 0 leaves it out and halves the work.
    sizes         sides of the crop in px, ascending, multiples of 64; a face is made in the least that has its pixels.
    net_scale     of what the IdentityNet adds (InstantID's own default is 0.8).
    face_scale    of the attention to the source's tokens.
    second_scale, reference_scale  of the attention to PuLID's tokens and to those of the target's look, where the
                  engine has these adapters.
    prompt, negative  what the text encoders are given, once; negative only matters with guidance.

    Raises `ValueError` for what can't be run.
    """

    steps: int
    sizes: tuple[int, ...]
    strength: float = 1.0
    spacing: Spacing = "trailing"
    guidance: float = 0.0
    net_scale: float = 0.8
    face_scale: float = 0.8
    second_scale: float = 0.0
    reference_scale: float = 0.0
    prompt: str = ""
    negative: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.steps <= 200:
            raise ValueError("steps are from 1 to 200")
        if not 0 < self.strength <= 1 or self.run < 1:
            raise ValueError("strength is above 0 and up to 1, and leaves at least one step")
        if self.spacing not in get_args(Spacing):
            raise ValueError(f"spacing is {' or '.join(get_args(Spacing))}")
        if not self.sizes or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError("sizes are one or more, ascending")
        if any(size < _CELL or size % _CELL or size > 2048 for size in self.sizes):
            raise ValueError(f"sizes are multiples of {_CELL} up to 2048")
        scales = (self.guidance, self.net_scale, self.face_scale, self.second_scale, self.reference_scale)
        if not all(math.isfinite(scale) and 0 <= scale <= 20 for scale in scales):
            raise ValueError("scales are from 0 to 20")

    @property
    def run(self) -> int:
        """Steps that are run for a picture."""
        return min(int(self.steps * self.strength), self.steps)

    @property
    def guided(self) -> bool:
        """Whether each step is made twice, with the prompt and without. Up to 1 it would change nothing."""
        return self.guidance > 1

    def size(self, reach: float) -> int:
        """The side of the crop for a face whose crop covers `reach` px of its picture, give or take half of one."""
        return next((size for size in self.sizes if size + 0.5 > reach), self.sizes[-1])
