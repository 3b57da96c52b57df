"""All stand-ins and a manifest of them in a folder: ``python -m tests.stand_ins.write DIR``.

Names and engines are those of the real manifest, so what is configured for the one runs with the other.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import onnx

from nanoswap.pipelines.manifest import Manifest
from tests.stand_ins.detector import detector
from tests.stand_ins.encoder import encoder
from tests.stand_ins.landmarks import landmarks
from tests.stand_ins.masks import enhancer, features, occluder
from tests.stand_ins.swapper import swapper, swapper_256

FILES: dict[str, Callable[[], onnx.ModelProto]] = {
    "det_10g": detector,
    "w600k_r50": encoder,
    "2d106det": landmarks,
    "glintr100": lambda: encoder(seed=1),
    "inswapper_128": swapper,
    "hyperswap_1a_256": swapper_256,
    "xseg_1": occluder,
    "gfpgan_1_4": enhancer,
    "inception": features,
}
ENGINES = ("mesh", "inswapper", "hyperswap")


def write(folder: Path, leave_out: Collection[str] = ()) -> Path:
    """Write the files, and `models.toml`, whose path is returned. `leave_out`: models whose files are not written."""
    folder.mkdir(parents=True, exist_ok=True)
    real = Manifest.read()
    text = ["[licences.none]", 'title = "Made for tests"', 'source = "tests/stand_ins"', "commercial = true"]
    for name, make in FILES.items():
        data = make().SerializeToString()
        known = real.models.get(name)
        file = known.file if known else f"{name}.onnx"
        if name not in leave_out:
            (folder / file).write_bytes(data)
        entry = {
            "role": known.role if known else "features",
            "repository": "tests/stand_ins",
            "revision": "none",
            "url": "https://nowhere.invalid/",
            "file": file,
            "sha256": hashlib.sha256(data).hexdigest(),
            "bytes": len(data),
            "licence": "none",
            "use": "A stand-in for tests. What it makes means nothing.",
            "stand_in": True,
        }
        text += [f"[models.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
        if known and known.parameters:
            pairs = ", ".join(f"{key} = {json.dumps(value)}" for key, value in known.parameters.items())
            text.append(f"parameters = {{ {pairs} }}")
    for name in ENGINES:
        engine = real.engines[name]
        entry = {"label": engine.label, "kind": engine.kind, "licence": engine.licence}
        entry |= {"needs": list(engine.needs), "uses": list(engine.uses)} if engine.needs else {}
        text += [f"[engines.{name}]", *(f"{key} = {json.dumps(value)}" for key, value in entry.items())]
    path = folder / "models.toml"
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
