"""A face restorer of the GFPGAN kind as one more step: the painted face is cut out again, cleaned, and put back.

Restorers invent detail, and too much of it looks like wax; so what comes back is mixed with what went in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np

from nanoswap.pipelines.align import FFHQ, Matrix, cut, similarity
from nanoswap.pipelines.blob import Scaling, from_blob, to_blob
from nanoswap.pipelines.engine import Pair
from nanoswap.pipelines.face import Face
from nanoswap.pipelines.masks import soft_box
from nanoswap.pipelines.onnx_net import OnnxNet
from nanoswap.pipelines.paste import Mask, paste
from nanoswap.pipelines.roi import Roi

SIZE: Final = 512
_SHARE: Final = 0.8  # of the restored face; FaceFusion's default
_SCALING: Final = Scaling(0.5, 0.5)


class Enhancer:
    """Takes float32 (N, 3, 512, 512) RGB -1..1 and gives the same. Thread safe."""

    def __init__(self, net: OnnxNet) -> None:
        self._net = net
        self._mask = np.rint(soft_box(SIZE).astype(np.float32) * _SHARE).astype(np.uint8)

    @staticmethod
    def matrix(face: Face) -> Matrix:
        return similarity(face.points, FFHQ)

    def __call__(self, pairs: Sequence[Pair], within: Sequence[tuple[Mask, Matrix]]) -> list[Roi]:
        """Restore each face in its picture, in place; the rectangles that were touched. One forward for all.

        within: per face the mask by which it was painted, uint8 (S, S), and picture to that crop: what was not painted
        is not restored, or a hand before a face would be given its skin.
        """
        matrices = [self.matrix(face) for _, face in pairs]
        crops = np.stack([cut(rgb, matrix, SIZE) for (rgb, _), matrix in zip(pairs, matrices, strict=True)])
        blob = to_blob(crops, _SCALING)
        outputs = self._net.forward(blob)
        better = from_blob(outputs[0], _SCALING)
        touched = [
            paste(rgb, crop, self._joined(matrix, *limit), matrix)
            for (rgb, _), crop, matrix, limit in zip(pairs, better, matrices, within, strict=True)
        ]
        crops.fill(0)
        better.fill(0)
        for value in (blob, *outputs):
            value.fill(0)
        return touched

    def _joined(self, matrix: Matrix, mask: Mask, painted: Matrix) -> Mask:
        """Our mask where `mask` of another crop allows it."""
        back = cv2.invertAffineTransform(painted)
        there = matrix[:, :2] @ np.c_[back[:, :2], back[:, 2]]
        there[:, 2] += matrix[:, 2]
        allowed = np.asarray(cv2.warpAffine(mask, there, (SIZE, SIZE), flags=cv2.INTER_LINEAR), np.uint8)
        return np.asarray(np.minimum(self._mask, allowed), np.uint8)
