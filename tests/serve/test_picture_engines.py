"""Engines that swap pictures only: the video line does without them, and says so; who has none for clips is told."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from nanoswap.client import Client, RequestError
from nanoswap.pipelines.model_store import ModelError
from nanoswap.pipelines.mp4 import Encoder
from nanoswap.pipelines.roles import NEEDED, USABLE
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.serve.cli import main
from nanoswap.serve.development_certificate import write_development_certificate
from nanoswap.serve.environment import SettingsError
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.model_settings import ModelSettings
from nanoswap.serve.settings import Settings
from nanoswap.serve.video_swap import create_video_swap
from nanoswap.serve.volatility import FREED_MEMORY
from tests.clips import Recipe, make, read, read_number
from tests.corpus import SCENE
from tests.serve.double import Double, running
from tests.serve.test_gateway import Anyone, person

CLIP = make(Recipe(SCENE, frames=12))
WORDS = {"repository": "none", "revision": "none", "url": "https://nowhere.invalid/", "licence": "none", "use": "None."}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an engine that swaps pictures only, whose files are nowhere, and of the one that needs none."""
    roles = sorted(NEEDED["instantid"] | USABLE["instantid"])
    lines = ["[licences.none]", 'title = "None"', 'source = "none"', "commercial = true"]
    for role in roles:
        words = WORDS | {"role": role, "file": f"{role}.bin", "sha256": "0" * 64}
        lines += [f"[models.{role}]", *(f'{key} = "{word}"' for key, word in words.items())]
    lines += ["[engines.flagship]", 'label = "Flagship"', 'kind = "instantid"', 'licence = "None"', f"needs = {roles}"]
    lines += ["recipe = { steps = 4, sizes = [512], second_scale = 0.4, reference_scale = 0.3 }"]
    lines += ["[engines.mesh]", 'label = "Mesh"', 'kind = "mesh"', 'licence = "None"']
    path = tmp_path_factory.mktemp("manifest") / "models.toml"
    path.write_text("\n".join(lines), "utf-8")
    return path


def settings(manifest: Path, *engines: str, video_replicas: int = 1) -> Settings:
    models = ModelSettings(engines=engines, manifest=manifest, folder=manifest.parent)
    url = "https://p.supabase.co/auth/v1"
    return Settings(
        redis_url="unix:///none", auth_url=url, auth_issuer=url, secret=bytes(32), models=models,
        video_replicas=video_replicas,
    )  # fmt: skip


def test_only_engines_that_swap_clips_are_loaded_for_clips(manifest: Path) -> None:
    models = settings(manifest, "flagship", "mesh").models
    assert list(models.load(clips=True)) == ["mesh"]
    # The other can't be: it has no files.
    with pytest.raises(ModelError):
        models.load()


def test_video_line_without_an_engine_is_refused(manifest: Path) -> None:
    models = settings(manifest, "flagship").models
    for attempt in (models.check, models.load):
        with pytest.raises(SettingsError, match=r"NANOSWAP_ENGINE=flagship,mesh.*NANOSWAP_VIDEO_REPLICAS=0"):
            attempt(clips=True)
        # Without clips only the engine itself can't be had.
        with pytest.raises(ModelError):
            attempt()
    # A name that nobody knows is a mistake of its own.
    with pytest.raises(ModelError, match="there is no engine 'outswapper'"):
        settings(manifest, "outswapper").models.check(clips=True)


@pytest.mark.parametrize("replicas", [1, 0])
def test_service_says_it_in_one_line(manifest: Path, replicas: int) -> None:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NANOSWAP_")}
    words = {"ENGINE": "flagship", "MANIFEST": manifest, "MODELS": manifest.parent, "VIDEO_REPLICAS": replicas}
    done = subprocess.run(
        [sys.executable, "-m", "nanoswap.serve.cli", "serve"],
        env=inherited | {f"NANOSWAP_{name}": str(word) for name, word in words.items()},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert ("can't swap clips" in done.stderr) == bool(replicas)
    assert len(done.stderr.strip().splitlines()) == 1


def test_video_replica_does_without_them(manifest: Path, tmp_path: Path) -> None:
    chain, key = write_development_certificate(tmp_path)
    environment = {
        "NANOSWAP_ENGINE": "flagship,mesh", "NANOSWAP_MANIFEST": str(manifest), "NANOSWAP_MODELS": str(manifest.parent),
        "NANOSWAP_SECRET": "s" * 32, "REDIS_URL": "unix:///none", "SUPABASE_URL": "https://p.supabase.co",
        "NANOSWAP_REGION": "elsewhere", "NANOSWAP_GATE": "off",
        "NANOSWAP_C2PA_CERTIFICATE": str(chain), "NANOSWAP_C2PA_KEY": str(key),
    }  # fmt: skip
    # Our class is below Ray's wrapper, and in a process of its own because it changes the process that it is made in.
    code = "from nanoswap.serve.app import VideoSwap; print(*VideoSwap.func_or_class.__mro__[1]()._engines)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | FREED_MEMORY | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "mesh\n"), done.stderr


async def test_config_says_which_engine_does_what(manifest: Path) -> None:
    app = create_gateway(settings(manifest, "flagship", "mesh"), MemoryRoom(Policy()), Anyone())  # type: ignore[arg-type]
    async with person(app, "ann") as client:
        config = (await client.get("/v1/config")).json()
    able = [(one["name"], one["clips"], one["seeded"]) for one in config["engines"]]
    assert able == [("flagship", False, True), ("mesh", True, False)]
    assert config["engine"] == config["engines"][0]


async def test_clip_is_swapped_by_the_first_that_can_and_never_by_another(manifest: Path, astronaut: bytes) -> None:
    chosen, room = settings(manifest, "flagship", "mesh"), MemoryRoom(Policy())
    gateway = create_gateway(chosen, room, Anyone())  # type: ignore[arg-type]
    replica = create_video_swap(chosen, room, Anyone(), chosen.models.load(clips=True), Encoder(), gate=None)  # type: ignore[arg-type]
    declared = {"kind": "video", "bytes": len(astronaut) + len(CLIP), "width": 480, "height": 272, "frames": 12}

    async def swap(**fields: str) -> httpx.Response:
        async with person(gateway, "ann") as line, person(replica, "ann") as here:
            ticket = (await line.post("/v1/tickets", json=declared | {"consent": "likeness-3"})).json()
            while ticket["state"] == "waiting":
                await asyncio.sleep(0.02)
                ticket = (await line.get(ticket["links"]["self"])).json()
            files = {"source": ("a", astronaut), "target": ("b", CLIP)}
            path = ticket["links"]["swap"].removeprefix("/video")
            return await here.post(path, headers={"Grant": ticket["grant"]}, files=files, data=fields, timeout=60)

    async with gateway.router.lifespan_context(gateway), replica.router.lifespan_context(replica):
        refused = await swap(engine="flagship")
        assert (refused.status_code, refused.json()["code"], refused.json()["part"]) == (422, "bad_request", "engine")
        assert refused.json()["detail"] == "'flagship' swaps pictures only: for a clip 'engine' is one of mesh."
        for fields in ({}, {"engine": "mesh"}):
            made = await swap(**fields)
            assert made.status_code == 200, made.text
            assert [read_number(frame) for frame in read(made.content).frames] == list(range(12))


@pytest.fixture
def double() -> Iterator[tuple[Double, str]]:
    made = Double()
    with running(made) as url:
        yield made, url


def test_client_knows_before_it_waits(double: tuple[Double, str], astronaut: bytes) -> None:
    made, url = double
    with Client(url, token="token", timeout=20) as client:
        with pytest.raises(RequestError, match="The engine of a clip is one of mesh"):
            client.swap(astronaut, CLIP, consent=True, engine="flagship")
        with pytest.raises(RequestError, match="The engine of a picture is one of flagship, mesh"):
            client.swap(astronaut, astronaut, consent=True, engine="outswapper")
        assert made.keys == []
        client.swap(astronaut, astronaut, consent=True, engine="flagship")
        client.swap(astronaut, CLIP, consent=True, engine="mesh")
    assert len(made.keys) == 2


def test_command_line_says_it_in_one_line(
    double: tuple[Double, str], tmp_path: Path, astronaut: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    made, url = double
    source, target = tmp_path / "a.jpg", tmp_path / "b.mp4"
    source.write_bytes(astronaut)
    target.write_bytes(CLIP)
    words = ["swap", str(source), str(target), "-o", str(tmp_path / "out.mp4"), "--consent", "--token", "t"]
    assert main([*words, "--url", url, "--engine", "flagship"]) == 2
    assert capsys.readouterr().err == "nanoswap: The engine of a clip is one of mesh.\n"
    assert made.keys == []
