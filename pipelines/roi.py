"""The rectangle of a frame that a step may touch.

Half-open like a slice (`x1`, `y1` are outside), so an empty one has no special case and `frame[roi.slices]`
is a view.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Roi:
    """Pixels `x0 <= x < x1`, `y0 <= y < y1` of a frame."""

    x0: int
    y0: int
    x1: int
    y1: int

    @classmethod
    def around(cls, points: npt.NDArray[Any]) -> Roi:
        """The least rectangle with every pixel that one of `points`, (N, 2), lies in or next to."""
        low, high = np.floor(points.min(0)), np.ceil(points.max(0)) + 1
        return cls(int(low[0]), int(low[1]), int(high[0]), int(high[1]))

    @property
    def width(self) -> int:
        return max(0, self.x1 - self.x0)

    @property
    def height(self) -> int:
        return max(0, self.y1 - self.y0)

    @property
    def empty(self) -> bool:
        return self.x1 <= self.x0 or self.y1 <= self.y0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index a (H, W, ...) array with it to get the view of this rectangle."""
        return slice(self.y0, max(self.y0, self.y1)), slice(self.x0, max(self.x0, self.x1))

    def clip(self, width: int, height: int) -> Roi:
        """The part inside a frame of `width` by `height`; empty, and still inside, when there is none."""
        x0, y0 = min(max(self.x0, 0), width), min(max(self.y0, 0), height)
        return Roi(x0, y0, max(x0, min(self.x1, width)), max(y0, min(self.y1, height)))

    def union(self, other: Roi) -> Roi:
        """The least rectangle that holds both; an empty one adds nothing."""
        if self.empty or other.empty:
            return other if self.empty else self
        return Roi(min(self.x0, other.x0), min(self.y0, other.y0), max(self.x1, other.x1), max(self.y1, other.y1))

    def meets(self, other: Roi) -> bool:
        """Whether the two have a pixel in common."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1
