"""The page's third-party files are exactly those that VENDOR.toml names, unchanged and with their licences."""

import hashlib
import tomllib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

VENDOR = resources.files("nanoswap.serve").joinpath("web", "vendor")
#: Licences that we may pass on with only their text.
PERMISSIVE = {"MIT", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "ISC", "Apache-2.0"}


def listed() -> list[dict[str, Any]]:
    return list(tomllib.loads(VENDOR.joinpath("VENDOR.toml").read_text("utf-8"))["file"])


def packages() -> Iterator[dict[str, str]]:
    for file in listed():
        yield from file["package"]


def present(folder: Traversable = VENDOR) -> set[str]:
    return {item.name for item in folder.iterdir() if item.is_file()}


def test_every_file_has_its_hash() -> None:
    for file in listed():
        assert hashlib.sha256(VENDOR.joinpath(file["path"]).read_bytes()).hexdigest() == file["sha256"], file["path"]


def test_nothing_else_is_shipped() -> None:
    texts = {package["text"] for package in packages()}
    assert present() == {"VENDOR.toml"} | {file["path"] for file in listed()} | texts


def test_every_package_has_a_version_and_a_licence_text() -> None:
    for package in packages():
        assert package["licence"] in PERMISSIVE, package["name"]
        assert package["version"][0].isdigit(), package["name"]
        assert "copyright" in VENDOR.joinpath(package["text"]).read_text("utf-8").lower(), package["name"]


def test_no_file_asks_another_site_for_code() -> None:
    for file in listed():
        text = VENDOR.joinpath(file["path"]).read_text("utf-8")
        assert "import(" not in text
        assert "eval(" not in text
        assert "new Function" not in text
