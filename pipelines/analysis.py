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

from nanoswap.pipelines.align import cut, place, to_crop
from nanoswap.pipelines.blob import Scaling, to_blob
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Face, Floats
from nanoswap.pipelines.flow import box
from nanoswap.pipelines.onnx_net import OnnxNet
from nanoswap.pipelines.shape import frame_of
from nanoswap.pipelines.swap_net import Crops

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
                box=np.clip(found[:4] / np.tile(scale, 2), 0, bounds).astype(np.float32),
                points=(five / scale).astype(np.float32),
                score=float(found[4]),
                frame=(width, height),
            )
            for found, five in zip(boxes, points, strict=True)
        ]
        return tuple(sorted((face for face in faces if face.area > 1), key=lambda face: (-face.area, face.id)))


class Encoder:
    """ArcFace. Thread safe."""

    def __init__(self, net: OnnxNet, data: bytes) -> None:
        self._net = net
        arcface: Any = ArcFaceONNX(model_file=io.BytesIO(data), session=net)
        self._side, self._scaling = int(arcface.input_size[0]), _scaling(arcface)

    def __call__(self, rgb: Rgb, faces: Sequence[Face]) -> tuple[Face, ...]:
        """The same faces with their identities, float32 (512,) of unit length."""
        if not faces:
            return ()
        raw = self._raw(rgb, faces)
        known = tuple(replace(face, embedding=_unit(one)) for face, one in zip(faces, raw, strict=True))
        raw.fill(0)
        return known

    def raw(self, rgb: Rgb, face: Face) -> Floats:
        """float32 (512,), as the network gives it; the caller's to wipe."""
        return np.asarray(self._raw(rgb, [face])[0], np.float32)

    def _raw(self, rgb: Rgb, faces: Sequence[Face]) -> Floats:
        crops = np.stack([cut(rgb, to_crop(face.points, self._side), self._side) for face in faces])
        return _forward(self._net, crops, self._scaling)


class Landmarks:
    """Dense landmarks of insightface's 2d106det kind. Thread safe."""

    def __init__(self, net: OnnxNet, data: bytes) -> None:
        self._net = net
        landmark: Any = Landmark(model_file=io.BytesIO(data), session=net)
        self._side, self._count = int(landmark.input_size[0]), int(landmark.lmk_num)
        self._scaling = _scaling(landmark)

    def __call__(self, pictures: Sequence[Rgb], faces: Sequence[Face]) -> list[Floats]:
        """For each picture and the face in it, float32 (N, 2) in pixels. One forward for all."""
        if not faces:
            return []
        matrices = [self._matrix(face) for face in faces]
        # Outside a picture is black here, as the network was trained.
        crops: Crops = np.zeros((len(faces), self._side, self._side, 3), np.uint8)
        for rgb, matrix, crop in zip(pictures, matrices, crops, strict=True):
            cv2.warpAffine(rgb, matrix, (self._side, self._side), dst=crop, borderValue=0.0)
        raw = _forward(self._net, crops, self._scaling)
        found = []
        for row, matrix in zip(raw, matrices, strict=True):
            points = (row.reshape(-1, 2)[-self._count :] + 1) * (self._side // 2)
            back = cv2.invertAffineTransform(matrix)
            found.append(place(back, points))
        raw.fill(0)
        return found

    def _matrix(self, face: Face) -> Any:
        x0, y0, x1, _ = looked_at(face)
        scale = self._side / (x1 - x0)
        return np.array([[scale, 0, -scale * x0], [0, scale, -scale * y0]], np.float64)


def looked_at(face: Face) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of the upright square that dense landmarks are looked for in: half as large again as the face's
    box, as insightface cuts it. A box that the picture cuts off is made whole from the points."""
    x0, y0, x1, y1 = (float(value) for value in face.box)
    width, height = face.frame
    if x0 <= 0 or y0 <= 0 or x1 >= width or y1 >= height:
        x0, y0, x1, y1 = (float(value) for value in box(frame_of(face.points[0], face.points[1])))
    half = max(x1 - x0, y1 - y0, 2.0) * 0.75
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return x - half, y - half, x + half, y + half


def _fitted(rgb: Rgb) -> tuple[Rgb, Floats]:
    """The picture in the upper left of a black square, BGR; and its scale across and down, which differ by what is cut
    off to whole pixels. (insightface takes the one for the other, and is tens of pixels off in a panorama.)"""
    height, width = rgb.shape[:2]
    # Whole pixels as insightface counts them: the longer side fills the square.
    size = (SIDE, int(SIDE * height / width)) if width >= height else (int(SIDE * width / height), SIDE)
    size = max(1, size[0]), max(1, size[1])
    canvas = np.zeros((SIDE, SIDE, 3), np.uint8)
    view = canvas[: size[1], : size[0]]
    view[:] = cv2.resize(rgb, size)[..., ::-1]
    return canvas, np.array([size[0] / width, size[1] / height], np.float32)


def _scaling(net: Any) -> Scaling:
    """insightface says in bytes what it takes off and divides by."""
    return Scaling(float(net.input_mean) / 255, float(net.input_std) / 255)


def _forward(net: OnnxNet, crops: Crops, scaling: Scaling) -> Floats:
    """The network's one answer, the caller's to wipe; `crops` are wiped here."""
    blob = to_blob(crops, scaling)
    crops.fill(0)
    try:
        (raw,) = net.forward(blob)
    finally:
        blob.fill(0)
    return raw


def _unit(raw: Floats) -> Floats:
    return np.asarray(raw / max(float(np.linalg.norm(raw)), 1e-12), np.float32)
