"""Dense landmarks of the 2d106det kind: 106 points, always those of a mean face, moved a little by the picture.

Only the outline (the first 33 points, ear to ear by the chin) lies where the real network's does; the others fill the
places of brows, eyes, nose and mouth.
"""

from __future__ import annotations

import numpy as np
import onnx

from tests.stand_ins.graph import Graph


def mean_shape() -> np.ndarray:
    """float (106, 2), -1..1 of a square half as large again as the face's box."""
    turn = np.linspace(np.pi, 0, 33)
    outline = np.c_[0.52 * np.cos(turn), -0.12 + 0.7 * np.sin(turn)]
    rng = np.random.default_rng(106)
    inner = rng.uniform((-0.4, -0.35), (0.4, 0.4), (73, 2))
    return np.vstack([outline, inner])


def landmarks() -> onnx.ModelProto:
    g = Graph()
    light = g("Flatten", g("GlobalAveragePool", "data"), axis=1)
    shape = mean_shape().reshape(-1)
    weight = np.random.default_rng(1).normal(0, 0.002, (3, len(shape)))
    g("Gemm", light, g.constant(weight), g.constant(shape), out="fc1")
    return g.model({"data": ["None", 3, 192, 192]}, {"fc1": ["None", 212]})
