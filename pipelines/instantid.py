"""The flagship: a face made anew by SDXL, in the place of another, as InstantID says whose it is (arXiv 2401.07519).

The face is cut out upright and with room around it, because the network was trained on heads; the part of it that is a
face is made anew from noise, at the place that five points say and with the identity that sixteen tokens carry; and
only that part is put back, so that everything else of the picture stays the person's own, bit for bit. All faces that
are on their way, of this picture and of other people's, share the steps of one network: see `step_batch` and
`denoiser`.

Pixels, latents, embeddings and tokens are overwritten where they are ours; what the networks make on their way
(activations) is given back to torch's allocator as it is, and overwritten there when a job is over: see `gpu_memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import cv2
import numpy as np
import torch
from torch import Tensor

from nanoswap.pipelines import tone
from nanoswap.pipelines.align import FFHQ, Matrix, place
from nanoswap.pipelines.analysis import Detector, Encoder, Landmarks, looked_at
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.denoiser import CELL, Denoiser, Denoising, wipe
from nanoswap.pipelines.engine import Pair, Request, Rgb, Source
from nanoswap.pipelines.face import Face, Floats
from nanoswap.pipelines.identity import Identity
from nanoswap.pipelines.keypoint_picture import keypoint_picture
from nanoswap.pipelines.latents import Autoencoder, to_tensor
from nanoswap.pipelines.masks import Occluder, region, soft_box
from nanoswap.pipelines.paste import Mask, paste
from nanoswap.pipelines.portrait import corners, cut_portrait, reach, to_portrait
from nanoswap.pipelines.reference import Reference
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.step_batch import StepBatcher
from nanoswap.pipelines.style import Style

# Faces in a crop are this much smaller than in FFHQ's, which leaves no room at the sides: at least 40 % around the face
# are needed, most of it above (Bing-su/adetailer#609; InstantID was trained on whole heads).
_ROOM: Final = 0.82
#: The five points in a crop of side 1.
POINTS: Final[Floats] = ((FFHQ / np.float32(512) - 0.5) * _ROOM + 0.5).astype(np.float32)
# Where there are no dense landmarks, the face is an oval: its middle and its half axes in a crop of side 1.
_OVAL: Final = ((0.5, 0.55), (0.27, 0.31))
_SOFT: Final = 0.03  # of the crop's side: the oval's edge
_SEEN: Final = 16  # of 255: a latent whose pixels are painted less than this stays as it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Networks:
    """What the engine is made of; what is None is left out."""

    detector: Detector
    encoder: Encoder
    identity: Identity
    autoencoder: Autoencoder
    denoiser: Denoiser
    reference: Reference | None = None
    landmarks: Landmarks | None = None
    occluder: Occluder | None = None


class IdentitySource:
    """Whose face it is to be: tokens of each adapter, (R, 1, n, D); see `Denoising`."""

    __slots__ = ("tokens",)

    def __init__(self, tokens: Sequence[Tensor]) -> None:
        self.tokens = tuple(tokens)

    def wipe(self) -> None:
        wipe(self.tokens)


@dataclass(frozen=True, slots=True, eq=False)
class _Crop:
    """A face cut out: uint8 (S, S, 3); picture to crop; what is painted, uint8 (S, S)."""

    pixels: Rgb
    matrix: Matrix
    mask: Mask

    def wipe(self) -> None:
        self.pixels.fill(0)
        self.mask.fill(0)


class InstantIdEngine:
    """Implements `Engine`. Thread safe; the more threads are in `swap`, the fuller are the steps.

    step_batch, admitted, told: see `StepBatcher`; the first is at most the second. rinse: of the networks, see
    `Engine`.
    enter: called in a thread before it makes anything on the device, see `GpuMemory`.
    """

    def __init__(
        self,
        name: str,
        networks: Networks,
        style: Style,
        *,
        step_batch: int,
        admitted: int,
        rinse: Callable[[], None] = lambda: None,
        enter: Callable[[], None] = lambda: None,
        told: Callable[[int], None] = lambda _: None,
    ) -> None:
        self.name, self._rinse, self._enter = name, rinse, enter
        self.batch = step_batch
        self._nets, self._style = networks, style
        self._steps: StepBatcher[Denoising, Rgb] = StepBatcher(
            networks.denoiser.step, self._finish, most=step_batch, admitted=admitted, told=told
        )

    def warm(self) -> None:
        """Swap a grey face once in every size, and make a step of as many as will ever share one, so that the first
        person doesn't wait for what is only done once, and what doesn't fit the device is found now. Where the networks
        are compiled, each size of a batch is stepped."""
        nets = self._nets
        for size in nets.denoiser.recipe.sizes:
            rgb = np.full((size, size, 3), 127, np.uint8)
            points = POINTS * np.float32(size)
            face = Face(box=np.array([0, 0, size, size], np.float32), points=points, score=1.0, frame=(size, size))
            source = self.prepare(rgb, face)
            self.swap([(rgb, face)], source, Request(CancelToken()))
            crop = self._cut(rgb, face)
            for rows in nets.denoiser.warm_rows(self.batch):
                nets.denoiser.step([self._begin(crop, face, source, seed) for seed in range(rows)])

    def rinse(self) -> None:
        self._rinse()

    def detect(self, rgb: Rgb) -> tuple[Face, ...]:
        return self._nets.detector(rgb)

    def recognise(self, rgb: Rgb, faces: Sequence[Face]) -> tuple[Face, ...]:
        return self._nets.encoder(rgb, faces)

    def prepare(self, rgb: Rgb, face: Face) -> IdentitySource:
        self._enter()
        embedding = self._nets.encoder.raw(rgb, face)
        try:
            return IdentitySource(self._nets.identity(embedding, rgb, face))
        finally:
            embedding.fill(0)

    def footprint(self, face: Face) -> Roi:
        every = [corners(face, POINTS)]
        if self._nets.landmarks is not None:
            every.append(np.array(looked_at(face), np.float32).reshape(2, 2))
        return Roi.around(np.vstack(every))

    def swap(self, pairs: Sequence[Pair], source: Source, request: Request) -> list[Roi]:
        """Raises `TypeError` for another engine's source, `ValueError` for more than `batch` pairs, `Cancelled`."""
        if not isinstance(source, IdentitySource):
            raise TypeError("a source that another engine prepared")
        if len(pairs) > self.batch:
            raise ValueError(f"{len(pairs)} faces in one call, and {self.batch} are most")
        if not pairs:
            return []
        self._enter()
        crops: list[_Crop] = []
        jobs: list[Denoising] = []

        def begin(rgb: Rgb, face: Face) -> Callable[[], Denoising]:
            def now() -> Denoising:
                crops.append(self._cut(rgb, face))
                jobs.append(self._begin(crops[-1], face, source, request.seed))
                return jobs[-1]

            return now

        made: list[Rgb] = []
        try:
            made += self._steps.run([begin(*pair) for pair in pairs], request.cancel)
            touched = []
            for (rgb, _), crop, new in zip(pairs, crops, made, strict=True):
                if self._style.tone:
                    tone.match(new, crop.pixels, crop.mask)
                touched.append(paste(rgb, new, crop.mask, crop.matrix))
            return touched
        finally:
            for new in made:
                new.fill(0)
            for crop in crops:
                crop.wipe()
            for job in jobs:
                job.wipe()

    def _cut(self, rgb: Rgb, face: Face) -> _Crop:
        size = self._nets.denoiser.recipe.size(reach(to_portrait(face, POINTS, 1), 1))
        matrix = to_portrait(face, POINTS, size)
        pixels = cut_portrait(rgb, matrix, size)
        mask = _oval(size) if self._nets.landmarks is None else self._region(rgb, face, matrix, size)
        np.minimum(mask, soft_box(size), out=mask)
        if self._nets.occluder is not None:
            (seen,) = self._nets.occluder([pixels])
            np.minimum(mask, seen, out=mask)
        return _Crop(pixels, matrix, mask)

    def _region(self, rgb: Rgb, face: Face, matrix: Matrix, size: int) -> Mask:
        assert self._nets.landmarks is not None
        (dense,) = self._nets.landmarks([rgb], [face])
        return region(place(matrix, dense), size)

    def _begin(self, crop: _Crop, face: Face, source: IdentitySource, seed: int) -> Denoising:
        picture = keypoint_picture(place(crop.matrix, face.points), len(crop.pixels))
        taken = [self._nets.autoencoder.encode(crop.pixels)]
        try:
            taken += [each.clone() for each in source.tokens]
            if self._nets.reference is not None:
                taken.append(self._nets.reference(crop.pixels))
            original, *tokens = taken
            hint = to_tensor(picture, original.device)
            return self._nets.denoiser.begin(original, cells(crop.mask).to(original.device), hint, tokens, seed)
        except BaseException:
            wipe(taken)
            raise

    def _finish(self, job: Denoising) -> Rgb:
        try:
            return self._nets.autoencoder.decode(job.latents)
        finally:
            job.wipe()


def cells(mask: Mask) -> Tensor:
    """uint8 (S, S) to float32 (1, 1, S / 8, S / 8): 1 for every latent of which some pixel will be seen."""
    side = len(mask) // CELL
    most = mask.reshape(side, CELL, side, CELL).max((1, 3))
    return torch.from_numpy((most >= _SEEN).astype(np.float32))[None, None]


def _oval(size: int) -> Mask:
    mask = np.zeros((size, size), np.uint8)
    (x, y), (across, down) = ((round(a * size), round(b * size)) for a, b in _OVAL)
    cv2.ellipse(mask, (x, y), (across, down), 0, 0, 360, 255, -1)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), size * _SOFT), np.uint8)
