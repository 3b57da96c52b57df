"""All stand-ins and a manifest of them in a folder: ``python -m tests.stand_ins.write DIR``.

Names and engines are those of the real manifest, so what is configured for the one runs with the other.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

from nanoswap.pipelines.manifest import Manifest
from tests.stand_ins.detector import detector
from tests.stand_ins.encoder import encoder
from tests.stand_ins.gate import ages, content
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
    "vit_nsfw_384": content,
    "fairface_age_224": ages,
}
ENGINES = ("mesh", "inswapper", "hyperswap")
DIFFUSION = ("instantid", "instantid-quality", "instantid-pulid", "instantid-reference", "klein")
#: In place of the real recipes': what runs on a processor.
SMALL: dict[str, Any] = {"sizes": (64, 128), "prompt": "of a person"}


def write(folder: Path, leave_out: Collection[str] = ()) -> Path:
    """Write the files, and `models.toml`, whose path is returned. `leave_out`: models whose files are not written.
    What torch is needed for is left out of both where there is no torch."""
    folder.mkdir(parents=True, exist_ok=True)
    real = Manifest.read()
    files = {name: make().SerializeToString() for name, make in FILES.items()}
    engines = list(ENGINES)
    if find_spec("torch") is not None:
        from tests.stand_ins.diffusion import diffusion_files
        from tests.stand_ins.klein import klein

        files |= diffusion_files()
        roles = {real.models[name].role: name for name in real.engines["klein"].needs}
        files |= {roles[role]: data for role, data in klein().items()}
        engines += DIFFUSION
    text = ["[licences.none]", 'title = "Made for tests"', 'source = "tests/stand_ins"', "commercial = true"]
    for name, data in files.items():
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
        text += [f"[models.{name}]", *_lines(entry)]
        if known and known.parameters:
            pairs = ", ".join(_lines(known.parameters))
            text.append(f"parameters = {{ {pairs} }}")
        if known and known.card:
            text += [f"[models.{name}.card]", *_lines(asdict(known.card))]
    for name in engines:
        engine = real.engines[name]
        entry = {"label": engine.label, "kind": engine.kind, "licence": engine.licence}
        entry |= {"needs": list(engine.needs), "uses": list(engine.uses)} if engine.needs else {}
        text += [f"[engines.{name}]", *_lines(entry)]
        if engine.recipe is not None:
            text += [f"[engines.{name}.recipe]", *_lines(asdict(replace(engine.recipe, **SMALL)))]
    text += ["[gate]", f"needs = {json.dumps(real.gate)}"]
    path = folder / "models.toml"
    path.write_text("\n".join(text) + "\n", encoding="utf-8")
    return path


def _lines(entry: Mapping[str, Any]) -> list[str]:
    return [f"{key} = {json.dumps(value)}" for key, value in entry.items()]


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
