"""An ONNX graph to be asked questions: who makes and uses a tensor, and what a part of the graph computes.

Constants may be of any float type and behind any constant nodes (a cast, a transpose); all reading is in float32.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from nanoswap.pipelines.model_store import ModelError

Array = npt.NDArray[Any]


class UnknownGraph(ModelError):
    """The graph isn't of the kind that was expected."""


class Graph:
    """Who makes and who uses each tensor; and what a part of the graph computes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.opsets = list(model.opset_import)
        self.version = max([one.version for one in self.opsets if one.domain in ("", "ai.onnx")], default=1)
        self.made = {name: node for node in graph.node for name in node.output}
        self.used: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in dict.fromkeys(node.input):
                self.used[name].append(node)
        self._order = {id(node): index for index, node in enumerate(graph.node)}
        self._constants = {one.name: one for one in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
        self.half = any(
            one.data_type == TensorProto.FLOAT16 and any(node.op_type == "Conv" for node in self.used[name])
            for name, one in self._constants.items()
        )
        self.inputs = {
            one.name: [side.dim_value for side in one.type.tensor_type.shape.dim]
            for one in graph.input
            if one.name not in self._constants
        }
        self.outputs = [one.name for one in graph.output]

    def constant(self, name: str) -> Array:
        """Raises `UnknownGraph` when `name` depends on an input of the graph."""
        if name in self._constants:
            return _widened(numpy_helper.to_array(self._constants[name]))
        return self.evaluate(name, {})

    def evaluate(self, name: str, feeds: Mapping[str, Array]) -> Array:
        """What the nodes between `feeds` and `name` compute, in float32 whatever the file computes in."""
        constants, nodes, left = {}, {}, [name]
        while left:
            one = left.pop()
            if one in feeds or not one:
                continue
            if one in self._constants:
                constants[one] = _widened(numpy_helper.to_array(self._constants[one]))
            elif one in self.made:
                node = self.made[one]
                if id(node) not in nodes:
                    nodes[id(node)] = node
                    left += node.input
            else:
                raise UnknownGraph(f"'{name}' was expected not to depend on '{one}'")
        given = {**constants, **feeds}
        part = helper.make_graph(
            [_in_float32(nodes[key]) for key in sorted(nodes, key=self._order.__getitem__)], "part",
            [helper.make_tensor_value_info(each, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
             for each, value in given.items()],
            [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None)],
        )  # fmt: skip
        try:
            (result,) = ReferenceEvaluator(helper.make_model(part, opset_imports=self.opsets)).run(None, given)
        except Exception as error:
            raise UnknownGraph(f"'{name}' can't be computed apart from its graph: {error}") from error
        return _widened(np.asarray(result))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


def _widened(value: Array) -> Array:
    return value.astype(np.float32) if value.dtype in (np.float16, np.float64) else value


def _in_float32(node: onnx.NodeProto) -> onnx.NodeProto:
    """The node, with float32 where it casts to another float."""
    if node.op_type != "Cast" or attributes(node)["to"] not in (TensorProto.FLOAT16, TensorProto.DOUBLE):
        return node
    return helper.make_node("Cast", list(node.input), list(node.output), to=TensorProto.FLOAT)
