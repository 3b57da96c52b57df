"""Reading an inswapper network's plan and weights out of its ONNX graph.

The graph is followed from the crop to the answer along its convolutions, and what stands between two of them must be
one of the things that a `Plan` can say; anything else is an `UnknownGraph`, whose message says what was expected.
How an exporter spelled a formula doesn't matter: restyling (six to twenty nodes, of which no two exporters write the
same) and the last scaling are cut out and *tried*, on inputs from which the constants can be told, and then must agree
with the formula on random ones. So epsilon, the order of scale and shift, and a scale that counts from one are
measured on the file and not guessed from its nodes.

Constants may be of any float type and behind any constant nodes (a cast, a transpose); all reading is in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx

from nanoswap.pipelines.face import Floats
from nanoswap.pipelines.inswapper_net import ConvPlan, Doubling, Plan
from nanoswap.pipelines.onnx_graph import Graph, UnknownGraph, attributes

Array = npt.NDArray[Any]

STEM, HEAD, DOUBLED = 4, 4, 2
"""Convolutions before and after the blocks; how many of the latter have a doubling before them."""
_LOOKS_ON: Final = ("Identity", "Cast", "Dropout")
_AGREES: Final = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class SwapWeights:
    """convs: float32 (outputs, inputs, k, k) and (outputs,), in the order of the plan: stem, blocks, head.
    styles: one product for all restylings, float32 (2 * all their channels, latent) and its bias: for each restyling in
    turn the rows of its scales, then of its shifts. half: the file itself computes in float16."""

    plan: Plan
    half: bool
    convs: tuple[tuple[Floats, Floats], ...]
    styles: tuple[Floats, Floats]


def read_weights(onnx_bytes: bytes) -> SwapWeights:
    """Raises `UnknownGraph`."""
    return _Reader(Graph(onnx.load_model_from_string(onnx_bytes))).read()


class _Reader:
    """A place in the graph that moves on from the crop, and what has been read on the way."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        pictures = [(name, shape) for name, shape in graph.inputs.items() if len(shape) == 4]
        identities = [(name, shape) for name, shape in graph.inputs.items() if len(shape) == 2]
        if len(pictures) != 1 or len(identities) != 1:
            raise UnknownGraph(f"expected one picture and one identity as inputs, found {graph.inputs}")
        (self.at, shape), (self.source, identity) = pictures[0], identities[0]
        if shape[1] != 3 or shape[2] != shape[3] or not shape[2] or not identity[1]:
            raise UnknownGraph(f"expected a square picture of 3 channels and a known length, found {graph.inputs}")
        self.size = self.side = shape[2]
        self.latent, self.channels = identity[1], 3
        self.convs: list[tuple[Floats, Floats]] = []
        self.styles: list[tuple[Floats, Floats]] = []
        self.epsilons: list[float] = []
        self.doublings: list[Doubling] = []

    def read(self) -> SwapWeights:
        stem = tuple(self.leak(self.conv()) for _ in range(STEM))
        blocks = []
        while not self.sees("Resize", "Upsample"):
            blocks.append(self.block())
        head = []
        for index in range(HEAD):
            if index < DOUBLED:
                self.double()
            head.append(self.conv() if index == HEAD - 1 else self.leak(self.conv()))
        self.step("Tanh")
        if (self.channels, self.side) != (3, self.size):
            raise UnknownGraph(f"expected the crop's size at the end, found {self.channels} channels of {self.side} px")
        gain, offset = self.scaling()
        if not blocks or len(set(self.doublings)) != 1 or np.ptp(self.epsilons) > 0.01 * max(self.epsilons) + 1e-13:
            raise UnknownGraph("expected blocks with one epsilon and doublings of one kind")
        plan = Plan(
            size=self.size,
            latent=self.latent,
            stem=stem,
            blocks=tuple(blocks),
            head=tuple(head),
            doubling=self.doublings[0],
            epsilon=float(np.median(self.epsilons)),
            gain=gain,
            offset=offset,
        )
        weights, biases = zip(*self.styles, strict=True)
        return SwapWeights(plan, self.graph.half, tuple(self.convs), (np.concatenate(weights), np.concatenate(biases)))

    def users(self) -> list[onnx.NodeProto]:
        """The nodes that use this place, past those that only look on."""
        users = self.graph.used[self.at]
        while len(users) == 1 and users[0].op_type in _LOOKS_ON:
            self.at = users[0].output[0]
            users = self.graph.used[self.at]
        return users

    def sees(self, *ops: str) -> bool:
        return any(node.op_type in ops for node in self.users())

    def step(self, *ops: str) -> onnx.NodeProto:
        """On to the one user of these kinds."""
        found = [node for node in self.users() if node.op_type in ops]
        if len(found) != 1 or found[0].input[0] != self.at:
            seen = ", ".join(node.op_type for node in self.users()) or "the end"
            raise UnknownGraph(f"expected {' or '.join(ops)} after '{self.at}', found {seen}")
        self.at = found[0].output[0]
        return found[0]

    def conv(self) -> ConvPlan:
        node, pad, mirrored = self.step("Pad", "Conv"), 0, False
        if node.op_type == "Pad":
            mode = attributes(node).get("mode", b"constant")
            pads = attributes(node)["pads"] if self.graph.version < 11 else self.graph.constant(node.input[1]).tolist()
            pad, mirrored = _even(pads[2:4] + pads[6:8]), mode == b"reflect"
            constant = mode == b"constant" and not (len(node.input) > 2 and self.graph.constant(node.input[2]).any())
            if any(pads[:2] + pads[4:6]) or not (mirrored or constant):
                raise UnknownGraph(f"expected '{node.output[0]}' to be padded by its mirror or by zeros, on its sides")
            node = self.step("Conv")
        about = attributes(node)
        strides, own = about.get("strides", [1, 1]), _even(about.get("pads", [0, 0, 0, 0]))
        weight = _owned(self.graph.constant(node.input[1]))
        outputs, inputs, kernel, other = weight.shape
        plain = about.get("group", 1) == 1 and set(about.get("dilations", [1])) == {1}
        plain = plain and about.get("auto_pad", b"NOTSET") == b"NOTSET" and not (pad and own)
        if not plain or kernel != other or len(set(strides)) != 1 or inputs != self.channels:
            raise UnknownGraph(f"expected a plain square convolution of {self.channels} channels at '{node.output[0]}'")
        bias = self.graph.constant(node.input[2]) if len(node.input) > 2 else np.zeros(outputs)
        self.convs.append((weight, _owned(bias)))
        self.side = (self.side + 2 * (pad + own) - kernel) // strides[0] + 1
        self.channels = outputs
        return ConvPlan(
            inputs=inputs,
            outputs=outputs,
            kernel=kernel,
            stride=strides[0],
            pad=pad + own,
            mirrored=mirrored,
            slope=1.0,
        )

    def leak(self, plan: ConvPlan) -> ConvPlan:
        """Past the activation, if there is one."""
        if not self.sees("LeakyRelu", "Relu"):
            return plan
        node = self.step("LeakyRelu", "Relu")
        slope = float(attributes(node).get("alpha", 0.01)) if node.op_type == "LeakyRelu" else 0.0
        return replace(plan, slope=slope)

    def block(self) -> tuple[ConvPlan, ConvPlan]:
        self.users()
        start, entered = self.at, (self.channels, self.side)
        inner = self.conv()
        self.restyling(self.downstream("Relu", "LeakyRelu", "Pad", "Conv"))
        inner = self.leak(inner)
        outer = self.conv()
        sums = [node for node in self.graph.used[start] if node.op_type == "Add"]
        if len(sums) != 1 or (self.channels, self.side) != entered:
            raise UnknownGraph(f"expected '{start}' to be added to what its block makes of it, in the same shape")
        self.restyling(next(name for name in sums[0].input if name != start))
        self.at = sums[0].output[0]
        return inner, outer

    def downstream(self, *ops: str) -> str:
        """The input of the first node of these kinds that this place leads to."""
        reached = {self.at}
        for node in self.graph.made.values():
            met = [name for name in node.input if name in reached]
            if met and node.op_type in ops:
                return str(met[0])
            if met:
                reached.update(node.output)
        raise UnknownGraph(f"expected {' or '.join(ops)} after '{self.at}'")

    def restyling(self, end: str) -> None:
        """Read the restyling between this place and `end`, and go there."""
        style, weight, bias = self.product(end)
        count = self.channels
        if weight.shape != (2 * count, self.latent):
            raise UnknownGraph(f"expected {2 * count} numbers from the identity for '{end}', found {weight.shape}")

        def tried(x: Floats, numbers: Array) -> Array:
            return self.graph.evaluate(end, {self.at: x, style: numbers[None].astype(np.float32)})

        # +-1e-4, so that the usual epsilons (1e-5 to 1e-8) weigh as much as the variance or more.
        small = 1e-4
        board = np.where(np.indices((self.side, self.side)).sum(0) % 2, small, -small).astype(np.float32)
        x = np.tile(board, (1, count, 1, 1))
        halves = np.repeat(np.eye(2), count, axis=1)
        nothing, first, second = (tried(x, numbers) for numbers in (np.zeros(2 * count), *halves))
        # A shift adds the same everywhere, a scale what varies.
        scale_first = float(np.ptp(first - nothing)) > float(np.ptp(second - nothing))
        varying = float(np.abs((first if scale_first else second) - nothing).mean())
        from_one = float(np.abs(nothing).mean()) > varying / 2
        epsilon = max(small**2 * (1 / max(varying, 1e-6) ** 2 - 1), 0.0)

        rng = np.random.default_rng(0)
        spread = np.logspace(-5, 0.5, count).reshape(1, count, 1, 1)
        x = (spread * (rng.standard_normal(x.shape) + rng.standard_normal(spread.shape))).astype(np.float32)
        numbers = rng.standard_normal((2, count))
        scale, shift = numbers if scale_first else numbers[::-1]
        centred = x.astype(float) - x.mean((2, 3), keepdims=True, dtype=float)
        unit = centred / np.sqrt(np.square(centred).mean((2, 3), keepdims=True) + epsilon)
        expected = unit * (scale + from_one)[:, None, None] + shift[:, None, None]
        if not np.abs(tried(x, numbers.ravel()) - expected).max() <= _AGREES * np.abs(expected).max():
            raise UnknownGraph(
                f"expected (x - mean) / sqrt(variance + epsilon) times a scale plus a shift from '{self.at}' to '{end}'"
            )
        halves_of = np.split(weight, 2), np.split(bias, 2)
        weights, biases = halves_of if scale_first else (halves_of[0][::-1], halves_of[1][::-1])
        self.styles.append((np.concatenate(weights), np.concatenate([biases[0] + np.float32(from_one), biases[1]])))
        self.epsilons.append(epsilon)
        self.at = end

    def product(self, end: str) -> tuple[str, Floats, Floats]:
        """The one product with the identity that `end` depends on, before this place: name, weight, bias."""
        found: dict[str, onnx.NodeProto] = {}
        left, seen = [end], {self.at}
        while left:
            name = left.pop()
            if name in seen or name not in self.graph.made:
                continue
            seen.add(name)
            node = self.graph.made[name]
            if node.op_type in ("Gemm", "MatMul"):
                found[name] = node
            else:
                left += node.input
        if len(found) != 1:
            raise UnknownGraph(f"expected one product with the identity before '{end}', found {len(found)}")
        (name, node), about = found.popitem(), {}
        given = node.input[0]
        while given in self.graph.made and self.graph.made[given].op_type in _LOOKS_ON:
            given = self.graph.made[given].input[0]
        if given != self.source:
            raise UnknownGraph(f"expected '{name}' to be a product with the identity itself")
        weight = self.graph.constant(node.input[1])
        bias = np.zeros(1, np.float32)
        if node.op_type == "Gemm":
            about = attributes(node)
            weight = about.get("alpha", 1.0) * (weight if about.get("transB", 0) else weight.T)
            if len(node.input) > 2:
                bias = about.get("beta", 1.0) * self.graph.constant(node.input[2])
        else:
            # Without a bias of its own: the sum behind it is part of the product.
            weight, behind = weight.T, self.graph.used[name]
            if len(behind) == 1 and behind[0].op_type == "Add":
                bias = self.graph.constant(next(one for one in behind[0].input if one != name))
                name = behind[0].output[0]
        return name, _owned(weight), _owned(np.broadcast_to(bias.ravel(), len(weight)))

    def double(self) -> None:
        node = self.step("Resize", "Upsample")
        about, version = attributes(node), self.graph.version
        names = {"half_pixel": "half_pixel", "pytorch_half_pixel": "half_pixel", "align_corners": "align_corners",
                 "asymmetric": "asymmetric"}  # fmt: skip
        # Before there was a choice, samples lay where "asymmetric" has them.
        manner = about.get("coordinate_transformation_mode", b"half_pixel").decode() if version >= 11 else "asymmetric"
        if about.get("mode", b"nearest") != b"linear" or manner not in names:
            raise UnknownGraph(f"expected '{node.output[0]}' to be a linear doubling, found {manner}")
        goal = [1, self.channels, 2 * self.side, 2 * self.side]
        scales = node.input[2 if version >= 11 else 1] if len(node.input) > 1 else ""
        if len(node.input) > 3 and node.input[3]:
            # Sizes that are computed from the picture's own can't be read here: the comparison with the file decides.
            try:
                doubled = self.graph.constant(node.input[3]).tolist()[1:] == goal[1:]
            except UnknownGraph:
                doubled = True
        else:
            factors = self.graph.constant(scales).tolist() if scales else about.get("scales")
            doubled = factors == [1, 1, 2, 2]
        if not doubled:
            raise UnknownGraph(f"expected '{node.output[0]}' to be doubled to {goal}")
        self.side *= 2
        self.doublings.append(names[manner])  # type: ignore[arg-type]

    def scaling(self) -> tuple[float, float]:
        """What is done to the tanh: times gain plus offset."""
        if len(self.graph.outputs) != 1:
            raise UnknownGraph(f"expected one output, found {self.graph.outputs}")
        x = np.random.default_rng(0).uniform(-1, 1, (1, 3, self.size, self.size)).astype(np.float32)
        y = self.graph.evaluate(self.graph.outputs[0], {self.at: x}) if self.at != self.graph.outputs[0] else x
        if y.shape != x.shape:
            raise UnknownGraph(f"expected an output of {x.shape}, found {y.shape}")
        gain, offset = np.polyfit(x.ravel().astype(float), y.ravel().astype(float), 1)
        if not np.abs(gain * x + offset - y).max() <= _AGREES * max(abs(gain), 1e-6):
            raise UnknownGraph("expected the output to be the tanh times a number plus a number")
        return float(gain), float(offset)


def _even(pads: list[int]) -> int:
    if len(set(pads)) != 1:
        raise UnknownGraph(f"expected the same padding on all sides, found {pads}")
    return int(pads[0])


def _owned(value: Array) -> Floats:
    """A copy that may be written to: torch takes its memory over."""
    return np.array(value, np.float32, order="C")
