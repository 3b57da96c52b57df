"""The measured shape of one face, and the frame of reference it is measured in.

Everything about a face is said in units of the distance between its pupils, with the origin between them, x
to the right of the picture and y down: the canonical frame. A similarity `to_image` leads from there to the
picture. Shapes of different faces can then be compared number by number, whatever their size, place and
tilt. The proportions below were drawn by hand from an adult frontal face.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.align import place
from nanoswap.pipelines.face import Floats

# The anchors that are measured, at their places in an average face.
EYE_L, EYE_R, MOUTH_L, MOUTH_R, MOUTH, NOSE, CHIN, TEMPLE_L, TEMPLE_R, JAW_L, JAW_R, BROW, LIP_T, LIP_B = range(14)
AVERAGE: Final[Floats] = np.array(
    [
        (-0.5, 0), (0.5, 0), (-0.40, 1.08), (0.40, 1.08), (0, 1.08), (0, 0.72), (0, 1.73),
        (-1.13, 0.02), (1.13, 0.02), (-0.74, 1.28), (0.74, 1.28), (0, -0.75), (0, 0.97), (0, 1.24),
    ],
    np.float32,
)  # fmt: skip

# What is painted over: inside the cheeks, from above the brows to below the lower lip.
HULL: Final[Floats] = np.array(
    [
        (-0.93, -0.10), (-0.90, -0.36), (-0.62, -0.47), (-0.2, -0.43), (0, -0.40), (0.2, -0.43), (0.62, -0.47),
        (0.90, -0.36), (0.93, -0.10), (0.92, 0.40), (0.85, 0.85), (0.66, 1.22), (0.36, 1.46), (0, 1.53),
        (-0.36, 1.46), (-0.66, 1.22), (-0.85, 0.85), (-0.92, 0.40),
    ],
    np.float32,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Shape:
    """to_image: float64 (2, 3), canonical units to pixels; anchors: float32 (14, 2), where the anchors of this
    face lie, canonical units; trust: 0..1, how face-like what was measured is."""

    to_image: npt.NDArray[np.float64]
    anchors: Floats
    trust: float = 1.0

    @property
    def unit(self) -> float:
        """Pixels between the pupils."""
        return float(np.hypot(self.to_image[0, 0], self.to_image[1, 0]))

    @property
    def points(self) -> Floats:
        """float32 (5, 2) pixels: eyes, nose, mouth corners."""
        return self.image(self.anchors[[EYE_L, EYE_R, NOSE, MOUTH_L, MOUTH_R]])

    def image(self, points: Floats) -> Floats:
        """Canonical units to pixels, float32 (N, 2)."""
        return place(self.to_image, points)

    def canonical(self, points: Floats) -> Floats:
        """Pixels to canonical units, float32 (N, 2)."""
        back = cv2.invertAffineTransform(self.to_image)
        return place(back, points)


def frame_of(left: Floats, right: Floats) -> npt.NDArray[np.float64]:
    """The similarity that puts the pupils at (-0.5, 0) and (0.5, 0); float64 (2, 3), canonical to pixels."""
    a, b = float(right[0] - left[0]), float(right[1] - left[1])
    middle = (np.asarray(left, np.float64) + right) / 2
    return np.array([[a, -b, middle[0]], [b, a, middle[1]]], np.float64)
