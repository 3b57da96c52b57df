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


def test_every_gpu_has_one_replica_of_each_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of a kind would both fit half of a GPU: a clip beside a clip, and no picture that is let by."""
    environment = one("ConfigMap", "nanoswap")["data"]
    for name in ("NANOSWAP_IMAGE_GPUS", "NANOSWAP_VIDEO_GPUS", "NANOSWAP_REPLICAS_PER_NODE"):
        monkeypatch.setenv(name, environment[name])
    for builder in (cluster.image, cluster.video):
        replica = builder({})._bound_deployment
        assert replica._replica_config.max_replicas_per_node == 1
        assert replica.ray_actor_options["num_gpus"] <= 0.5
    monkeypatch.delenv("NANOSWAP_REPLICAS_PER_NODE")
    assert cluster.image({})._bound_deployment._replica_config.max_replicas_per_node is None
