"""The engine of networks: insightface finds and tells apart, a swap network of the inswapper kind paints.

Nothing here goes face by face where a network is concerned. All faces of a call, all tiles of a face, and whatever
other people's calls bring in the same moment, go through each network in one forward; what lies between the networks
(cutting out, masks, putting back) costs the face's rectangle and not the frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np

from nanoswap.pipelines import tiles, tone
from nanoswap.pipelines.align import Matrix, cut, finer, place, to_crop
from nanoswap.pipelines.analysis import Detector, Encoder, Landmarks, looked_at
from nanoswap.pipelines.engine import Pair, Request, Rgb, Source
from nanoswap.pipelines.enhance import SIZE, Enhancer
from nanoswap.pipelines.face import Face, Floats
from nanoswap.pipelines.masks import Occluder, region, soft_box
from nanoswap.pipelines.paste import Mask, paste
from nanoswap.pipelines.paste_exact import margin, paste_exact
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.style import Style
from nanoswap.pipelines.swap_net import SwapNet

_BATCH: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """What the engine is made of; what is None is left out. latent: identity, float32 (512,) of unit length, to what
    the swap network takes."""

    detector: Detector
    encoder: Encoder
    swapper: SwapNet
    latent: Callable[[Floats], Floats]
    landmarks: Landmarks | None = None
    occluder: Occluder | None = None
    enhancer: Enhancer | None = None


class NeuralSource:
    """An identity as the swap network takes it: 512 numbers."""

    __slots__ = ("latent",)

    def __init__(self, latent: Floats) -> None:
        self.latent = latent

    def wipe(self) -> None:
        self.latent.fill(0)


@dataclass(frozen=True, slots=True, eq=False)
class _Crop:
    """A face cut out: uint8 (S k, S k, 3), picture to crop, and k."""

    pixels: Rgb
    matrix: Matrix
    k: int


class NeuralEngine:
    """Implements `Engine`. Thread safe."""

    batch: int = _BATCH

    def __init__(
        self, name: str, networks: Networks, style: Style, *, rinse: Callable[[], None] = lambda: None
    ) -> None:
        """rinse: of the networks, see `Engine`."""
        self.name = name
        self._nets, self._style, self._rinse = networks, style, rinse

    def rinse(self) -> None:
        self._rinse()

    def detect(self, rgb: Rgb) -> tuple[Face, ...]:
        return self._nets.detector(rgb)

    def recognise(self, rgb: Rgb, faces: Sequence[Face]) -> tuple[Face, ...]:
        return self._nets.encoder(rgb, faces)

    def prepare(self, rgb: Rgb, face: Face) -> NeuralSource:
        (known,) = self._nets.encoder(rgb, [face])
        assert known.embedding is not None
        try:
            return NeuralSource(self._nets.latent(known.embedding))
        finally:
            known.embedding.fill(0)

    def footprint(self, face: Face) -> Roi:
        corners = [_corners(to_crop(face.points, self._nets.swapper.size), self._nets.swapper.size)]
        if self._nets.enhancer is not None:
            corners.append(_corners(Enhancer.matrix(face), SIZE))
        if self._nets.landmarks is not None:
            corners.append(np.array(looked_at(face), np.float32).reshape(2, 2))
        roi = Roi.around(np.vstack(corners))
        if not self._style.exact:
            return roi
        more = margin(max(roi.width, roi.height))
        return Roi(roi.x0 - more, roi.y0 - more, roi.x1 + more, roi.y1 + more)

    def swap(self, pairs: Sequence[Pair], source: Source, request: Request) -> list[Roi]:
        """Raises `TypeError` for another engine's source."""
        if not isinstance(source, NeuralSource):
            raise TypeError("a source that another engine prepared")
        if not pairs:
            return []
        crops: list[_Crop] = []
        painted: list[tuple[Rgb, Mask | None]] = []
        try:
            crops += [self._cut(rgb, face) for rgb, face in pairs]
            painted += self._painted(crops, source)
            if self._style.exact:
                return [
                    paste_exact(rgb, new, crop.matrix)
                    for (rgb, _), (new, _), crop in zip(pairs, painted, crops, strict=True)
                ]
            masks = self._masks(pairs, crops, [mask for _, mask in painted])
            touched = []
            for (rgb, _), (new, _), crop, mask in zip(pairs, painted, crops, masks, strict=True):
                if self._style.tone:
                    tone.match(new, crop.pixels, mask)
                touched.append(paste(rgb, new, mask, crop.matrix))
            if self._nets.enhancer is not None:
                within = list(zip(masks, (crop.matrix for crop in crops), strict=True))
                touched = [a.union(b) for a, b in zip(touched, self._nets.enhancer(pairs, within), strict=True)]
            return touched
        finally:
            for crop in crops:
                crop.pixels.fill(0)
            for new, _ in painted:
                new.fill(0)

    def _cut(self, rgb: Rgb, face: Face) -> _Crop:
        size = self._nets.swapper.size
        matrix = to_crop(face.points, size)
        reach = size / float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
        k = tiles.factor(reach, size, self._style.tiles)
        if k > 1:
            matrix = finer(matrix, k)
        return _Crop(cut(rgb, matrix, size * k), matrix, k)

    def _painted(self, crops: Sequence[_Crop], source: NeuralSource) -> list[tuple[Rgb, Mask | None]]:
        """All tiles of all crops in one call of the network, put together again."""
        parts = [tiles.split(crop.pixels, crop.k) for crop in crops]
        batch = np.concatenate(parts)
        latents = np.repeat(source.latent[None], len(batch), axis=0)
        try:
            answer = self._nets.swapper(batch, latents)
        finally:
            for each in (*parts, batch):
                each.fill(0)
            latents.fill(0)
        painted: list[tuple[Rgb, Mask | None]] = []
        at = 0
        for crop in crops:
            mine = slice(at, at + crop.k**2)
            at = mine.stop
            mask = None
            if answer.masks is not None:
                # The mean of the tiles': the network sees the same face in each.
                side = crop.pixels.shape[0]
                mask = np.asarray(cv2.resize(answer.masks[mine].mean(0).astype(np.uint8), (side, side)), np.uint8)
            painted.append((tiles.join(answer.crops[mine]), mask))
        answer.crops.fill(0)
        return painted

    def _masks(self, pairs: Sequence[Pair], crops: Sequence[_Crop], own: Sequence[Mask | None]) -> list[Mask]:
        sides = [crop.pixels.shape[0] for crop in crops]
        joined = [soft_box(side) for side in sides]
        extra: list[Sequence[Mask | None]] = [own]
        if self._nets.landmarks is not None:
            dense = self._nets.landmarks([rgb for rgb, _ in pairs], [face for _, face in pairs])
            extra.append(
                [
                    region(place(crop.matrix, points), side)
                    for points, crop, side in zip(dense, crops, sides, strict=True)
                ]
            )
        if self._nets.occluder is not None:
            extra.append(self._nets.occluder([crop.pixels for crop in crops]))
        for masks in extra:
            joined = [
                mask if more is None else np.minimum(mask, more) for mask, more in zip(joined, masks, strict=True)
            ]
        return joined


def _corners(matrix: Matrix, size: int) -> Floats:
    back = cv2.invertAffineTransform(matrix)
    corners = np.array([(0, 0), (size, 0), (0, size), (size, size)], np.float64)
    return place(back, corners)
