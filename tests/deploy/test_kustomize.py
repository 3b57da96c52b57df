"""What kustomize would find wrong, as far as can be told without it: what is named is there, nothing is left out."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.files import BASE, OVERLAYS, resources

FOLDERS = [BASE, *OVERLAYS]
#: Fields of a kustomization that these folders use; another one wants a check here.
KNOWN = {"apiVersion", "kind", "resources", "namespace", "patches", "images"}


def kustomization(folder: Path) -> dict[str, Any]:
    made = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert isinstance(made, dict)
    return made


def at(value: Any, steps: list[str]) -> Any:
    """The value at a JSON pointer. Raises KeyError or IndexError."""
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_every_file_is_named_and_every_name_is_a_file(folder: Path) -> None:
    made = kustomization(folder)
    assert set(made) <= KNOWN
    named = [folder / name for name in made["resources"]] + [
        folder / patch["path"] for patch in made.get("patches", [])
    ]
    for path in named:
        assert path.is_file() or (path / "kustomization.yaml").is_file(), path
    assert {path.name for path in folder.glob("*.yaml")} == {path.name for path in named if path.is_file()} | {
        "kustomization.yaml"
    }


@pytest.mark.parametrize("folder", OVERLAYS, ids=lambda path: path.name)
def test_patches_find_what_they_change(folder: Path) -> None:
    there = {(found["kind"], found["metadata"]["name"]): found for found in resources()}
    patches = kustomization(folder)["patches"]
    assert patches
    for patch in patches:
        if "target" not in patch:
            for merged in resources(folder / patch["path"]):
                base = there[merged["kind"], merged["metadata"]["name"]]
                assert base["apiVersion"] == merged["apiVersion"]
                assert set(merged) == {"apiVersion", "kind", "metadata", "data"}
            continue
        base = there[patch["target"]["kind"], patch["target"]["name"]]
        for change in yaml.safe_load((folder / patch["path"]).read_text()):
            *above, last = change["path"].strip("/").split("/")
            parent = at(base, above)
            assert change["op"] in ("add", "replace")
            assert (last in parent) == (change["op"] == "replace"), change["path"]


def test_image_is_set_where_it_is_used() -> None:
    (image,) = kustomization(BASE)["images"]
    text = "".join(path.read_text() for path in BASE.glob("*.yaml"))
    assert text.count(f"image: {image['name']}\n") == 3
    assert image["newTag"] != "latest"


#: Objects that hold secrets or weights: the operator makes them, and deploy/README.md says how.
BROUGHT = {"nanoswap", "c2pa", "redis-tls", "redis-password", "tunnel", "models"}


def test_what_pods_refer_to_is_there_or_brought() -> None:
    maps = {found["metadata"]["name"] for found in resources() if found["kind"] == "ConfigMap"}
    brought = set()

    def walk(value: Any) -> None:
        if isinstance(value, list):
            for below in value:
                walk(below)
        if not isinstance(value, dict):
            return
        for key, below in value.items():
            if key in ("configMap", "configMapRef"):
                assert below["name"] in maps
            elif key == "secretRef":
                brought.add(below["name"])
            elif key == "secret":
                brought.add(below["secretName"])
            elif key == "persistentVolumeClaim":
                brought.add(below["claimName"])
            walk(below)

    walk(resources())
    assert brought == BROUGHT
    readme = (BASE.parent.parent / "README.md").read_text()
    for name in BROUGHT:
        assert f"`{name}`" in readme, name
