"""What a network that swaps faces takes and gives, whatever runs it.

Crops go in and out as bytes, not as floats: a quarter of the traffic to a GPU, and every runtime scales them where
it is cheapest. One call serves as many faces as it is given, of any number of people: row i of the answer
depends on row i of the crops and of the latents and on nothing else.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Crops = npt.NDArray[np.uint8]
"""uint8 (N, S, S, 3), RGB, aligned to the network's template."""

Latents = npt.NDArray[np.float32]
"""float32 (N, 512), one identity per crop, as the network takes it."""


class Painted(NamedTuple):
    """crops: uint8 (N, S, S, 3) RGB; masks: uint8 (N, S, S), 255 where the network wants its own pixels, or None."""

    crops: Crops
    masks: npt.NDArray[np.uint8] | None


class SwapNet(Protocol):
    """Thread safe."""

    @property
    def size(self) -> int:
        """S: the side of a crop, pixels."""

    def __call__(self, crops: Crops, latents: Latents) -> Painted:
        """One forward. N may be 0. Neither array is changed or kept."""
