"""Stand-ins for what comes after a swap: an occluder (XSeg), a restorer (GFPGAN), and features for realism."""

from __future__ import annotations

import numpy as np
import onnx

from tests.stand_ins.graph import Graph


def occluder() -> onnx.ModelProto:
    """1 where the face is seen; saturated green is in front of it."""
    g = Graph()
    picture = g("Transpose", "input", perm=[0, 3, 1, 2])
    # Green minus the mean of the others: 1 for (0, 255, 0), below 0.4 for anything that skin, hair or cloth is.
    green = g.conv(picture, np.array([-0.5, 1.0, -0.5]).reshape(1, 3, 1, 1))
    there = g("Sigmoid", g("Mul", g("Sub", green, g.constant(np.full(1, 0.6))), g.constant(np.full(1, -30.0))))
    g("Transpose", there, perm=[0, 2, 3, 1], out="output")
    return g.model({"input": ["N", 256, 256, 3]}, {"output": ["N", 256, 256, 1]})


def enhancer() -> onnx.ModelProto:
    """A little sharper."""
    g = Graph()
    kernel = np.zeros((3, 3, 5, 5))
    for channel in range(3):
        kernel[channel, channel] = -0.5 / 25
        kernel[channel, channel, 2, 2] += 1.5
    sharp = g.conv("input", kernel, pads=[2] * 4)
    g("Clip", sharp, g.constant(np.float32(-1)), g.constant(np.float32(1)), out="output")
    return g.model({"input": [1, 3, 512, 512]}, {"output": [1, 3, 512, 512]})


def features() -> onnx.ModelProto:
    """64 numbers of a crop, by two random convolutions."""
    g = Graph()
    rng = np.random.default_rng(64)
    x = g("Relu", g.conv("input", rng.normal(0, 0.15, (16, 3, 7, 7)), strides=[4, 4]))
    x = g("Relu", g.conv(x, rng.normal(0, 0.1, (64, 16, 3, 3)), strides=[4, 4]))
    g("Flatten", g("GlobalAveragePool", x), axis=1, out="features")
    return g.model({"input": ["N", 3, 299, 299]}, {"features": ["N", 64]})
