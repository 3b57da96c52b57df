"""A flagship that may earn money: FLUX.2 [klein] 4B (Apache-2.0) paints the face of one picture into another.

Here no network says whose face it is: the diffusion network looks at the source's pixels itself, beside those of the
target, and is told in words what to do. The face finder is the classical one, which has no weights, so nothing of this
engine is bound to research. That has its price. The finder sees faces that look at the camera. And nobody has published
how like the source such faces are: a user of the larger klein says that it "swaps faces well, but identity accuracy is
still off" (iFayens/ComfyUI-PuLID-Flux2#7). Judge it by `nanoswap eval` before it is offered to anybody.

The work is diffusers' own `Flux2KleinInpaintPipeline`, one face at a time and one call at a time: it keeps its steps'
state in itself. Pixels are wiped where they are ours; what the pipeline makes of them on its way (latents, activations)
is given back to torch's allocator as it is, and overwritten there when a job is over: see `gpu_memory`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import cv2
import numpy as np
import torch
from torch import Tensor

from nanoswap.pipelines.align import FFHQ, place
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.engine import Pair, Request, Rgb, Source
from nanoswap.pipelines.face import Face, Floats
from nanoswap.pipelines.gpu_memory import gpu_memory
from nanoswap.pipelines.latents import to_tensor
from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.pipelines.paste import Mask, paste
from nanoswap.pipelines.portrait import corners, cut_portrait, to_portrait
from nanoswap.pipelines.roi import Roi
from nanoswap.pipelines.shape import HULL, frame_of

SIZE: Final = 768
"""px of a crop. The network was made for about a megapixel; the work per step grows with the square of the area."""
PROMPT: Final = (
    "Replace the face in image 1 with the face of the person in image 2. Keep the pose, the expression, the gaze, the "
    "hair, the light and the background of image 1. A photograph."
)
"""What the network is told. It is given the target as image 1 and the source as image 2, in the words of the makers'
guide for several pictures (docs.bfl.ml, image editing)."""
_STEPS: Final = 4  # the model card's, as is the guidance: the network is distilled for both
_GUIDANCE: Final = 1.0
_CELL: Final = 16  # px along the side of what is one place to the network: eight to a latent, two latents to a place
# A face (hairline to chin, 2.5 times the distance of the pupils) with 40 % of its height above, below and more beside
# (Bing-su/adetailer#609): a little smaller than in FFHQ's crop, and higher.
_ROOM: Final = 0.91
_UP: Final = 0.08
#: The five points in a crop of side 1, the eyes level.
POINTS: Final[Floats] = ((FFHQ / np.float32(512) - 0.5) * _ROOM + np.array((0.5, 0.5 - _UP))).astype(np.float32)
_GROWN: Final = 1.15  # what is painted, of the hull that ends inside the cheeks: brows and chin are a person's too
_SOFT: Final = 0.03  # of the crop's side: the edge of what is painted
_LOOK: Final = 0.1  # seconds after which somebody who waits looks whether they were cancelled


class KleinSource:
    """The source's face with room around it, upright: uint8 (S, S, 3)."""

    __slots__ = ("pixels",)

    def __init__(self, pixels: Rgb) -> None:
        self.pixels = pixels

    def wipe(self) -> None:
        self.pixels.fill(0)


class KleinEngine:
    """Implements `Engine`. Thread safe; whoever comes while a face is made waits.

    pipeline  diffusers' `Flux2KleinInpaintPipeline`, on its device; text encoder and tokenizer may be missing.
    prompt    (1, n, D), on the device: what the text encoder made of `PROMPT`.
    size      px of a crop, a multiple of 16 up to 1024. Raises `ValueError` for others.
    """

    batch: int = 1

    def __init__(self, name: str, pipeline: Any, prompt: Tensor, *, size: int = SIZE) -> None:
        if size % _CELL or not 4 * _CELL <= size <= 1024:
            raise ValueError(f"a crop is a multiple of {_CELL} px, from {4 * _CELL} to 1024")
        self.name = name
        self._pipeline, self._prompt, self._size = pipeline, prompt, size
        self._finder, self._lock = MeshEngine(), threading.Lock()
        self._gpu = gpu_memory(prompt.device.type) if prompt.device.type == "cuda" else None
        self._mask = _mask(size)
        # Everything of which a trace will be seen is made anew; the rest stays the target's.
        self._anew = torch.from_numpy((self._mask > 0).astype(np.float32))[None, None]

    def rinse(self) -> None:
        self._finder.rinse()
        if self._gpu is not None:
            self._gpu.rinse()

    def detect(self, rgb: Rgb) -> tuple[Face, ...]:
        return self._finder.detect(rgb)

    def recognise(self, rgb: Rgb, faces: Sequence[Face]) -> tuple[Face, ...]:
        return tuple(faces)

    def prepare(self, rgb: Rgb, face: Face) -> KleinSource:
        return KleinSource(cut_portrait(rgb, to_portrait(face, POINTS, self._size), self._size))

    def footprint(self, face: Face) -> Roi:
        return Roi.around(corners(face, POINTS))

    def swap(self, pairs: Sequence[Pair], source: Source, request: Request) -> list[Roi]:
        """Raises `TypeError` for another engine's source, `Cancelled`."""
        if not isinstance(source, KleinSource):
            raise TypeError("a source that another engine prepared")
        return [self._paint(rgb, face, source, request) for rgb, face in pairs]

    def warm(self) -> None:
        """Make one face of nothing, so that the first person doesn't wait for what is only done once."""
        blank = np.full((self._size, self._size, 3), 127, np.uint8)
        self._made(blank, blank, Request(CancelToken()))

    def _paint(self, rgb: Rgb, face: Face, source: KleinSource, request: Request) -> Roi:
        matrix = to_portrait(face, POINTS, self._size)
        crop = cut_portrait(rgb, matrix, self._size)
        try:
            made = self._made(crop, source.pixels, request)
        finally:
            crop.fill(0)
        touched = paste(rgb, made, self._mask, matrix)
        made.fill(0)
        return touched

    def _made(self, target: Rgb, source: Rgb, request: Request) -> Rgb:
        """The target with the source's face, uint8 (S, S, 3), all three."""

        def between(pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            request.cancel.check()
            return {}

        if self._gpu is not None:
            self._gpu.enter()
        with self._alone(request.cancel):
            pictures = [to_tensor(one, "cpu") for one in (target, source)]
            try:
                (made,) = self._pipeline(
                    prompt_embeds=self._prompt,
                    image=pictures[0],
                    image_reference=pictures[1],
                    mask_image=self._anew,
                    # From pure noise, as diffusers' own example with a reference: the target is seen all the same.
                    strength=1.0,
                    num_inference_steps=_STEPS,
                    guidance_scale=_GUIDANCE,
                    # On the processor, so that a seed means the same picture on every machine.
                    generator=torch.Generator().manual_seed(request.seed),
                    callback_on_step_end=between,
                    output_type="pt",
                    return_dict=False,
                )
            finally:
                for picture in pictures:
                    picture.zero_()
        values = torch.empty(target.shape).copy_(made[0].permute(1, 2, 0)).mul_(255).round_()
        pixels = values.numpy().astype(np.uint8)
        for each in (made, values):
            each.zero_()
        return pixels

    @contextmanager
    def _alone(self, cancel: CancelToken) -> Iterator[None]:
        cancel.check()
        while not self._lock.acquire(timeout=_LOOK):
            cancel.check()
        try:
            yield
        finally:
            self._lock.release()


def _mask(size: int) -> Mask:
    """What is painted of a crop, uint8 (S, S): always the same, because faces lie in it always the same."""
    left, right = POINTS[:2] * np.float32(size)
    middle = (HULL.min(0) + HULL.max(0)) / 2
    hull = place(frame_of(left, right), (HULL - middle) * _GROWN + middle)
    mask = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(mask, np.rint(hull).astype(np.int32), 255)
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), size * _SOFT), np.uint8)
