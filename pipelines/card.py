"""How a classifier wants to be shown a picture and what its answer means: the facts of its card, as the manifest gives
them.

They belong to the weights, so they stand beside them, each entry with the source of its facts; an operator who trusts
another classifier writes another card and no code. A card is strict: what can't be meant is an error when it is read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

Gives = Literal["logits", "probabilities", "margin", "years"]
Fit = Literal["stretch", "inside"]
Colours = Literal["rgb", "bgr"]
Layout = Literal["nchw", "nhwc"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """side      px of the square that the network is shown.
    fit       how a picture becomes that square: `stretch`, its sides each for itself, as the image processors of ViTs
              do; `inside`, in proportion on black, as FaceFusion does. Crops of faces are square anyway.
    reach     of a classifier of faces: side of its crop, in longer sides of the face's box.
    mean, std of the three channels in the order of `colours`: a byte b goes in as (b / 255 - mean) / std.
    output    which of the graph's outputs, counted from 0; float (N, number of classes).
    classes   names of its columns, in their order; `refused` those for which a picture is refused.
    gives     `logits`: refused when the softmax of the refused classes sums to more than `threshold`;
              `probabilities`: the same without the softmax; `margin`: when the sum of the refused columns minus that of
              the others is above `threshold`, as FaceFusion counts; `years`: when the one refused column times `factor`
              is below `threshold`.
    source    who says all this.

    Raises `ValueError` for what can't be meant.
    """

    side: int
    classes: tuple[str, ...]
    refused: tuple[str, ...]
    threshold: float
    source: str
    gives: Gives = "logits"
    fit: Fit = "stretch"
    reach: float = 1.5
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    colours: Colours = "rgb"
    layout: Layout = "nchw"
    output: int = 0
    factor: float = 1.0

    def __post_init__(self) -> None:
        for name, words in (("gives", Gives), ("fit", Fit), ("colours", Colours), ("layout", Layout)):
            if getattr(self, name) not in get_args(words):
                raise ValueError(f"{name} is one of {', '.join(get_args(words))}")
        if not 16 <= self.side <= 2048:
            raise ValueError("side is from 16 to 2048")
        if not 1 <= self.reach <= 8:
            raise ValueError("reach is from 1 to 8")
        if not 0 <= self.output <= 64:
            raise ValueError("output is from 0 to 64")
        numbers = (*self.mean, *self.std, self.threshold, self.factor)
        if not (len(self.mean) == len(self.std) == 3 and all(map(math.isfinite, numbers)) and min(self.std) > 0):
            raise ValueError("mean and std are three finite numbers each, std above 0")
        if not self.factor > 0:
            raise ValueError("factor is above 0")
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError("classes are one or more, all different")
        if not self.refused or not set(self.refused) <= set(self.classes):
            raise ValueError("refused are one or more of the classes")
        if self.gives == "years":
            if len(self.refused) != 1 or not self.threshold >= 18:
                raise ValueError("of years one class is refused, below a threshold of at least 18")
        elif set(self.refused) == set(self.classes):
            raise ValueError("refused are some of the classes, not all")
        if self.gives in ("logits", "probabilities") and not 0 < self.threshold < 1:
            raise ValueError("a threshold of probability is above 0 and below 1")
