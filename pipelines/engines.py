"""From the name of an engine to the engine: which files it needs, whether they may be used, what runs them.

The manifest says what an engine is made of; the store gives only files whose hash and licence are in order. The
libraries that networks need are imported when an engine that needs them is loaded, so the classical engine runs
without any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from nanoswap.pipelines.engine import Engine
from nanoswap.pipelines.manifest import EngineEntry, Manifest, Model, Role
from nanoswap.pipelines.model_store import ModelError, ModelStore
from nanoswap.pipelines.style import Style
from nanoswap.pipelines.swap_net import SwapNet
from nanoswap.pipelines.window import Batching

if TYPE_CHECKING:
    from nanoswap.pipelines.face import Floats
    from nanoswap.pipelines.onnx_net import OnnxNet

Device = Literal["cpu", "cuda"]
Swapper = Literal["onnx", "torch"]
LIBRARIES: Final = ("insightface", "onnx", "onnxruntime")


class EngineUnknown(ModelError):
    """The manifest has no engine of this name."""


class EngineUnusable(ModelError):
    """The engine's files are in order, and still it can't be run here."""


class LibraryMissing(ModelError):
    """A library that the engine needs is not installed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What runs the networks.

    device   cpu or cuda; never the one in place of the other.
    swapper  what runs the swap network: ONNX Runtime, or torch with the same weights (inswapper's graph only).
    dtype    of the torch runtime: float32, bfloat16 or float16; statistics are float32 always.
    threads  of the processor per forward; 0 leaves it to the runtime.
    """

    device: Device = "cpu"
    swapper: Swapper = "onnx"
    dtype: str = "float32"
    threads: int = 0
    batching: Batching = field(default_factory=Batching)


def check_engine(name: str, manifest: Manifest, store: ModelStore, runtime: Runtime) -> None:
    """Raise the `ModelError` that `load_engine` would, as far as it can be told without loading a network: every file
    is read and hashed, the libraries and the device are looked for."""
    entry = _entry(name, manifest)
    if entry.kind == "mesh":
        return
    torch = runtime.swapper == "torch"
    for library, extra in (*((one, "neural") for one in LIBRARIES), *((("torch", "gpu"),) if torch else ())):
        if find_spec(library) is None:
            raise LibraryMissing(f"the engine '{name}' needs {library}: pip install 'nanoswap[{extra}]'")
    _check_device(runtime)
    for model in _present(entry, store):
        if torch and manifest.models[model].role == "swapper":
            _check_torch(manifest.models[model])
        store.read(model)


def load_engine(name: str, manifest: Manifest, store: ModelStore, runtime: Runtime, style: Style) -> Engine:
    """The engine, ready to swap. Raises `ModelError` for one that isn't in the manifest, may not be used, or can't be
    loaded on this machine."""
    entry = _entry(name, manifest)
    if entry.kind == "mesh":
        from nanoswap.pipelines.mesh import MeshEngine

        return MeshEngine()
    try:
        return _neural(entry, manifest, store, runtime, style)
    except ModelError:
        raise
    except Exception as error:
        # What a graph can do wrong is without number, and it is the operator's file, not a person's.
        why = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise EngineUnusable(f"the engine '{name}' can't be loaded: {why[0]}") from error


def _check_device(runtime: Runtime) -> None:
    from nanoswap.pipelines.onnx_net import check_device

    check_device(runtime.device)
    if runtime.swapper == "torch":
        from nanoswap.pipelines.swap_net_torch import check_torch_device

        check_torch_device(runtime.device)


def _check_torch(model: Model) -> None:
    """The torch runtime is a re-statement of one graph: inswapper's."""
    if (model.parameters["latent"], model.parameters["mean"], model.parameters["std"]) != ("projected", 0, 1):
        raise EngineUnusable(f"the torch runtime runs inswapper's network only, not {model.name}: use onnx")


def _entry(name: str, manifest: Manifest) -> EngineEntry:
    if name not in manifest.engines:
        raise EngineUnknown(f"there is no engine '{name}': {', '.join(manifest.engines)}")
    return manifest.engines[name]


def _present(entry: EngineEntry, store: ModelStore) -> list[str]:
    return [*entry.needs, *(name for name in entry.uses if store.has(name))]


def _neural(entry: EngineEntry, manifest: Manifest, store: ModelStore, runtime: Runtime, style: Style) -> Engine:
    from nanoswap.pipelines.analysis import Detector, Encoder, Landmarks
    from nanoswap.pipelines.enhance import Enhancer
    from nanoswap.pipelines.masks import Occluder
    from nanoswap.pipelines.neural import Networks, NeuralEngine
    from nanoswap.pipelines.onnx_net import OnnxNet

    models = {manifest.models[name].role: manifest.models[name] for name in _present(entry, store)}
    files: dict[Role, bytes] = {role: store.read(model.name) for role, model in models.items()}

    def net(role: Role) -> OnnxNet:
        return OnnxNet(files[role], device=runtime.device, threads=runtime.threads, batching=runtime.batching)

    swapper, latent = _swapper(models["swapper"], files["swapper"], net("swapper"), runtime)
    networks = Networks(
        detector=Detector(net("detector")),
        encoder=Encoder(net("encoder"), files["encoder"]),
        swapper=swapper,
        latent=latent,
        landmarks=Landmarks(net("landmarks"), files["landmarks"]) if "landmarks" in models else None,
        occluder=Occluder(net("occluder")) if "occluder" in models else None,
        enhancer=Enhancer(net("enhancer")) if "enhancer" in models else None,
    )
    return NeuralEngine(entry.name, networks, style)


def _swapper(model: Model, data: bytes, net: OnnxNet, runtime: Runtime) -> tuple[SwapNet, Callable[[Floats], Floats]]:
    """The network, and what an identity goes through before it."""
    from nanoswap.pipelines.blob import Scaling
    from nanoswap.pipelines.swap_net_onnx import OnnxSwapNet, find_projection, project

    latent: Callable[[Floats], Floats] = np.copy
    if model.parameters["latent"] == "projected":
        latent = partial(project, projection=find_projection(data))
    if runtime.swapper == "onnx":
        scaling = Scaling(float(model.parameters["mean"]), float(model.parameters["std"]))
        return OnnxSwapNet(net, scaling), latent
    import torch

    from nanoswap.pipelines.shared_net import SharedNet
    from nanoswap.pipelines.swap_net_torch import load_torch_net

    _check_torch(model)
    if runtime.threads and runtime.device == "cpu":
        torch.set_num_threads(runtime.threads)
    torch_net = load_torch_net(
        data,
        device=runtime.device,
        dtype=runtime.dtype,
        reference=lambda target, source: net.forward(target, source)[0],
    )
    return SharedNet(torch_net, runtime.batching), latent
