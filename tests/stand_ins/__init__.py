"""Stand-ins for weights that nobody may commit: tiny ONNX files with the inputs, outputs, names and stowaways of the
real ones, so that the code that loads the real ones runs in every test and offline.

They are built, not trained: the detector and the encoder know two people by heart, those of the public-domain
portraits, and the rest is seeded noise that is scaled until something can be seen. Two builds are the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET: Final = 13
_IR: Final = 8  # what ONNX Runtime reads since 1.10

Side = int | str


class Graph:
    """A graph in the making: a call adds a node and returns the name of what it computes."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def __call__(self, op: str, *inputs: str | np.ndarray, out: str = "", name: str = "", **attributes: Any) -> str:
        """Arrays among the `inputs` become initialisers. `out` names the result, `name` the node: insightface reads
        how a file wants its pixels from nodes called Sub… and Mul…, so nodes are not called by their kind."""
        number = len(self._nodes)
        out = out or f"t{number}"
        names = [one if isinstance(one, str) else self.constant(f"{out}.{at}", one) for at, one in enumerate(inputs)]
        self._nodes.append(helper.make_node(op, names, [out], name=name or f"node_{number}", **attributes))
        return out

    def constant(self, name: str, value: np.ndarray) -> str:
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def model(
        self, name: str, inputs: dict[str, Sequence[Side]], outputs: dict[str, Sequence[Side]]
    ) -> onnx.ModelProto:
        """Names to shapes, all float32; a side that is a word is free."""
        ports = [
            [helper.make_tensor_value_info(port, TensorProto.FLOAT, list(shape)) for port, shape in each.items()]
            for each in (inputs, outputs)
        ]
        graph = helper.make_graph(self._nodes, name, ports[0], ports[1], initializer=self._constants)
        model = helper.make_model(graph, producer_name="stand-in", opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = _IR
        onnx.checker.check_model(model)
        return model


def floats(*values: float) -> np.ndarray:
    """float32 (n,)."""
    return np.array(values, np.float32)


def whole(*values: int) -> np.ndarray:
    """int64 (n,), as ONNX wants axes and shapes."""
    return np.array(values, np.int64)


def noise(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """float32 weights that keep the variance of what they are applied to: (out, in, ...)."""
    return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)
