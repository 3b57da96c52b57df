"""Where the manifests are, how they are read, and how the tools that check them are found."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
BASE = DEPLOY / "k8s" / "base"
OVERLAYS = sorted((DEPLOY / "k8s" / "overlays").iterdir())


def tool(name: str) -> str | None:
    """The path of a tool that came with a package of the environment, or is on PATH."""
    beside = str(Path(sys.executable).parent)
    return shutil.which(name, path=os.pathsep.join((beside, os.environ.get("PATH", ""))))


def resources(*files: Path) -> list[dict[str, Any]]:
    """Every Kubernetes object in ``files``; of the base unless some are given."""
    chosen = files or tuple(path for path in sorted(BASE.glob("*.yaml")) if path.name != "kustomization.yaml")
    return [one for path in chosen for one in yaml.safe_load_all(path.read_text()) if one]


def one(kind: str, name: str) -> dict[str, Any]:
    (found,) = [each for each in resources() if each["kind"] == kind and each["metadata"]["name"] == name]
    return found


def pod_specs(value: Any) -> Iterator[dict[str, Any]]:
    """Every pod's specification below ``value``, however deep."""
    if isinstance(value, dict):
        if isinstance(value.get("containers"), list):
            yield value
        for below in value.values():
            yield from pod_specs(below)
    elif isinstance(value, list):
        for below in value:
            yield from pod_specs(below)
