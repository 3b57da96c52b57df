"""A swap network whose forward serves everybody who calls at once: see `Window`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nanoswap.pipelines.swap_net import Crops, Latents, Painted, SwapNet
from nanoswap.pipelines.window import Batching, Window


class SharedNet:
    """Implements `SwapNet` over another one, which is called by one thread at a time."""

    def __init__(self, net: SwapNet, batching: Batching) -> None:
        self._net = net
        self._window: Window[tuple[Crops, Latents], Painted] = Window(self._together, batching)

    @property
    def size(self) -> int:
        return self._net.size

    def __call__(self, crops: Crops, latents: Latents) -> Painted:
        return self._window((crops, latents), len(crops))

    def _together(self, calls: Sequence[tuple[Crops, Latents]]) -> list[Painted]:
        if len(calls) == 1:
            return [self._net(*calls[0])]
        crops, latents = (np.concatenate(each) for each in zip(*calls, strict=True))
        try:
            painted = self._net(crops, latents)
        finally:
            crops.fill(0)
            latents.fill(0)
        cuts = np.cumsum([len(one) for one, _ in calls])[:-1]
        results = np.split(painted.crops, cuts)
        masks = [None] * len(calls) if painted.masks is None else np.split(painted.masks, cuts)
        answers = [
            Painted(one.copy(), None if mask is None else mask.copy()) for one, mask in zip(results, masks, strict=True)
        ]
        painted.crops.fill(0)
        return answers
