"""What runs the networks, as an operator sets it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from nanoswap.pipelines.model_store import ModelError
from nanoswap.pipelines.window import Batching

Device = Literal["cpu", "cuda"]
Swapper = Literal["onnx", "torch"]


class DeviceMissing(ModelError):
    """The device that was asked for can't be used: nothing is ever run on a slower one in silence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """device   cpu or cuda; never the one in place of the other.
    swapper  what runs the swap network: ONNX Runtime, or torch with the same weights (inswapper's graph only).
    dtype    of what torch runs: float32, bfloat16 or float16; statistics are float32 always.
    threads  of the processor per forward; 0 leaves it to the runtime.
    step_batch  pictures that share one step of diffusion.
    admitted    faces that are on their way through an engine of diffusion at once; more wait. It bounds memory, and is
                at least `step_batch`.
    compile     let torch compile what diffusion runs at every step. Loading takes minutes longer.
    """

    device: Device = "cpu"
    swapper: Swapper = "onnx"
    dtype: str = "float32"
    threads: int = 0
    batching: Batching = field(default_factory=Batching)
    step_batch: int = 8
    admitted: int = 16
    compile: bool = False
