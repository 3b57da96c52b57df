"""Which pixels of a crop are painted: soft towards the edge, only the face, and nothing that is in front of it.

All masks are uint8 in the crop's own pixels, 255 where the new face is seen, and are joined by their minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final

import cv2
import numpy as np

from nanoswap.pipelines.face import Floats
from nanoswap.pipelines.onnx_net import OnnxNet
from nanoswap.pipelines.paste import Mask, feather
from nanoswap.pipelines.swap_net import Crops

# Of what an occlusion network says, only the sure half counts; softened a little first. FaceFusion, `face_masker.py`.
_OCCLUDER_SIGMA: Final = 5.0
_REGION_SIGMA: Final = 0.03  # of the crop's side
_CHEEK: Final = 0.06  # of the face's height: how far the region reaches beyond the outermost points
_BROW: Final = 0.14  # the same above the brows, where dense landmarks end


@cache
def soft_box(size: int) -> Mask:
    """`feather(size)`, made once per size; read-only."""
    mask = feather(size)
    mask.flags.writeable = False
    return mask


def region(landmarks: Floats, size: int) -> Mask:
    """The face itself: the hull of its dense landmarks (float32 (N, 2), crop pixels), a little wider, soft."""
    low, high = landmarks.min(0), landmarks.max(0)
    middle = (low + high) / 2
    grown = landmarks + (landmarks - middle) * np.float32(2 * _CHEEK)
    above = grown[grown[:, 1] < middle[1]] - np.array([0, _BROW * (high[1] - low[1])], np.float32)
    hull = cv2.convexHull(np.vstack([grown, above]).astype(np.float32))
    mask = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(mask, np.rint(hull).astype(np.int32), 255)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), size * _REGION_SIGMA), np.uint8)


class Occluder:
    """A network of the XSeg kind: float32 (N, 256, 256, 3) RGB 0..1 to (N, 256, 256, 1), 1 where the face is seen."""

    def __init__(self, net: OnnxNet) -> None:
        self._net = net
        side = net.get_inputs()[0].shape[1]
        if not isinstance(side, int):
            raise ValueError("an occlusion network says the side of its crop")
        self._side = side

    def __call__(self, crops: Sequence[Crops]) -> list[Mask]:
        """Per uint8 (S, S, 3) crop its mask, uint8 (S, S). One forward for all."""
        if not crops:
            return []
        side = self._side
        batch = np.stack([cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA) for crop in crops])
        blob = batch.astype(np.float32) * np.float32(1 / 255)
        (seen,) = self._net.forward(blob)
        masks = []
        for one, crop in zip(seen, crops, strict=True):
            soft = cv2.GaussianBlur(np.clip(one[..., 0], 0, 1), (0, 0), _OCCLUDER_SIGMA)
            sure = (np.clip(soft, 0.5, 1) - 0.5) * 510
            masks.append(np.asarray(cv2.resize(sure, crop.shape[1::-1]) + 0.5, np.float32).astype(np.uint8))
        for each in (batch, blob, seen):
            each.fill(0)
        return masks
