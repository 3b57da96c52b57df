"""What every engine can do, whatever it runs on.

An engine is one class behind this protocol: find faces, learn one face, paint it over another. It works on
RGB and in place, and says which rectangle it touched: everything outside is the caller's own pixels, bit
for bit. One engine serves several threads at once, so it keeps nothing of a picture between calls: what it
learned of the source travels in a `Source`, which the caller wipes.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.face import Face
from nanoswap.pipelines.roi import Roi

Rgb = npt.NDArray[np.uint8]
"""uint8 (H, W, 3), RGB, sRGB, upright."""


class Source(Protocol):
    """What an engine learned of the source face. Opaque; one engine's is of no use to another."""

    def wipe(self) -> None:
        """Overwrite everything that was learned. The source is unusable afterwards. Idempotent."""


class Engine(Protocol):
    """Thread safe: any number of threads may be in any of its methods."""

    @property
    def name(self) -> str:
        """Stable name, as in settings: `mesh`."""

    @property
    def reach(self) -> float:
        """How far around a face's box `swap` looks and paints, as a share of the box's longer side."""

    def detect(self, rgb: Rgb) -> tuple[Face, ...]:
        """Every face, the largest first. Does not change `rgb`."""

    def prepare(self, rgb: Rgb, face: Face) -> Source:
        """Learn `face` of `rgb`; keeps no reference to `rgb`."""

    def swap(self, rgb: Rgb, face: Face, source: Source) -> Roi:
        """Paint `source` over `face`, in place; returns the rectangle that was touched (it may be empty)."""
