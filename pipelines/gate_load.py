"""From the manifest and the folder of weights to the safety gate.

As with engines, what can be told without loading a network is told before the service starts, and the libraries are
imported only when the gate is wanted. There is no gate that lacks a part: a file that is missing is an error, and never
a gate that looks less closely.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

from nanoswap.pipelines.engines import LibraryMissing
from nanoswap.pipelines.gate import Gate
from nanoswap.pipelines.manifest import Manifest
from nanoswap.pipelines.model_store import ModelError, ModelMissing, ModelStore
from nanoswap.pipelines.runtime import Runtime


class GateUnusable(ModelError):
    """The manifest has no gate, or its files are in order and still it can't be run here."""


def check_gate(manifest: Manifest, store: ModelStore, runtime: Runtime) -> None:
    """Raise the `ModelError` that `load_gate` would, as far as it can be told without loading a network: every file is
    read and hashed, the libraries and the device are looked for."""
    _check_there(manifest, store, runtime)
    for name in manifest.gate:
        store.read(name)


def _check_there(manifest: Manifest, store: ModelStore, runtime: Runtime) -> None:
    if not manifest.gate:
        raise GateUnusable("the safety gate is on and the manifest has none: add [gate], see docs/safety.md")
    for library in ("onnx", "onnxruntime"):
        if find_spec(library) is None:
            raise LibraryMissing(f"the safety gate needs {library}: pip install 'nanoswap[neural]'")
    from nanoswap.pipelines.onnx_net import check_device

    check_device(runtime.device)
    missing = [name for name in manifest.gate if not store.path(name).is_file()]
    if missing:
        raise ModelMissing(
            f"the safety gate is on and lacks {', '.join(missing)} in {store.folder}: run nanoswap models pull gate"
        )


def load_gate(manifest: Manifest, store: ModelStore, runtime: Runtime) -> Gate:
    """The gate, ready to look. Raises `ModelError`."""
    _check_there(manifest, store, runtime)
    from nanoswap.pipelines.classifier import Classifier
    from nanoswap.pipelines.classifier_gate import ClassifierGate
    from nanoswap.pipelines.onnx_arena import shared_arena
    from nanoswap.pipelines.onnx_net import OnnxNet

    rinses: list[Callable[[], None]] = [shared_arena().rinse]
    found: dict[str, list[Classifier]] = {"content": [], "age": []}
    for name in manifest.gate:
        model = manifest.models[name]
        assert model.card is not None
        try:
            net = OnnxNet.of(store.read(name), runtime)
            rinses.append(net.rinse)
            found[model.role].append(Classifier(net, model.card))
        except ModelError:
            raise
        except Exception as error:
            # What a graph can do wrong is without number, and it is the operator's file, not a person's.
            why = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise GateUnusable(f"{name} of the safety gate can't be loaded: {why[0]}") from error

    def rinse() -> None:
        for each in rinses:
            each()

    return ClassifierGate(found["content"], found["age"], rinse=rinse)
