"""What every pixel of a face is: skin, a brow, hair, a hat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.onnx_net import OnnxNet
from nanoswap.pipelines.paste import Mask

SIDE: Final = 512
"""px of the square that the network sees."""
LABELS: Final = (
    *("background", "skin", "left brow", "right brow", "left eye", "right eye", "glasses", "left ear", "right ear"),
    *("earring", "nose", "mouth", "upper lip", "lower lip", "neck", "necklace", "cloth", "hair", "hat"),
)
"""What the numbers of a label map mean: the order of zllrunning/face-parsing.PyTorch, on which parsers of the BiSeNet
kind were trained since (CelebAMask-HQ)."""
# ImageNet's, RGB; FaceFusion, `face_masker.py`.
_MEAN: Final = np.array([0.485, 0.456, 0.406], np.float32)
_STD: Final = np.array([0.229, 0.224, 0.225], np.float32)


class Parser:
    """A network of the BiSeNet kind: float32 (N, 3, 512, 512) RGB to (N, 19, 512, 512); what else it gives is of use in
    training only. Thread safe."""

    def __init__(self, net: OnnxNet) -> None:
        self._net = net

    def __call__(self, crops: Sequence[Rgb]) -> list[Mask]:
        """Per uint8 (S, S, 3) crop, aligned as `align.FFHQ`, its label map, uint8 (S, S), values of `LABELS`; the
        caller's to wipe. One forward for all."""
        if not crops:
            return []
        batch = np.stack([cv2.resize(crop, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) for crop in crops])
        blob = batch.transpose(0, 3, 1, 2).astype(np.float32)
        for channel in range(3):
            blob[:, channel] *= 1 / (255 * _STD[channel])
            blob[:, channel] -= _MEAN[channel] / _STD[channel]
        outputs = self._net.forward(blob)
        found = outputs[0].argmax(1)
        labels = found.astype(np.uint8)
        maps = [
            np.asarray(cv2.resize(one, crop.shape[1::-1], interpolation=cv2.INTER_NEAREST), np.uint8)
            for one, crop in zip(labels, crops, strict=True)
        ]
        for each in (batch, blob, found, labels, *outputs):
            each.fill(0)
        return maps
