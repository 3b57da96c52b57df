"""The manifest: what is wrong with one is said when it is read, and the built-in one says what was published."""

import re
from importlib import resources
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

#: Copied by hand from the table of published hashes, each agreed on by several independent sources (that of the age
#: classifier by one).
PUBLISHED = {
    "inswapper_128.onnx": ("e4a3f08c753cb72d04e10aa0f7dbe3deebbf39567d4ead6dce08e98aa49e16af", 554253681),
    "inswapper_128_fp16.onnx": ("6d51a9278a1f650cffefc18ba53f38bf2769bf4bbff89267822cf72945f8a38b", 277680638),
    "det_10g.onnx": ("5838f7fe053675b1c7a08b633df49e7af5495cee0493c7dcf6697200b85b5b91", None),
    "w600k_r50.onnx": ("4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43", 174383860),
    "2d106det.onnx": ("f001b856447c413801ef5c42091ed0cd516fcd21f2d6b79635b1e733a7109dbf", None),
    "GFPGANv1.4.onnx": ("6548e54cbcf248af385248f0c1193b359c37a0f98b836282b09cf48af4fd2b73", None),
    "glintr100.onnx": ("4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf", None),
    "sdxl_unet.safetensors": ("83e012a805b84c7ca28e5646747c90a243c65c8ba4f070e2d7ddc9d74661e139", 5135149760),
    "sdxl_unet.json": ("30ebc70750223e59006f7f2b4e1e6c102570aa19a9c4ae3e1fbe7591332dbae6", 1680),
    "sdxl_vae.safetensors": ("bcb60880a46b63dea58e9bc591abe15f8350bde47b405f9c38f4be70c6161e68", 167335342),
    "sdxl_vae.json": ("0b331c8ac22ded5f9997a144a575c1d113d6169aff262c353f39015bd24a6264", 642),
    "sdxl_text_encoder.safetensors": ("660c6f5b1abae9dc498ac2d21e1347d2abdb0cf6c0c0c8576cd796491d9a6cdd", 246144152),
    "sdxl_text_encoder.json": ("39b8b2e4b1949e36969caa425b6c81c68bace99198dd9078ce05d16ad401fe7f", 565),
    "sdxl_text_encoder_2.safetensors": ("ec310df2af79c318e24d20511b601a591ca8cd4f1fce1d8dff822a356bcdb1f4", 1389382176),
    "sdxl_text_encoder_2.json": ("a892d1c3a69a7e9247a24de2bc1d5891e3109a54696e53be20093af671072c34", 575),
    "clip_vocabulary.json": ("e089ad92ba36837a0d31433e555c8f45fe601ab5c221d4f607ded32d9f7a4349", 1059962),
    "clip_merges.txt": ("9fd691f7c8039210e0fced15865466c65820d09b63988b0174bfe25de299051a", 524619),
    "instantid_net.safetensors": ("c8127be9f174101ebdafee9964d856b49b634435cf6daa396d3f593cf0bbbb05", 2502139136),
    "instantid_net.json": ("2480c42f363d712faae8d0e17cb850a5d1e4cafc232fbd022b1d43eee45234eb", None),
    "instantid_ip-adapter.bin": ("02b3618e36d803784166660520098089a81388e61a93ef8002aa79a5b1c546e1", 1691134141),
    "flux2_klein_4b.safetensors": ("9f29f9edcfdae452a653ffb51a534ca4decd389952c225724ff3b94042612a6e", 7751109744),
    "flux2_klein_4b.json": ("09733c74a3da6d17dd0a0472a091a8950c7c6935889c32c16cc800ede05029de", 541),
    "flux2_vae.safetensors": ("ca70d2202afe6415bdbcb8793ba8cd99fd159cfe6192381504d6c4d3036e0f04", 168120878),
    "flux2_vae.json": ("0d6dfb69ae95a5e2ac9836284bbb63d8b38ce67b25ba2dff380752b2a10ab948", 821),
    "flux2_text_1.safetensors": (
        "8c0506e7f4936fa7e26183a4fd8da4e2bdbc5990ba64ae441f965d51228f36ea",
        4967215360,
    ),
    "flux2_text_2.safetensors": (
        "82f2bd839378541b0557bfabaf37c7d3d637071fdcb73302dedd7cf61162ce07",
        3077766632,
    ),
    "vit_nsfw_384.onnx": ("dce8f5af8509fee39c453b78a66076ead5c97321ddcee0ddfa16f67dc8286384", 344569044),
    "fairface_age_224.onnx": ("7f28fc7e890b4c21bf48f65d9985cefaea3430c28df1391e4f91293c0d89555a", 343423222),
    "flux2_text_encoder.json": ("214b4c29a0d975e9fddf9994a5673f22cb2c4c5750352f9227c2c3251ebeab40", 1536),
}
#: Nobody has published a SHA-256 of these.
UNPUBLISHED = {
    "hyperswap_1a_256.onnx",
    "xseg_1.onnx",
    "sdxl_lightning_4step_unet.safetensors",
    "pulid_v1.1.safetensors",
    "eva02_large_patch14_clip_336.safetensors",
    "bisenet_resnet_34.onnx",
    "ip-adapter-plus-face_sdxl_vit-h.safetensors",
    "clip_vit_h.safetensors",
    "clip_vit_h.json",
    "flux2_tokenizer.json",
}


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
    parts = [name for name in found.models if name.startswith(("sdxl_", "clip_", "flux2_"))]
    others = {"xseg_1", "gfpgan_1_4", "eva02_clip_l_336", "bisenet_resnet_34", "ip_adapter_plus_face"}
    others |= set(found.gate)
    assert gated == set(found.models) - others - set(parts)
    assert len(parts) == 21
    # An engine that a service may earn with, and one that asks for InstantID's own licence.
    needs = {name: {found.models[one].licence.name for one in engine.needs} for name, engine in found.engines.items()}
    assert needs["klein"] == {"apache-flux"}
    assert needs["instantid"] == {"insightface-non-commercial", "openrail", "instantid-research"}


RECIPE = "recipe = { steps = 4, sizes = [512], strength = 0.75 }"


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        ("recipe = 4", "is no table"),
        ("", "of kind instantid has no recipe"),
        ("recipe = { steps = 4 }", "says nothing of its sizes"),
        ("recipe = { steps = 4, sizes = [512], stepz = 3 }", "a key that nobody knows: stepz"),
        ("recipe = { steps = 0, sizes = [512] }", "steps are from 1"),
        ('recipe = { steps = "4", sizes = [512] }', "no whole number"),
        ("recipe = { steps = 4, sizes = [] }", "one or more"),
        ("recipe = { steps = 4, sizes = [1024, 512] }", "ascending"),
        ("recipe = { steps = 4, sizes = [500] }", "multiples of 64"),
        ("recipe = { steps = 4, sizes = [512.0] }", "no whole numbers"),
        ("recipe = { steps = 4, sizes = [512], strength = 0.2 }", "leaves at least one step"),
        ("recipe = { steps = 4, sizes = [512], strength = 1.5 }", "up to 1"),
        ('recipe = { steps = 4, sizes = [512], spacing = "even" }', "leading or trailing"),
        ("recipe = { steps = 4, sizes = [512], net_scale = inf }", "from 0 to 20"),
        ("recipe = { steps = 4, sizes = [512], reference_scale = 0.5 }", "reference_scale above 0"),
        (
            "recipe = { steps = 4, sizes = [512], second_scale = 0.5 }",
            "second_scale above 0 if, and only if",
        ),
    ],
)
def test_recipes_that_make_no_sense(tmp_path: Path, recipe: str, named: str) -> None:
    built_in = resources.files("nanoswap.pipelines").joinpath("models.toml").read_text("utf-8")
    start = built_in.index("[engines.instantid]")
    end = built_in.index("[engines.instantid-quality]")
    mine = "".join(line for line in built_in[start:end].splitlines(True) if not line.startswith("recipe"))
    assert read(tmp_path, built_in[:start] + mine + RECIPE).engines["instantid"].recipe is not None
    with pytest.raises(ManifestError, match=named):
        read(tmp_path, built_in[:start] + mine + recipe)


@pytest.mark.parametrize(
    "lacks", ["instantid_adapter", "sdxl_unet_config", "clip_merges", "pulid", "bisenet_resnet_34"]
)
def test_engine_of_diffusion_that_lacks_a_part(tmp_path: Path, lacks: str) -> None:
    built_in = resources.files("nanoswap.pipelines").joinpath("models.toml").read_text("utf-8")
    with pytest.raises(ManifestError, match="needs"):
        read(tmp_path, re.sub(rf'"{lacks}",? ?', "", built_in))


@pytest.mark.parametrize(("engine", "strange"), [("instantid", "gfpgan_1_4"), ("hyperswap", "sdxl_vae")])
def test_engine_with_a_model_that_it_has_no_use_for(tmp_path: Path, engine: str, strange: str) -> None:
    built_in = resources.files("nanoswap.pipelines").joinpath("models.toml").read_text("utf-8")
    start = built_in.index(f"[engines.{engine}]")
    wrong = built_in[start:].replace('uses = ["2d106det"', f'uses = ["{strange}", "2d106det"', 1)
    with pytest.raises(ManifestError, match="has no use for"):
        read(tmp_path, built_in[:start] + wrong)


def test_engines_say_what_they_swap() -> None:
    found = Manifest.read().engines
    assert [name for name, engine in found.items() if engine.clips] == [
        "mesh", "inswapper", "inswapper-fp16", "hyperswap"
    ]  # fmt: skip
    assert {name for name, engine in found.items() if engine.seeded} == {*found} - {
        name for name, engine in found.items() if engine.clips
    }
    lanes = {name: engine.recipe for name, engine in found.items() if engine.recipe is not None}
    fast, quality = (3, False), (24, True)
    assert [(recipe.run, recipe.guided) for recipe in lanes.values()] == [fast, quality, fast, fast]
