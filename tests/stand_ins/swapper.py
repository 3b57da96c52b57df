"""Swap networks with random narrow weights: inswapper's kind at 128 px, and the 256 px kind with a mask.

The first is inswapper's graph, op for op as far as it is publicly known, and says that it takes one row, as the file
does; and it carries the projection of identities as a constant that no node uses.
"""

from __future__ import annotations

import numpy as np
import onnx

from tests.stand_ins.graph import Graph


class _Net:
    def __init__(self, seed: int) -> None:
        self.g = Graph(opset=11)
        self.rng = np.random.default_rng(seed)

    def conv(self, x: str, cin: int, cout: int, kernel: int, *, stride: int = 1, reflect: bool = False) -> str:
        gain = np.sqrt(2 / (cin * kernel * kernel))
        weight = self.rng.normal(0, gain, (cout, cin, kernel, kernel))
        pad = kernel // 2
        if reflect:
            pads = self.g.constant(np.array([0, 0, pad, pad, 0, 0, pad, pad], np.int64))
            x, pad = self.g("Pad", x, pads, mode="reflect"), 0
        return self.g.conv(x, weight, np.zeros(cout), strides=[stride] * 2, pads=[pad] * 4)

    def leaky(self, x: str) -> str:
        return self.g("LeakyRelu", x, alpha=0.2)

    def styled(self, x: str, width: int) -> str:
        """Statistics of the map taken out, those of the identity put in."""
        g = self.g
        weight = self.rng.normal(0, 1.0, (2 * width, 512))
        bias = np.concatenate([np.ones(width), np.zeros(width)])
        style = g("Gemm", "source", g.constant(weight), g.constant(bias), transB=1)
        style = g("Unsqueeze", g("Unsqueeze", style, axes=[2]), axes=[3])
        halves = [
            g("Slice", style, g.constant(np.array([at])), g.constant(np.array([at + width])), g.constant(np.array([1])))
            for at in (0, width)
        ]
        flat = g("Sub", x, g("ReduceMean", x, axes=[2, 3], keepdims=1))
        spread = g("ReduceMean", g("Mul", flat, flat), axes=[2, 3], keepdims=1)
        inverse = g("Div", g.constant(np.ones(1)), g("Sqrt", g("Add", spread, g.constant(np.full(1, 1e-8)))))
        return g("Add", g("Mul", g("Mul", flat, inverse), halves[0]), halves[1])

    def twice(self, x: str) -> str:
        g = self.g
        scales = g.constant(np.array([1, 1, 2, 2], np.float32))
        return g(
            "Resize",
            x,
            g.constant(np.zeros(0, np.float32)),
            scales,
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        )

    def body(self, x: str, widths: tuple[int, int, int, int], blocks: int) -> str:
        a, b, c, d = widths
        x = self.leaky(self.conv(x, 3, a, 7, reflect=True))
        x = self.leaky(self.conv(x, a, b, 3))
        x = self.leaky(self.conv(x, b, c, 3, stride=2))
        x = self.leaky(self.conv(x, c, d, 3, stride=2))
        for _ in range(blocks):
            inner = self.g("Relu", self.styled(self.conv(x, d, d, 3, reflect=True), d))
            x = self.g("Add", x, self.styled(self.conv(inner, d, d, 3, reflect=True), d))
        x = self.leaky(self.conv(self.twice(x), d, c, 3))
        x = self.leaky(self.conv(self.twice(x), c, b, 3))
        return self.leaky(self.conv(x, b, a, 3))

    def calm(self, x: str, cin: int, cout: int) -> str:
        """The last convolution, its answers small enough for tanh to be a picture and not black and white."""
        x = self.g("Mul", x, self.g.constant(np.full(1, 0.12)))
        return self.g("Tanh", self.conv(x, cin, cout, 7, reflect=True))


def swapper(
    widths: tuple[int, int, int, int] = (8, 16, 24, 32), blocks: int = 2, *, seed: int = 3, last: bool = True
) -> onnx.ModelProto:
    """last: the projection is the last constant of the graph, where insightface looks for it."""
    net = _Net(seed)
    g = net.g
    projection = np.random.default_rng(512).normal(0, 0.17, (512, 512)).astype(np.float32)
    if not last:
        g.constant(projection, "buff2fs")
    picture = net.calm(net.body("target", widths, blocks), widths[0], 3)
    one, two = g.constant(np.ones(1)), g.constant(np.full(1, 2.0))
    g("Div", g("Add", picture, one), two, out="output")
    if last:
        g.constant(projection, "buff2fs")
    return g.model(
        {"target": [1, 3, 128, 128], "source": [1, 512]},
        {"output": [1, 3, 128, 128]},
    )


def swapper_256(*, seed: int = 4) -> onnx.ModelProto:
    """Pixels in -1..1, the identity as it is, and a mask: nothing at the edge of the crop."""
    net = _Net(seed)
    g = net.g
    widths = (6, 8, 12, 16)
    g("Identity", net.calm(net.body("target", widths, 1), widths[0], 3), out="output")
    y, x = (np.mgrid[:256, :256] - 127.5) / 128
    inside = np.clip((0.9 - np.hypot(x, y)) * 8, 0, 1)[None, None]
    level = g("ReduceMean", "target", axes=[1, 2, 3], keepdims=1)
    g("Add", g("Mul", level, g.constant(np.zeros(1))), g.constant(inside), out="mask")
    return g.model(
        {"source": [1, 512], "target": [1, 3, 256, 256]},
        {"output": [1, 3, 256, 256], "mask": [1, 1, 256, 256]},
    )
