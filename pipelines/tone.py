"""The colours of a painted face brought to those of the face it covers (Reinhard et al. 2001, in RGB).

Mean and spread of each channel, over the pixels that will be seen. The spread is changed by at most a third: a face in
hard light over one in soft light should not become a caricature of either.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.paste import Mask

_SPREAD: Final = (0.75, 1.33)
_ENOUGH: Final = 64  # pixels; fewer have no statistics


def match(crop: Rgb, like: Rgb, mask: Mask) -> None:
    """Change uint8 (S, S, 3) `crop` in place to the tone of `like`, both judged where uint8 (S, S) `mask` is full."""
    seen = mask > 250
    if int(seen.sum()) < _ENOUGH:
        return
    ours, theirs = crop[seen].astype(np.float32), like[seen].astype(np.float32)
    scale = np.clip((theirs.std(0) + 1) / (ours.std(0) + 1), *_SPREAD)
    shift = theirs.mean(0) - ours.mean(0) * scale
    changed = crop.astype(np.float32) * scale + shift
    np.copyto(crop, np.clip(changed + 0.5, 0, 255).astype(np.uint8))
    for each in (ours, theirs, changed):
        each.fill(0)
