"""A network in ONNX Runtime, made of bytes that were checked, whose forward serves all who call at once.

Most published graphs say that they take one row, because they were exported with one. Where a graph computes every
row for itself all the same, the first dimension is set free when it is loaded, and a trial decides: two rows together
must give what they give one by one. A graph that fails the trial is run row by row, as it was published.

It looks like a session to insightface, whose own code does what lies before and behind a network.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx.external_data_helper import uses_external_data

from nanoswap.pipelines.model_store import ModelError
from nanoswap.pipelines.onnx_arena import shared_arena, shrinking
from nanoswap.pipelines.runtime import DeviceMissing, Runtime
from nanoswap.pipelines.window import Batching, Window

log = logging.getLogger(__name__)

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# Of the outputs' own range, rows together against rows alone. More where a forward has only 10 bits of mantissa: in a
# file that computes in float16, and on CUDA, whose convolutions use TF32.
_SAME: Final = 1e-3
_SAME_COARSE: Final = 1e-2
_FREE_SIDE: Final = 64  # px, for the trial, where a graph takes any size


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output as the file declares it; a side that is free is a name or None."""

    name: str
    shape: tuple[int | str | None, ...]
    type: str


class NotSelfContained(ModelError):
    """The graph keeps weights in another file, which nobody has hashed."""


def check_device(device: str) -> None:
    """Raises `DeviceMissing`."""
    if PROVIDERS[device] not in onnxruntime.get_available_providers():
        raise DeviceMissing(f"this build of ONNX Runtime can't use '{device}'")


class OnnxNet:
    """Thread safe.

    data      the model file. device: cpu or cuda. threads: of the CPU's, per forward; 0 leaves it to the runtime.
    Raises `DeviceMissing`, `NotSelfContained`, and what ONNX Runtime raises for a graph that it can't load.
    """

    def __init__(self, data: bytes, *, device: str = "cpu", threads: int = 0, batching: Batching | None = None) -> None:
        batching = batching or Batching()
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        # Codecs and other replicas share the cores: a thread that has nothing to do should sleep.
        self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        check_device(device)
        shared_arena().join(self._options)
        self._device = device
        self._last: dict[str, tuple[tuple[int, ...], Any]] = {}
        model = onnx.load_model_from_string(data)
        half = False
        for tensor in tensors(model.graph):
            if uses_external_data(tensor):
                raise NotSelfContained(f"'{tensor.name}' of a graph lies in another file, which nobody has hashed")
            half |= tensor.data_type == onnx.TensorProto.FLOAT16
        self._session = self._open(data)
        self._inputs = [Port(one.name, tuple(one.shape), one.type) for one in self._session.get_inputs()]
        self._outputs = [Port(one.name, tuple(one.shape), one.type) for one in self._session.get_outputs()]
        self.forwards = 0
        self.rows = 0
        most = batching.most
        if most > 1:
            fixed = any(isinstance(one.shape[0], int) for one in self._inputs)
            free = self._open(set_free(model)) if fixed else self._session
            if self._trial(self._session, free, _SAME_COARSE if half or device == "cuda" else _SAME):
                self._session = free
            else:
                log.warning("a network with the output '%s' runs row by row", self._outputs[0].name)
                most = 1
        self.batch = most
        self._window: Window[Feeds, list[Array]] = Window(self._together, replace(batching, most=most))

    @classmethod
    def of(cls, data: bytes, runtime: Runtime) -> OnnxNet:
        """As an operator wants networks run."""
        return cls(data, device=runtime.device, threads=runtime.threads, batching=runtime.batching)

    def forward(self, *rows: Array) -> list[Array]:
        """All outputs for `rows`, one array per input in the graph's order, first axis: rows. Outputs whose first axis
        is not the row are joined along it all the same. The results are the caller's to wipe."""
        return self.run(None, {port.name: value for port, value in zip(self._inputs, rows, strict=True)})

    def run(self, outputs: Sequence[str] | None, feeds: Feeds) -> list[Array]:
        """As a session's `run`; `outputs` None means all, in order."""
        count = len(next(iter(feeds.values())))
        parts = [
            self._window(
                {name: value[at : at + self.batch] for name, value in feeds.items()}, min(self.batch, count - at)
            )
            for at in range(0, count, self.batch)
        ]
        joined = parts[0]
        if len(parts) > 1:
            joined = [np.concatenate(each) for each in zip(*parts, strict=True)]
            for part in parts:
                for value in part:
                    value.fill(0)
        if outputs is None:
            return joined
        known = [one.name for one in self._outputs]
        return [joined[known.index(name)] for name in outputs]

    def rinse(self) -> None:
        """On CUDA hand back the network's arena there, which is its own; on the processor `Arena.rinse` does so for
        all networks. By a forward of a row of zeros, as large as the last one."""
        last = self._last
        if self._device == "cuda" and last:
            self._session.run(None, {name: np.zeros(*each) for name, each in last.items()}, shrinking("gpu:0;cpu:0"))

    def get_inputs(self) -> list[Port]:
        return list(self._inputs)

    def get_outputs(self) -> list[Port]:
        return list(self._outputs)

    def _open(self, data: bytes) -> onnxruntime.InferenceSession:
        # Where memory is asked for as it is needed, all of it can be handed back: see `onnx_arena`.
        how = [{"arena_extend_strategy": "kSameAsRequested"}] if self._device == "cuda" else None
        session = onnxruntime.InferenceSession(data, self._options, [PROVIDERS[self._device]], how)
        if session.get_providers()[0] != PROVIDERS[self._device]:
            raise DeviceMissing(f"ONNX Runtime refused '{self._device}' and would have run on the processor")
        return session

    def _together(self, calls: Sequence[Feeds]) -> list[list[Array]]:
        """One forward for all calls (of one shape; other shapes have one of their own)."""
        results: list[list[Array] | None] = [None] * len(calls)
        for shape in {_shape(call) for call in calls}:
            mine = [index for index, call in enumerate(calls) if _shape(call) == shape]
            counts = [len(next(iter(calls[index].values()))) for index in mine]
            if len(mine) == 1:
                results[mine[0]] = self._forward(self._session, calls[mine[0]])
                continue
            joined = {name: np.concatenate([calls[index][name] for index in mine]) for name in calls[mine[0]]}
            try:
                outputs = self._forward(self._session, joined)
            finally:
                for value in joined.values():
                    value.fill(0)
            cuts = np.cumsum(counts)
            for index, count, end in zip(mine, counts, cuts, strict=True):
                results[index] = [_rows(out, end - count, end, cuts[-1]) for out in outputs]
            for out in outputs:
                out.fill(0)
        return [result for result in results if result is not None]

    def _forward(self, session: onnxruntime.InferenceSession, feeds: Feeds) -> list[Array]:
        self.forwards += 1
        self.rows += len(next(iter(feeds.values())))
        self._last = {name: ((1, *value.shape[1:]), value.dtype) for name, value in feeds.items()}
        # Out of the arena, which an answer would hold for as long as somebody has it, be it an error's frames.
        made = [np.asarray(out) for out in session.run(None, dict(feeds))]
        answers = [out.copy() for out in made]
        for out in made:
            out.fill(0)
        return answers

    def _trial(
        self, published: onnxruntime.InferenceSession, free: onnxruntime.InferenceSession, allowed: float
    ) -> bool:
        rng = np.random.default_rng(0)
        feeds = {}
        for one in self._inputs:
            sides = [side if isinstance(side, int) else _FREE_SIDE for side in one.shape[1:]]
            feeds[one.name] = rng.standard_normal((2, *sides)).astype(np.float32)
        try:
            both = free.run(None, feeds)
            alone = [published.run(None, {name: value[i : i + 1] for name, value in feeds.items()}) for i in range(2)]
        except Exception:
            return False
        for out, first, second in zip(both, *alone, strict=True):
            single = np.concatenate([first, second])
            reach = max(float(np.abs(single).max()), 1e-6)
            if out.shape != single.shape or not np.abs(out - single).max() <= allowed * reach:
                return False
        return True


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every constant of a graph, those of its nodes and of the graphs inside them too."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
                yield from tensors(inner)


def set_free(model: onnx.ModelProto) -> bytes:
    """The graph with its first dimension free, and nothing said of the shapes in between. Changes `model`."""
    for value in (*model.graph.input, *model.graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if dimensions:
            dimensions[0].Clear()
            dimensions[0].dim_param = "rows"
    del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def _shape(feeds: Feeds) -> tuple[tuple[int, ...], ...]:
    return tuple(value.shape[1:] for value in feeds.values())


def _rows(out: Array, start: int, end: int, total: int) -> Array:
    """Rows `start` to `end` of `total`, where a row may be several entries of the first axis."""
    each = len(out) // total
    return out[start * each : end * each].copy()
