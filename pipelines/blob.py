"""Pictures as networks take them, channels first and in floats, and the way back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.face import Floats
from nanoswap.pipelines.swap_net import Crops


@dataclass(frozen=True, slots=True)
class Scaling:
    """A byte b goes in as (b / 255 - mean) / std and comes out the same way back. inswapper: 0 and 1; the 256 px
    kind: 0.5 and 0.5 (FaceFusion, `face_swapper/core.py`)."""

    mean: float = 0.0
    std: float = 1.0


def to_blob(crops: Crops, scaling: Scaling) -> Floats:
    """uint8 (N, S, S, 3) to float32 (N, 3, S, S)."""
    blob = np.empty((len(crops), 3, *crops.shape[1:3]), np.float32)
    np.multiply(crops.transpose(0, 3, 1, 2), np.float32(1 / 255 / scaling.std), out=blob)
    if scaling.mean:
        blob -= np.float32(scaling.mean / scaling.std)
    return blob


def from_blob(blob: npt.NDArray[np.float32], scaling: Scaling) -> Crops:
    """The way back, float32 (N, 3, S, S) to uint8 (N, S, S, 3), cut off and not rounded, as insightface does."""
    pixels = blob.transpose(0, 2, 3, 1) * np.float32(255 * scaling.std)
    pixels += np.float32(255 * scaling.mean)
    np.clip(pixels, 0, 255, out=pixels)
    crops = np.ascontiguousarray(pixels.astype(np.uint8))
    pixels.fill(0)
    return crops
