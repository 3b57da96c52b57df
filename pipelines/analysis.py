"""Faces, and whose they are, by insightface's networks; each network runs only for a step that needs it.

insightface's own classes do what lies before and behind a network (its anchors, its overlaps, its scaling); the
networks themselves are ours to run, so that frames, faces and people who come at the same time share a forward. Its
`FaceAnalysis.get` runs five networks for every face of every picture; a swap needs the detector, one identity for the
source, and one per face only where somebody must be told apart.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import cv2
import numpy as np
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from insightface.model_zoo.landmark import Landmark
from insightface.model_zoo.scrfd import SCRFD

from nanoswap.pipelines.align import cut, to_crop
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Face, Floats
from nanoswap.pipelines.onnx_net import OnnxNet

SIDE: Final = 640  # px of the square that a picture is fitted into; SCRFD-10G's own
_SURE: Final = 0.5  # insightface's default


class Detector:
    """SCRFD. Thread safe; frames and pictures of several threads share a forward where the graph allows."""

    def __init__(self, net: OnnxNet) -> None:
        self._scrfd: Any = SCRFD(model_file=None, session=net)
        self._scrfd.prepare(ctx_id=0, input_size=(SIDE, SIDE), det_thresh=_SURE)

    def __call__(self, rgb: Rgb) -> tuple[Face, ...]:
        """The faces of a picture, the largest first."""
        height, width = rgb.shape[:2]
        canvas, scale = _fitted(rgb)
        try:
            boxes, points = self._scrfd.detect(canvas, input_size=(SIDE, SIDE))
        finally:
            canvas.fill(0)
        bounds = np.array([width, height, width, height], np.float32)
        faces = [
            Face(
                box=np.clip(box[:4] / scale, 0, bounds).astype(np.float32),
                points=(five / scale).astype(np.float32),
                score=float(box[4]),
                frame=(width, height),
            )
            for box, five in zip(boxes, points, strict=True)
        ]
        return tuple(sorted((face for face in faces if face.area > 1), key=lambda face: (-face.area, face.id)))


class Encoder:
    """ArcFace. Thread safe."""

    def __init__(self, net: OnnxNet, data: bytes) -> None:
        self._arcface: Any = ArcFaceONNX(model_file=io.BytesIO(data), session=net)
        self._arcface.model_file = None  # read once, for what its first nodes are called
        self._side = int(net.get_inputs()[0].shape[2] or 112)

    def __call__(self, rgb: Rgb, faces: Sequence[Face]) -> tuple[Face, ...]:
        """The same faces with their identities, float32 (512,) of unit length."""
        if not faces:
            return ()
        crops = [cut(rgb, to_crop(face.points, self._side), self._side)[..., ::-1] for face in faces]
        try:
            raw = self._arcface.get_feat(crops)
        finally:
            for crop in crops:
                crop.fill(0)
        return tuple(replace(face, embedding=_unit(one)) for face, one in zip(faces, raw, strict=True))


class Landmarks:
    """Dense landmarks of insightface's 2d106det kind. Thread safe."""

    def __init__(self, net: OnnxNet, data: bytes) -> None:
        self._net = net
        landmark: Any = Landmark(model_file=io.BytesIO(data), session=net)
        self._side, self._count = int(landmark.input_size[0]), int(landmark.lmk_num)
        self._mean, self._std = float(landmark.input_mean), float(landmark.input_std)

    def __call__(self, pictures: Sequence[Rgb], faces: Sequence[Face]) -> list[Floats]:
        """For each picture and the face in it, float32 (N, 2) in pixels. One forward for all."""
        if not faces:
            return []
        matrices = [_around(face, self._side) for face in faces]
        # Outside a picture is black here, as the network was trained.
        crops = [
            cv2.warpAffine(rgb, matrix, (self._side, self._side), borderValue=0.0)
            for rgb, matrix in zip(pictures, matrices, strict=True)
        ]
        blob = (np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32) - self._mean) / np.float32(self._std)
        (raw,) = self._net.forward(np.ascontiguousarray(blob))
        found = []
        for row, matrix in zip(raw, matrices, strict=True):
            points = (row.reshape(-1, 2)[-self._count :] + 1) * (self._side // 2)
            back = cv2.invertAffineTransform(matrix)
            found.append(np.asarray(points @ back[:, :2].T + back[:, 2], np.float32))
        for each in (*crops, blob):
            each.fill(0)
        return found


def _fitted(rgb: Rgb) -> tuple[Rgb, float]:
    """The picture in the upper left of a black square, BGR; and its scale."""
    height, width = rgb.shape[:2]
    # Whole pixels as insightface counts them: the longer side fills the square.
    size = (SIDE, int(SIDE * height / width)) if width >= height else (int(SIDE * width / height), SIDE)
    size = max(1, size[0]), max(1, size[1])
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    view = canvas[: size[1], : size[0]]
    view[:] = cv2.resize(rgb, size)[..., ::-1]
    return canvas, size[1] / height


def _around(face: Face, side: int) -> Any:
    """Picture to the upright square around a face's box that 2d106det looks at: half as large again as the box."""
    x0, y0, x1, y1 = (float(value) for value in face.box)
    scale = side / (max(x1 - x0, y1 - y0) * 1.5)
    return np.array(
        [[scale, 0, side / 2 - scale * (x0 + x1) / 2], [0, scale, side / 2 - scale * (y0 + y1) / 2]], np.float64
    )


def _unit(raw: Floats) -> Floats:
    return np.asarray(raw / max(float(np.linalg.norm(raw)), 1e-12), np.float32)
