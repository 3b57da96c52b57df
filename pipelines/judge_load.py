"""The judge that this machine can seat: what of it there are files for, and what must be said of the rest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

import cv2
import numpy as np
import numpy.typing as npt

from nanoswap.pipelines.blob import Scaling, to_blob
from nanoswap.pipelines.engine import Rgb
from nanoswap.pipelines.judge import Dense, Features, Find, Identify, Judge
from nanoswap.pipelines.manifest import EngineEntry, Manifest, Model
from nanoswap.pipelines.model_store import ModelStore
from nanoswap.pipelines.roles import Role
from nanoswap.pipelines.runtime import Runtime

_SIDE: Final = 299  # px, what networks of the Inception kind take


def load_judge(engine: EngineEntry, manifest: Manifest, store: ModelStore, runtime: Runtime) -> Judge:
    """Of each role the first model that is in the store; as encoder rather one that `engine` doesn't swap with.

    Raises `ModelError` for a file that is there and not what was agreed on.
    """
    there = [model for model in manifest.models.values() if store.has(model.name)]
    encoders = sorted(_of(there, "encoder"), key=lambda model: model.name in engine.needs)
    chosen: dict[Role, Model] = {"encoder": encoders[0]} if encoders else {}
    others: tuple[Role, ...] = ("detector", "landmarks", "features")
    for role in others:
        if found := _of(there, role):
            chosen[role] = found[0]
    independent = bool(encoders) and encoders[0].name not in engine.needs
    notes = []
    if any(model.stand_in for model in chosen.values()) or any(manifest.models[one].stand_in for one in engine.needs):
        notes.append("STAND-IN WEIGHTS: they show that everything runs; the figures mean nothing.")
    if not encoders:
        notes.append("identity is not measured: there is no encoder in the store (nanoswap models pull glintr100)")
    elif not independent:
        notes.append(f"identity is judged by {encoders[0].name}, which the swap itself was led by: it flatters")
    if "landmarks" not in chosen:
        notes.append("expression is told from five points: there are no dense landmarks in the store")
    if "features" not in chosen:
        notes.append("realism is not measured: there is no network for features in the store")
    made: dict[Role, Any] = {role: _made(role, store.read(model.name), runtime) for role, model in chosen.items()}
    return Judge(
        find=cast("Find", made["detector"]) if "detector" in made else _classical(),
        identify=cast("Identify | None", made.get("encoder")),
        independent=independent,
        dense=cast("Dense | None", made.get("landmarks")),
        features=cast("Features | None", made.get("features")),
        notes=tuple(notes),
    )


def _of(models: Iterable[Model], role: Role) -> list[Model]:
    return [model for model in models if model.role == role]


def _classical() -> Find:
    from nanoswap.pipelines.mesh import MeshEngine

    return MeshEngine().detect


def _made(role: Role, data: bytes, runtime: Runtime) -> Find | Identify | Dense | Features:
    from nanoswap.pipelines.analysis import Detector, Encoder, Landmarks
    from nanoswap.pipelines.onnx_net import OnnxNet

    net = OnnxNet.of(data, runtime)
    if role == "detector":
        return Detector(net)
    if role == "encoder":
        return Encoder(net, data)
    if role == "landmarks":
        return Landmarks(net, data)

    def features(crops: Sequence[Rgb]) -> npt.NDArray[np.float64]:
        small = np.zeros((len(crops), _SIDE, _SIDE, 3), np.uint8)
        for crop, one in zip(crops, small, strict=True):
            cv2.resize(crop, (_SIDE, _SIDE), dst=one, interpolation=cv2.INTER_AREA)
        return np.asarray(net.forward(to_blob(small, Scaling(0.5, 0.5)))[0].reshape(len(crops), -1), np.float64)

    return features
