"""The applications by name, as Serve's configuration asks for them."""

from importlib import import_module
from inspect import signature

import pytest
import yaml

from nanoswap.serve import cluster
from nanoswap.serve.app import applications
from nanoswap.serve.environment import SettingsError
from nanoswap.serve.settings import Settings
from tests.deploy.files import one

ENVIRONMENT = {
    "SUPABASE_URL": "https://project.supabase.co",
    "NANOSWAP_SECRET": "s" * 32,
    "REDIS_URL": "redis://127.0.0.1:1/0",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def test_manifest_deploys_what_one_machine_does() -> None:
    config = yaml.safe_load(one("RayService", "nanoswap")["spec"]["serveConfigV2"])
    here = {name: prefix for name, (prefix, _) in applications(Settings.from_environment(ENVIRONMENT)).items()}
    assert {each["name"]: each["route_prefix"] for each in config["applications"]} == here
    for each in config["applications"]:
        module, _, name = each["import_path"].partition(":")
        builder = getattr(import_module(module), name)
        # Serve refuses a builder with any other number of parameters.
        assert len(signature(builder).parameters) == 1
        assert builder({})._bound_deployment.name == {"image": "ImageSwap", "video": "VideoSwap"}.get(name, "Gateway")
        # It would replace what serve/app.py says, the environment that overwrites freed memory with it.
        assert set(each) == {"name", "route_prefix", "import_path"}


def test_closed_line_and_arguments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOSWAP_VIDEO_REPLICAS", "0")
    with pytest.raises(SettingsError, match="NANOSWAP_VIDEO_REPLICAS"):
        cluster.video({})
    with pytest.raises(SettingsError, match="no arguments"):
        cluster.gateway({"secret": "x"})
