"""Vendored files are the ones that were looked at, and each names its licence."""

import hashlib
import tomllib
from pathlib import Path

VENDOR = Path(__file__).parents[2] / "serve" / "web" / "vendor"


def test_every_vendored_file_has_its_hash_and_licence() -> None:
    table = tomllib.loads((VENDOR / "VENDOR.toml").read_text())["file"]
    for entry in table:
        assert hashlib.sha256((VENDOR / entry["path"]).read_bytes()).hexdigest() == entry["sha256"], entry["path"]
        for package in entry["package"]:
            assert package["licence"] in ("MIT", "0BSD", "MPL-2.0")
            assert (VENDOR / package["text"]).stat().st_size > 500
    scripts = {path.name for path in VENDOR.glob("*.js")}
    assert scripts == {entry["path"] for entry in table}
