"""A network in ONNX Runtime, made of bytes that were checked, whose forward serves all who call at once.

Most published graphs say that they take one row, because they were exported with one. Where a graph computes every
row for itself all the same, the first dimension is set free when it is loaded, and a trial decides: two rows together
must give what they give one by one. A graph that fails the trial is run row by row, as it was published.

It looks like a session to insightface, whose own code does what lies before and behind a network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from nanoswap.pipelines.window import Batching, Window

Array = npt.NDArray[Any]
Feeds = Mapping[str, Array]

PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_SAME: Final = 1e-3  # of the outputs' own range: rows together against rows alone
_FREE_SIDE: Final = 64  # px, for the trial, where a graph takes any size


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output as the file declares it; a side that is free is a name or None."""

    name: str
    shape: tuple[int | str | None, ...]
    type: str


class DeviceMissing(RuntimeError):
    """The device that was asked for can't be used: nothing is ever run on a slower one in silence."""


class OnnxNet:
    """Thread safe.

    data      the model file. device: cpu or cuda. threads: of the CPU's, per forward; 0 leaves it to the runtime.
    Raises `DeviceMissing`, and what ONNX Runtime raises for a graph that it can't load.
    """

    def __init__(self, data: bytes, *, device: str = "cpu", threads: int = 0, batching: Batching | None = None) -> None:
        batching = batching or Batching()
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.log_severity_level = 3
        # Codecs and other replicas share the cores: a thread that has nothing to do should sleep.
        self._options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if PROVIDERS[device] not in onnxruntime.get_available_providers():
            raise DeviceMissing(f"this build of ONNX Runtime can't use '{device}'")
        self._device = device
        self._session = self._open(data)
        self._inputs = [Port(one.name, tuple(one.shape), one.type) for one in self._session.get_inputs()]
        self._outputs = [Port(one.name, tuple(one.shape), one.type) for one in self._session.get_outputs()]
        self.forwards = 0
        self.rows = 0
        most = batching.most
        if most > 1 and any(isinstance(one.shape[0], int) for one in self._inputs):
            free = self._open(set_free(data))
            if self._trial(self._session, free):
                self._session = free
            else:
                most = 1
        self.batch = most
        self._window: Window[Feeds, list[Array]] = Window(self._together, replace(batching, most=most))

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
        joined = parts[0] if len(parts) == 1 else [np.concatenate(each) for each in zip(*parts, strict=True)]
        if outputs is None:
            return joined
        known = [one.name for one in self._outputs]
        return [joined[known.index(name)] for name in outputs]

    def get_inputs(self) -> list[Port]:
        return list(self._inputs)

    def get_outputs(self) -> list[Port]:
        return list(self._outputs)

    def _open(self, data: bytes) -> onnxruntime.InferenceSession:
        session = onnxruntime.InferenceSession(data, self._options, providers=[PROVIDERS[self._device]])
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
        return [np.asarray(out) for out in session.run(None, dict(feeds))]

    def _trial(self, published: onnxruntime.InferenceSession, free: onnxruntime.InferenceSession) -> bool:
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
            if out.shape != single.shape or not np.abs(out - single).max() <= _SAME * reach:
                return False
        return True


def set_free(data: bytes) -> bytes:
    """The same graph with its first dimension free, and nothing said of the shapes in between."""
    model = onnx.load_model_from_string(data)
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
