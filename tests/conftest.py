"""What all rooms' tests share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from nanoswap.pipelines.gate import Gate


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of stand-ins for all files of weights, with `models.toml`."""
    from tests.stand_ins.write import write

    return write(tmp_path_factory.mktemp("models")).parent


@pytest.fixture(scope="session")
def gate(models: Path) -> Gate:
    """A safety gate of stand-ins, loaded as a service loads it: magenta is intimate, a cyan face is a minor's."""
    from nanoswap.pipelines.gate_load import load_gate
    from nanoswap.pipelines.manifest import Manifest
    from nanoswap.pipelines.model_store import ModelStore
    from nanoswap.pipelines.runtime import Runtime

    manifest = Manifest.read(models / "models.toml")
    return load_gate(manifest, ModelStore(models, manifest), Runtime(threads=1))
