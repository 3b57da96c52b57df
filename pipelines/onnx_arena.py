"""The memory that networks in ONNX Runtime work in: one arena for all of them, handed back when a job is over.

By default each network has an arena of its own, which grows to what its largest forward needs and keeps it, with
everything that was written there: activations, and what the network gave. Without any arena (measured) the processor
spends a fifth to a third more on a narrow network, for pages that it is given and has to give back in each forward. So
the arena stays for as long as a job lasts, and is then handed back by a forward of a network that does nothing, which
is the runtime's way to ask for it (`memory.enable_memory_arena_shrinkage`): one for all, because all networks of a
process share it (`session.use_env_allocators`). What is handed back goes through `free`, which the service's processes
have fill or unmap it; weights lie elsewhere, so that they hold none of it. A piece in which somebody else's forward is
at work stays until that job is over.
"""

from __future__ import annotations

from functools import cache
from typing import Final

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

_AS_REQUESTED: Final = 1  # `kSameAsRequested`: of the other strategy the first piece is never handed back
_NOTHING: Final = np.zeros(1, np.float32)


class Arena:
    """Of this process; see `shared_arena`. Thread safe."""

    def __init__(self) -> None:
        memory = onnxruntime.OrtMemoryInfo(
            "Cpu", onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, onnxruntime.OrtMemType.DEFAULT
        )
        settings = onnxruntime.OrtArenaCfg({"arena_extend_strategy": _AS_REQUESTED})
        onnxruntime.create_and_register_allocator(memory, settings)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.join(options)
        self._session = onnxruntime.InferenceSession(_idle(), options, providers=["CPUExecutionProvider"])
        self._shrink = shrinking("cpu:0")

    def join(self, options: onnxruntime.SessionOptions) -> None:
        """Let a session of these options work here."""
        options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")

    def rinse(self) -> None:
        """Hand back everything that no forward is at work in and that no array of an answer holds."""
        self._session.run(None, {"x": _NOTHING}, self._shrink)


@cache
def shared_arena() -> Arena:
    """ONNX Runtime's environment is one for a process, and so is this."""
    return Arena()


def shrinking(devices: str) -> onnxruntime.RunOptions:
    """Of a forward behind which the arenas of `devices` (`cpu:0`, `gpu:0`) are handed back."""
    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", devices)
    return options


def _idle() -> bytes:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "idle", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return bytes(onnx.ModelProto.SerializeToString(model))
