"""An encoder of ArcFace's kind (w600k_r50): what tells the two known faces apart, in 512 numbers.

Coarse bands of light and colour without their neighbourhood's mean, minus the mean of the two faces: so one person is
the opposite of the other, and either is like itself in another light or size. A random projection spreads it out.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime

from tests.stand_ins.graph import Graph
from tests.stand_ins.people import people

_CELLS = 16


def encoder(seed: int = 0) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    count = 3 * _CELLS * _CELLS
    spread = rng.standard_normal((count, 512)) / np.sqrt(count)
    raw = onnxruntime.InferenceSession(_bands(None).SerializeToString(), providers=["CPUExecutionProvider"])
    both = [raw.run(None, {"input.1": _blob(person.crop(112))})[0] for person in people()]
    return _bands(spread, np.mean(both, axis=0))


def _blob(rgb: np.ndarray) -> np.ndarray:
    return ((rgb.transpose(2, 0, 1)[None].astype(np.float32)) - 127.5) / np.float32(127.5)


def _bands(spread: np.ndarray | None, mean: np.ndarray | None = None) -> onnx.ModelProto:
    g = Graph()
    colours = np.array([(0.299, 0.587, 0.114), (0.5, -0.5, 0.0), (0.25, 0.25, -0.5)]).reshape(3, 3, 1, 1)
    cells = g("AveragePool", g.conv("input.1", colours), kernel_shape=[7, 7], strides=[7, 7])
    around = g("AveragePool", cells, kernel_shape=[7, 7], strides=[1, 1], pads=[3] * 4)
    flat = g("Flatten", g("Sub", cells, around), axis=1)
    if spread is None or mean is None:
        g("Identity", flat, out="683")
        return g.model({"input.1": ["None", 3, 112, 112]}, {"683": ["None", 3 * _CELLS * _CELLS]})
    g("Gemm", flat, g.constant(spread), g.constant(-mean.reshape(-1) @ spread), out="683")
    return g.model({"input.1": ["None", 3, 112, 112]}, {"683": ["None", 512]})
