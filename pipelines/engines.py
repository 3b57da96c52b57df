"""From the name of an engine to the engine: which files it needs, whether they may be used, what runs them.

The manifest says what an engine is made of; the store gives only files whose hash and licence are in order. The
libraries that networks need are imported when an engine that needs them is loaded, so the classical engine runs
without any of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Final

from nanoswap.pipelines.engine import Engine
from nanoswap.pipelines.manifest import EngineEntry, Manifest, Model
from nanoswap.pipelines.model_store import ModelError, ModelStore
from nanoswap.pipelines.roles import Kind, Role
from nanoswap.pipelines.runtime import Runtime
from nanoswap.pipelines.style import Style

_NEURAL: Final = {"insightface": "neural", "onnx": "neural", "onnxruntime": "neural"}
_DIFFUSION: Final = {"torch": "gpu", "diffusers": "gpu", "transformers": "gpu"}
#: What each kind of engine imports, and the extra that brings it.
LIBRARIES: Final[dict[Kind, dict[str, str]]] = {
    "mesh": {},
    "neural": _NEURAL,
    "instantid": _NEURAL | _DIFFUSION,
    "klein": _DIFFUSION,
}


class EngineUnknown(ModelError):
    """The manifest has no engine of this name."""


class EngineUnusable(ModelError):
    """The engine's files are in order, and still it can't be run here."""


class LibraryMissing(ModelError):
    """A library that the engine needs is not installed."""


class _Files(Mapping[Role, bytes]):
    """The files of an engine by their roles, each read and hashed when it is asked for: some gigabytes at a time are
    held by who loads them, and not all of them by everybody."""

    def __init__(self, store: ModelStore, names: Mapping[Role, str]) -> None:
        self._store, self._names = store, names

    def __getitem__(self, role: Role) -> bytes:
        return self._store.read(self._names[role])

    def __contains__(self, role: object) -> bool:
        return role in self._names  # a Mapping would read the file to know

    def __iter__(self) -> Iterator[Role]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def check_engine(name: str, manifest: Manifest, store: ModelStore, runtime: Runtime) -> None:
    """Raise the `ModelError` that `load_engine` would, as far as it can be told without loading a network: every file
    is read and hashed, the libraries and the device are looked for."""
    entry = _entry(name, manifest)
    libraries = dict(LIBRARIES[entry.kind])
    if entry.kind == "neural" and runtime.swapper == "torch":
        libraries["torch"] = "gpu"
    for library, extra in libraries.items():
        if find_spec(library) is None:
            raise LibraryMissing(f"the engine '{name}' needs {library}: pip install 'nanoswap[{extra}]'")
    _check_runtime(entry, manifest, runtime, libraries)
    for model in _present(entry, store):
        store.read(model)


def load_engine(name: str, manifest: Manifest, store: ModelStore, runtime: Runtime, style: Style) -> Engine:
    """The engine, ready to swap. Raises `ModelError` for one that isn't in the manifest, may not be used, or can't be
    loaded on this machine."""
    entry = _entry(name, manifest)
    models = {manifest.models[one].role: manifest.models[one] for one in _present(entry, store)}
    try:
        _check_runtime(entry, manifest, runtime, LIBRARIES[entry.kind])
        files = _Files(store, {role: model.name for role, model in models.items()})
        if entry.kind == "neural":
            from nanoswap.pipelines.neural_load import load_neural

            return load_neural(name, files, models["swapper"], runtime, style)
        if entry.kind == "instantid":
            from nanoswap.pipelines.instantid_load import load_instantid

            assert entry.recipe is not None
            return load_instantid(name, files, entry.recipe, runtime, style)
        if entry.kind == "klein":
            from nanoswap.pipelines.klein_load import load_klein

            return load_klein(name, files, device=runtime.device, dtype=runtime.dtype)
        from nanoswap.pipelines.mesh import MeshEngine

        return MeshEngine()
    except ModelError:
        raise
    except Exception as error:
        # What a graph can do wrong is without number, and it is the operator's file, not a person's.
        why = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise EngineUnusable(f"the engine '{name}' can't be loaded: {why[0]}") from error


def _check_runtime(entry: EngineEntry, manifest: Manifest, runtime: Runtime, libraries: dict[str, str]) -> None:
    if "onnxruntime" in libraries:
        from nanoswap.pipelines.onnx_net import check_device

        check_device(runtime.device)
    if "torch" in libraries:
        from nanoswap.pipelines.swap_net_torch import check_torch_device

        check_torch_device(runtime.device)
    if entry.seeded:
        _check_diffusion(entry, manifest, runtime)
    elif entry.kind == "neural" and runtime.swapper == "torch":
        for model in entry.needs:
            if manifest.models[model].role == "swapper":
                _check_torch(manifest.models[model])


def _check_diffusion(entry: EngineEntry, manifest: Manifest, runtime: Runtime) -> None:
    if runtime.dtype == "float16":
        # SDXL's autoencoder overflows in it; FLUX.2's weights are published in bfloat16.
        raise EngineUnusable(f"the engine '{entry.name}' doesn't run in float16: NANOSWAP_DTYPE=bfloat16")
    if runtime.device == "cuda" and runtime.dtype != "bfloat16":
        raise EngineUnusable(f"the engine '{entry.name}' runs in bfloat16 on a GPU: NANOSWAP_DTYPE=bfloat16")
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
