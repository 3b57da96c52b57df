"""The manifest: what is wrong with one is said when it is read, and the built-in one says what was published."""

from pathlib import Path
from typing import Any

import pytest

from nanoswap.pipelines.manifest import Manifest, ManifestError

GOOD = """
[licences.free]
title = "Free"
source = "nobody"
commercial = true

[models.det]
role = "detector"
repository = "r"
revision = "1"
url = "https://nowhere.invalid/det"
file = "det.onnx"
licence = "free"
use = "u"

[models.enc]
role = "encoder"
repository = "r"
revision = "1"
url = "https://nowhere.invalid/enc"
file = "enc.onnx"
licence = "free"
use = "u"

[models.swap]
role = "swapper"
repository = "r"
revision = "1"
url = "https://nowhere.invalid/swap"
file = "swap.onnx"
licence = "free"
use = "u"
parameters = { latent = "unit", mean = 0.5, std = 0.5 }

[engines.one]
label = "One"
kind = "neural"
licence = "Free"
needs = ["det", "enc", "swap"]
"""

#: Copied by hand from the table of published hashes, each agreed on by several independent sources.
PUBLISHED = {
    "inswapper_128.onnx": ("e4a3f08c753cb72d04e10aa0f7dbe3deebbf39567d4ead6dce08e98aa49e16af", 554253681),
    "inswapper_128_fp16.onnx": ("6d51a9278a1f650cffefc18ba53f38bf2769bf4bbff89267822cf72945f8a38b", 277680638),
    "det_10g.onnx": ("5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91", None),
    "w600k_r50.onnx": ("4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43", 174383860),
    "2d106det.onnx": ("f001b856447c413801ef5c42091ed0cd516fcd21f2d6b79635b1e733a7109dbf", None),
    "GFPGANv1.4.onnx": ("6548e54cbcf248af385248f0c1193b359c37a0f98b836282b09cf48af4fd2b73", None),
}
#: Nobody has published a SHA-256 of these.
UNPUBLISHED = {"glintr100.onnx", "hyperswap_1a_256.onnx", "xseg_1.onnx"}


def read(folder: Path, text: str) -> Manifest:
    path = folder / "models.toml"
    path.write_text(text, encoding="utf-8")
    return Manifest.read(path)


def test_reads_what_is_right(tmp_path: Path) -> None:
    found = read(tmp_path, GOOD)
    assert list(found.models) == ["det", "enc", "swap"]
    assert found.engines["one"].needs == ("det", "enc", "swap")
    assert found.models["det"].licence is found.licences["free"]
    assert found.models["det"].sha256 is None
    assert dict(found.models["swap"].parameters) == {"latent": "unit", "mean": 0.5, "std": 0.5}


@pytest.mark.parametrize(
    ("was", "becomes", "named"),
    [
        ('file = "det.onnx"', 'file = "det.onnx"\nsha265 = "ab"', "model 'det' has a key that nobody knows: sha265"),
        ('file = "det.onnx"', f'file = "det.onnx"\nsha256 = "{"a" * 63}"', "model 'det' has a sha256"),
        ('file = "det.onnx"', f'file = "det.onnx"\nsha256 = "{"A" * 64}"', "model 'det' has a sha256"),
        ('file = "det.onnx"', 'file = "det.onnx"\nsha256 = 3', "model 'det' has a sha256 that is no text"),
        ('file = "det.onnx"', 'file = "det.onnx"\nbytes = 0', "model 'det' has a size"),
        ('file = "det.onnx"', 'file = "det.onnx"\nbytes = true', "model 'det' has a bytes that is no whole number"),
        ('file = "det.onnx"', 'file = "det.onnx"\nstand_in = "no"', "model 'det' has a stand_in that is no true or f"),
        ('file = "det.onnx"', 'file = "../det.onnx"', "model 'det' has a file that is not a plain name"),
        ('file = "det.onnx"', 'file = "/det.onnx"', "model 'det' has a file that is not a plain name"),
        ('file = "det.onnx"', 'file = ".det"', "model 'det' has a file that is not a plain name"),
        ('file = "det.onnx"', 'file = "Models.lock"', "model 'det' has a file that is not a plain name"),
        ('file = "det.onnx"', 'file = "ENC.onnx"', "two models of the manifest have the same file"),
        ('file = "det.onnx"', "", "model 'det' says nothing of its file"),
        ('role = "detector"', 'role = "cook"', "model 'det' has a role that nobody knows: cook"),
        ('commercial = true', 'commercial = "false"', "licence 'free' has a commercial that is no true or false"),
        ('commercial = true', "", "licence 'free' says nothing of its commercial"),
        ("[licences.free]", "[licences.other]", "model 'det' has a licence that the manifest doesn't have: free"),
        ('latent = "unit"', 'latent = "raw"', "model 'swap' needs parameters.latent"),
        (", std = 0.5", "", "model 'swap' needs parameters.mean and parameters.std"),
        ("parameters = {", "parameters = 3 # {", "model 'swap' has a parameters that is no table"),
        ('kind = "neural"', 'kind = "steam"', "engine 'one' is of a kind that nobody knows: steam"),
        ('"swap"]', '"swop"]', "engine 'one' names a model that the manifest doesn't have: swop"),
        ('"enc", "swap"]', '"swap"]', "engine 'one' needs a model for: encoder"),
        ('"swap"]', '"swap"]\nuses = ["det"]', "engine 'one' has two models of one role"),
        ('"swap"]', '"swap"]\nuses = "det"', "engine 'one' has a uses that is no list"),
        ('"swap"]', '"swap"]\nuses = [["det"]]', "engine 'one' names a model that the manifest doesn't have"),
        ("[models.det]", "[models.Det]", "'Det' of models is not a name with a table"),
        ("[licences.free]", "[more.things]\na = 1\n[licences.free]", "the manifest has a key that nobody knows: more"),
        ("[engines.one]", "[engines.one", "can't be read"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(tmp_path: Path, was: str, becomes: str, named: str) -> None:
    assert was in GOOD
    with pytest.raises(ManifestError) as error:
        read(tmp_path, GOOD.replace(was, becomes, 1))
    assert named in str(error.value)


@pytest.mark.parametrize("text", ["models = 3", "engines = []", "licences = 'x'", "[models]\ndet = 3"])
def test_sections_that_are_no_tables(tmp_path: Path, text: str) -> None:
    with pytest.raises(ManifestError, match="table"):
        read(tmp_path, text)


def test_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="can't be read"):
        Manifest.read(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match="can't be read"):
        Manifest.read(tmp_path / "bytes.toml")


def test_nothing_of_it_can_be_changed(tmp_path: Path) -> None:
    found: Any = read(tmp_path, GOOD)
    with pytest.raises(TypeError):
        found.models["det"] = None
    with pytest.raises(AttributeError):
        found.models["det"].sha256 = "a" * 64


def test_built_in_hashes_are_the_published_ones() -> None:
    models = Manifest.read().models.values()
    assert {model.file: (model.sha256, model.bytes) for model in models if model.sha256 is not None} == PUBLISHED
    assert {model.file for model in models if model.sha256 is None} == UNPUBLISHED
    assert all(model.source for model in models if model.sha256 is not None), "a hash without who published it"
    assert all(model.bytes is None for model in models if model.sha256 is None)


def test_built_in_manifest_ships_no_stand_in_and_fetches_by_https_only() -> None:
    found = Manifest.read()
    assert not any(model.stand_in for model in found.models.values())
    assert all(model.url.startswith("https://") for model in found.models.values())
    assert next(iter(found.engines)) == "mesh"
    assert found.engines["mesh"].needs == found.engines["mesh"].uses == ()


def test_built_in_licences_that_forbid_commerce_are_the_known_ones() -> None:
    found = Manifest.read()
    gated = {name for name, model in found.models.items() if not model.licence.commercial}
    assert gated == set(found.models) - {"xseg_1", "gfpgan_1_4"}
