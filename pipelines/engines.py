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
NEURAL: Final = ("insightface", "onnx", "onnxruntime")
TORCH: Final = ("torch",)
DIFFUSION: Final = ("torch", "diffusers", "transformers")


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


def check_engine(name: str, manifest: Manifest, store: ModelStore, runtime: Runtime) -> None:
    """Raise the `ModelError` that `load_engine` would, as far as it can be told without loading a network: every file
    is read and hashed, the libraries and the device are looked for."""
    entry = _entry(name, manifest)
    if entry.kind == "mesh":
        return
    diffusion = entry.kind == "instantid"
    torch = DIFFUSION if diffusion else TORCH if runtime.swapper == "torch" else ()
    for libraries, extra in ((NEURAL, "neural"), (torch, "gpu")):
        for library in libraries:
            if find_spec(library) is None:
                raise LibraryMissing(f"the engine '{name}' needs {library}: pip install 'nanoswap[{extra}]'")
    _check_device(runtime, bool(torch))
    if diffusion:
        _check_diffusion(entry, manifest, runtime)
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
        if entry.kind == "instantid":
            _check_diffusion(entry, manifest, runtime)
            return _instantid(entry, manifest, store, runtime, style)
        return _neural(entry, manifest, store, runtime, style)
    except ModelError:
        raise
    except Exception as error:
        # What a graph can do wrong is without number, and it is the operator's file, not a person's.
        why = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise EngineUnusable(f"the engine '{name}' can't be loaded: {why[0]}") from error


def _check_device(runtime: Runtime, torch: bool) -> None:
    from nanoswap.pipelines.onnx_net import check_device

    check_device(runtime.device)
    if torch:
        from nanoswap.pipelines.swap_net_torch import check_torch_device

        check_torch_device(runtime.device)


def _check_diffusion(entry: EngineEntry, manifest: Manifest, runtime: Runtime) -> None:
    if runtime.dtype == "float16":
        raise EngineUnusable(f"the engine '{entry.name}' overflows in float16 (SDXL's autoencoder does): use bfloat16")
    if runtime.device == "cpu" and not all(manifest.models[name].stand_in for name in entry.needs):
        raise EngineUnusable(
            f"the engine '{entry.name}' needs a GPU, a swap would take minutes without: "
            "NANOSWAP_DEVICE=cuda on a machine that has one"
        )


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


def _instantid(entry: EngineEntry, manifest: Manifest, store: ModelStore, runtime: Runtime, style: Style) -> Engine:
    import torch

    from nanoswap.pipelines.analysis import Detector, Encoder, Landmarks
    from nanoswap.pipelines.denoiser import Denoiser
    from nanoswap.pipelines.identity import Identity
    from nanoswap.pipelines.instantid import InstantIdEngine, Networks
    from nanoswap.pipelines.instantid_load import load_parts
    from nanoswap.pipelines.latents import Autoencoder
    from nanoswap.pipelines.masks import Occluder
    from nanoswap.pipelines.onnx_net import OnnxNet

    recipe = entry.recipe
    assert recipe is not None
    if runtime.threads and runtime.device == "cpu":
        torch.set_num_threads(runtime.threads)
    roles: dict[Role, str] = {manifest.models[name].role: name for name in _present(entry, store)}
    files: dict[Role, bytes] = {role: store.read(name) for role, name in roles.items()}
    dtype: torch.dtype = getattr(torch, runtime.dtype)
    loaded = load_parts(files, recipe, device=runtime.device, dtype=dtype)

    def net(role: Role) -> OnnxNet:
        return OnnxNet(files[role], device=runtime.device, threads=runtime.threads, batching=runtime.batching)

    engine = InstantIdEngine(
        entry.name,
        Networks(
            detector=Detector(net("detector")),
            encoder=Encoder(net("encoder"), files["encoder"]),
            identity=Identity(loaded.resampler, guided=recipe.guided),
            autoencoder=Autoencoder(loaded.vae),
            denoiser=Denoiser(loaded.parts, recipe, device=runtime.device, dtype=dtype, compile=runtime.compile),
            landmarks=Landmarks(net("landmarks"), files["landmarks"]) if "landmarks" in files else None,
            occluder=Occluder(net("occluder")) if "occluder" in files else None,
        ),
        style,
        step_batch=runtime.step_batch,
        admitted=runtime.admitted,
    )
    engine.warm()
    return engine


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
