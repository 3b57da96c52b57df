"""The two faces that stand-ins know, measured once by the classical engine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from nanoswap.pipelines.align import to_crop
from nanoswap.pipelines.mesh import MeshEngine
from tests.clips import portrait

NAMES = ("astronaut", "hopper")


@dataclass(frozen=True, eq=False)
class Person:
    """rgb; points float (5, 2) px; unit: px between the pupils."""

    rgb: np.ndarray
    points: np.ndarray

    @property
    def unit(self) -> float:
        return float(np.linalg.norm(self.points[1] - self.points[0]))

    def upright(self, unit: float, side: int) -> tuple[np.ndarray, np.ndarray]:
        """The face upright in a square picture, `unit` px between the pupils, its middle (half a unit below the eyes)
        at the square's; and its five points there."""
        scale = unit / self.unit
        small = cv2.resize(self.rgb, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else self.rgb
        points = (self.points + 0.5) * (small.shape[1] / self.rgb.shape[1]) - 0.5
        across = points[1] - points[0]
        turn = -np.arctan2(across[1], across[0])
        k = unit / np.linalg.norm(across)
        rotation = k * np.array([(np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))])
        eyes = points[:2].mean(0)
        middle = np.array([(side - 1) / 2, (side - 1) / 2 - 0.5 * unit])
        matrix = np.c_[rotation, middle - rotation @ eyes]
        picture = cv2.warpAffine(small, matrix, (side, side), borderMode=cv2.BORDER_REPLICATE)
        return picture, points @ rotation.T + matrix[:, 2]

    def crop(self, side: int) -> np.ndarray:
        """As the identity networks see it."""
        return cv2.warpAffine(self.rgb, to_crop(self.points.astype(np.float32), side), (side, side))


@cache
def people() -> tuple[Person, ...]:
    found = []
    for name in NAMES:
        rgb = portrait(name)
        (face,) = MeshEngine().detect(rgb)[:1]
        found.append(Person(rgb, face.points.astype(np.float64)))
    return tuple(found)
