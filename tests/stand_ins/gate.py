"""Stand-ins for the classifiers of the safety gate, steered by colour: magenta is intimate, cyan is a minor.
Neither is in the portraits that tests use.

They have the real files' names of inputs and outputs, shapes and scaling (the first nodes undo it), and give logits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx

from tests.stand_ins.graph import Graph

MAGENTA, CYAN = (255, 0, 255), (0, 255, 255)
"""RGB of what is refused."""

_SHARE = 0.02
"""of the pixels that a network sees: at that much of the colour its answer turns."""


def content() -> onnx.ModelProto:
    """AdamCodd's: (N, 3, 384, 384) to logits of sfw and nsfw."""
    return _by_colour((0.5, -1.0, 0.5), 384, [[0.0], [1.0]])


def ages() -> onnx.ModelProto:
    """FairFace's: (N, 3, 224, 224) to logits of nine bands; of the young ones 10-19, of the others 30-39."""
    weights = np.zeros((9, 1))
    weights[2], weights[4] = 1.0, -1.0
    return _by_colour((-1.0, 0.5, 0.5), 224, weights)


def _by_colour(mix: Sequence[float], side: int, columns: object) -> onnx.ModelProto:
    """`mix` is 1 for the colour alone; of a pixel that is not nearly the colour nothing counts."""
    g = Graph()
    bytes_of_one = g("Add", g("Mul", "pixel_values", g.constant(np.float32(0.5))), g.constant(np.float32(0.5)))
    strong = g("Relu", g("Sub", g.conv(bytes_of_one, np.array(mix).reshape(1, 3, 1, 1)), g.constant(np.float32(0.6))))
    share = g("Flatten", g("GlobalAveragePool", strong), axis=1)
    # 0.4 is what is left of the colour; -40 and +40 apart from the turning point.
    turned = g("Mul", g("Sub", share, g.constant(np.float32(0.4 * _SHARE))), g.constant(np.float32(4000.0)))
    clipped = g("Clip", turned, g.constant(np.float32(-10)), g.constant(np.float32(10)))
    g("Gemm", clipped, g.constant(np.asarray(columns, np.float32)), transB=1, out="logits")
    classes = len(np.asarray(columns))
    return g.model({"pixel_values": ["batch_size", 3, side, side]}, {"logits": ["batch_size", classes]})
