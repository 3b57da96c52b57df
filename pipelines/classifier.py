"""A network that says of a picture whether it is refused, shown to it and read as its card says.

It fails closed: an answer of another shape than the card's, or one that is no number, is an error and never a yes; the
gate turns every error into a refusal. Loading tries it once on grey, so that a card that doesn't belong to its file is
the operator's one line at start and not everybody's refusal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.card import Card
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.face import Floats
from nanoswap.pipelines.onnx_net import OnnxNet

_AT_ONCE: Final = 16  # pictures in memory as floats
_WHOLE: Final = 0.01  # by how much probabilities may miss a sum of 1, in float16 too


class Classifier:
    """Thread safe. Raises `ValueError` for a network that its card doesn't describe."""

    def __init__(self, net: OnnxNet, card: Card) -> None:
        self._net, self.card = net, card
        self._refused = np.isin(card.classes, card.refused)
        self([np.full((card.side, card.side, 3), 128, np.uint8)])

    def __call__(self, pictures: Sequence[Rgb]) -> npt.NDArray[np.bool_]:
        """bool (N,): whether each uint8 (H, W, 3) RGB picture is refused. Sixteen share a forward.
        Raises `ValueError` for an answer that can't be read, and what ONNX Runtime raises."""
        parts = [self._few(pictures[at : at + _AT_ONCE]) for at in range(0, len(pictures), _AT_ONCE)]
        return np.concatenate(parts) if parts else np.zeros(0, np.bool_)

    def _few(self, pictures: Sequence[Rgb]) -> npt.NDArray[np.bool_]:
        blob = _blob(pictures, self.card)
        outputs: list[npt.NDArray[np.generic]] = []
        try:
            outputs = self._net.forward(blob)
            if len(outputs) <= self.card.output:
                raise ValueError(f"the network has {len(outputs)} outputs")
            return judged(outputs[self.card.output], len(pictures), self._refused, self.card)
        finally:
            blob.fill(0)
            for each in outputs:
                each.fill(0)


def judged(
    answer: npt.NDArray[np.generic], count: int, refused: npt.NDArray[np.bool_], card: Card
) -> npt.NDArray[np.bool_]:
    """bool (count,) of a network's answer, float (count, classes). refused: bool (classes,). Raises `ValueError`."""
    if answer.shape != (count, len(refused)):
        raise ValueError(f"the network's answer isn't {len(refused)} numbers for each picture")
    values = answer.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("the network's answer isn't a number")
    if card.gives == "years":
        return np.asarray(values[:, refused][:, 0] * card.factor < card.threshold)
    if card.gives == "margin":
        return np.asarray(values[:, refused].sum(1) - values[:, ~refused].sum(1) > card.threshold)
    if card.gives == "logits":
        values = np.exp(values - values.max(1, keepdims=True))
        values /= values.sum(1, keepdims=True)
    elif values.min() < -_WHOLE or np.abs(values.sum(1) - 1).max() > _WHOLE:
        raise ValueError("the network's answer isn't probabilities")
    return np.asarray(values[:, refused].sum(1) > card.threshold)


def _blob(pictures: Sequence[Rgb], card: Card) -> Floats:
    """float32 (N, 3, side, side), or channels last; the caller's to wipe."""
    batch = np.zeros((len(pictures), card.side, card.side, 3), np.uint8)
    # In the network's own order of memory: the runtime would make a copy of any other, which nobody wipes.
    blob = np.empty(batch.shape if card.layout == "nhwc" else (len(batch), 3, card.side, card.side), np.float32)
    try:
        for one, picture in zip(batch, pictures, strict=True):
            _fit(picture, one, card)
        shown = batch[..., ::-1] if card.colours == "bgr" else batch
        for channel, (mean, std) in enumerate(zip(card.mean, card.std, strict=True)):
            plane = blob[..., channel] if card.layout == "nhwc" else blob[:, channel]
            np.multiply(shown[..., channel], np.float32(1 / (255 * std)), out=plane)
            plane -= np.float32(mean / std)
    except BaseException:
        blob.fill(0)
        raise
    finally:
        batch.fill(0)
    return blob


def _fit(picture: Rgb, square: Rgb, card: Card) -> None:
    """Write `picture` into the black `square`."""
    height, width = picture.shape[:2]
    across, down = card.side, card.side
    if card.fit == "inside":
        scale = card.side / max(width, height)
        across, down = max(1, round(width * scale)), max(1, round(height * scale))
    # Smaller by the mean of all pixels: a thin line of them that decides would be stepped over.
    smaller = across * down < width * height
    made = cv2.resize(picture, (across, down), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    top, left = (card.side - down) // 2, (card.side - across) // 2
    try:
        square[top : top + down, left : left + across] = made
    finally:
        made.fill(0)
