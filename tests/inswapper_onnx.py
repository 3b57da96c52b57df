"""ONNX files of the inswapper kind with random weights: the same inputs, output and stowaway matrix as the real one,
any width, and the ways in which exporters differ. The nodes are spelled as torch's exporter spells them (opset 11, one
row, names that say nothing).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FULL = (128, 256, 512, 1024)
NARROW = (8, 16, 24, 32)
LATENT = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Variation:
    """What files may differ in.

    half         constants are float16: `stored` behind a cast each, `computed` as everything between the ports.
    product      of the identity: one node, or two.
    norm         how 1 / sqrt(variance + epsilon) is spelled, or `outside`: 1 / (sqrt(variance) + epsilon).
    relu         inside the blocks.
    residual     whether blocks add their input.
    """

    alpha: float = 0.2
    epsilon: float = 1e-8
    doubling: str = "half_pixel"
    half: Literal["none", "stored", "computed"] = "none"
    product: Literal["gemm", "matmul"] = "gemm"
    norm: Literal["div", "reciprocal", "pow", "instance", "outside"] = "div"
    halves: Literal["slice", "split", "gather"] = "slice"
    scale_first: bool = True
    scale_from_one: bool = False
    relu: bool = True
    residual: bool = True
    pad_mode: str = "reflect"


@dataclass(slots=True)
class _Builder:
    how: Variation
    rng: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    source: str = "source"
    count: int = 100

    def name(self) -> str:
        self.count += 1
        return str(self.count)

    def node(self, op: str, *inputs: str, outputs: int = 1, **about: object) -> str:
        """The (first) output's name; those of the others follow it in `nodes[-1].output`."""
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **about))
        return names[0]

    def constant(self, value: np.ndarray) -> str:
        name = self.name()
        half = self.how.half != "none" and value.dtype == np.float32
        self.constants.append(numpy_helper.from_array(value.astype(np.float16) if half else value, name))
        return self.node("Cast", name, to=TensorProto.FLOAT) if half and self.how.half == "stored" else name

    def number(self, value: float) -> str:
        """A constant that is a node: the exporter leaves them in place."""
        kind = np.float16 if self.how.half == "computed" else np.float32
        return self.node("Constant", value=numpy_helper.from_array(np.array(value, kind)))

    def cast(self, x: str, kind: int) -> str:
        return self.node("Cast", x, to=kind) if self.how.half == "computed" else x

    def normal(self, *shape: int, std: float, mean: float = 0.0) -> np.ndarray:
        value = self.rng.standard_normal(shape, dtype=np.float32)
        value *= np.float32(std)
        value += np.float32(mean)
        return value

    def conv(
        self, x: str, inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1, mirrored: bool = False
    ) -> str:
        pad = kernel // 2
        if mirrored:
            pads = np.array([0, 0, pad, pad, 0, 0, pad, pad], np.int64)
            x = self.node("Pad", x, self.constant(pads), mode=self.how.pad_mode)
        weight = self.normal(outputs, inputs, kernel, kernel, std=(2 / (inputs * kernel**2)) ** 0.5)
        return self.node(
            "Conv", x, self.constant(weight), self.constant(self.normal(outputs, std=0.1)),
            kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=[0 if mirrored else pad] * 4,
            dilations=[1, 1], group=1,
        )  # fmt: skip

    def leak(self, x: str) -> str:
        return self.node("LeakyRelu", x, alpha=self.how.alpha)

    def double(self, x: str) -> str:
        scales = self.node("Constant", value=numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32)))
        region = self.node("Constant", value=numpy_helper.from_array(np.zeros(0, np.float32)))
        return self.node("Resize", x, region, scales, mode="linear", coordinate_transformation_mode=self.how.doubling)

    def unit(self, x: str, channels: int) -> str:
        norm = self.how.norm
        if norm == "instance":
            ones, zeros = np.ones(channels, np.float32), np.zeros(channels, np.float32)
            return self.node(
                "InstanceNormalization", x, self.constant(ones), self.constant(zeros), epsilon=self.how.epsilon
            )
        centred = self.node("Sub", x, self.node("ReduceMean", x, axes=[2, 3], keepdims=1))
        variance = self.node("ReduceMean", self.node("Mul", centred, centred), axes=[2, 3], keepdims=1)
        epsilon = self.number(self.how.epsilon)
        if norm == "outside":
            return self.node("Div", centred, self.node("Add", self.node("Sqrt", variance), epsilon))
        variance = self.node("Add", variance, epsilon)
        if norm == "pow":
            return self.node("Mul", centred, self.node("Pow", variance, self.number(-0.5)))
        root = self.node("Sqrt", variance)
        if norm == "reciprocal":
            return self.node("Mul", self.node("Reciprocal", root), centred)
        return self.node("Mul", centred, self.node("Div", self.number(1.0), root))

    def style(self, channels: int) -> tuple[str, str]:
        """Scale and shift, (1, channels, 1, 1)."""
        weight = self.normal(2 * channels, LATENT, std=0.5)
        bias = self.normal(2 * channels, std=0.2)
        bias[:channels] += np.float32(not self.how.scale_from_one)
        if not self.how.scale_first:
            weight, bias = np.roll(weight, channels, 0), np.roll(bias, channels)
        if self.how.product == "gemm":
            numbers = self.node("Gemm", self.source, self.constant(weight), self.constant(bias), transB=1)
        else:
            numbers = self.node("MatMul", self.source, self.constant(np.ascontiguousarray(weight.T)))
            numbers = self.node("Add", self.constant(bias), numbers)
        first, second = self.cut(numbers, channels)
        scale, shift = (first, second) if self.how.scale_first else (second, first)
        return self.node("Add", scale, self.number(1.0)) if self.how.scale_from_one else scale, shift

    def cut(self, numbers: str, channels: int) -> tuple[str, str]:
        if self.how.halves == "gather":
            shape = self.constant(np.array([1, 2, channels, 1, 1], np.int64))
            pairs = self.node("Reshape", numbers, shape)
            first, second = (self.node("Gather", pairs, self.constant(np.array(i, np.int64)), axis=1) for i in (0, 1))
            return first, second
        tall = self.node("Unsqueeze", self.node("Unsqueeze", numbers, axes=[2]), axes=[3])
        if self.how.halves == "split":
            self.node("Split", tall, outputs=2, axis=1, split=[channels, channels])
            return self.nodes[-1].output[0], self.nodes[-1].output[1]
        ends = [np.array([i * channels], np.int64) for i in range(3)]
        axis = self.constant(np.array([1], np.int64))
        first, second = (self.node("Slice", tall, self.constant(a), self.constant(b), axis) for a, b in pairwise(ends))
        return first, second

    def restyled(self, x: str, channels: int) -> str:
        unit = self.unit(x, channels)
        scale, shift = self.style(channels)
        return self.node("Add", self.node("Mul", unit, scale), shift)

    def block(self, x: str, channels: int) -> str:
        y = self.restyled(self.conv(x, channels, channels, mirrored=True), channels)
        y = self.node("Relu", y) if self.how.relu else y
        y = self.restyled(self.conv(y, channels, channels, mirrored=True), channels)
        return self.node("Add", x, y) if self.how.residual else y


def build(
    widths: tuple[int, int, int, int] = NARROW,
    blocks: int = 2,
    *,
    size: int = 128,
    seed: int = 0,
    how: Variation | None = None,
) -> bytes:
    """A file: `target` (1, 3, size, size) and `source` (1, 512) to `output`, and a matrix that no node uses."""
    w0, w1, w2, w3 = widths
    made = _Builder(how or Variation(), np.random.default_rng(seed))
    x, made.source = (made.cast(name, TensorProto.FLOAT16) for name in ("target", "source"))
    x = made.leak(made.conv(x, 3, w0, kernel=7, mirrored=True))
    x = made.leak(made.conv(x, w0, w1))
    x = made.leak(made.conv(x, w1, w2, stride=2))
    x = made.leak(made.conv(x, w2, w3, stride=2))
    for _ in range(blocks):
        x = made.block(x, w3)
    x = made.leak(made.conv(made.double(x), w3, w2))
    x = made.leak(made.conv(made.double(x), w2, w1))
    x = made.leak(made.conv(x, w1, w0))
    x = made.conv(x, w0, 3, kernel=7, mirrored=True)
    x = made.node("Add", made.node("Tanh", x), made.number(1.0))
    x = made.cast(made.node("Div", x, made.number(2.0)), TensorProto.FLOAT)
    made.nodes[-1].output[0] = "output"
    projection = numpy_helper.from_array(made.normal(LATENT, LATENT, std=LATENT**-0.5), "buff2fs")
    shapes = {"target": [1, 3, size, size], "source": [1, LATENT], "output": [1, 3, size, size]}
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    graph = helper.make_graph(made.nodes, "torch-jit-export", ports[:2], ports[2:], [*made.constants, projection])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    return bytes(model.SerializeToString())
