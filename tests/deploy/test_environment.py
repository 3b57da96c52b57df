"""Variables in the manifests are ones that somebody reads, and say what the code says on one machine."""

import re
from pathlib import Path
from typing import Any

import yaml

from nanoswap.serve.drain import longest_drain
from nanoswap.serve.local import child_environment, ray_environment
from nanoswap.serve.settings import Settings
from nanoswap.serve.volatility import FREED_MEMORY
from tests.deploy.files import DEPLOY, OVERLAYS, ROOT, one

#: Not of the service: CUDA's cache, the proxy of HTTPX, and what Ray reads on nodes of a cluster only.
OTHERS = {"CUDA_CACHE_DISABLE", "HTTPS_PROXY", "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"}
#: What differs from pod to pod or is KubeRay's: the token, ports (a pod has a network of its own).
NOT_CARRIED = {
    "RAY_AUTH_MODE",
    "RAY_AUTH_TOKEN",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT",
    "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT",
    "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT",
    "RAY_SERVE_HAPROXY_METRICS_PORT",
    "RAY_SERVE_HAPROXY_STATS_PORT",
}
#: What has another value in a pod: paths, and a number that depends on the machine.
OTHERWISE = {"RAY_SERVE_HAPROXY_MAXCONN", "NANOSWAP_EDGE_BINARY", "NANOSWAP_EDGE_PYTHON", "TMPDIR"}


SECRET = {
    "NANOSWAP_SECRET": "s" * 32,
    "SUPABASE_PUBLISHABLE_KEY": "sb_publishable_x",
    "REDIS_URL": "rediss://redis:6379/0",
    "NANOSWAP_REGION": "eu",
}


def compose() -> dict[str, str]:
    made = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["nanoswap"]["environment"]
    return {name: str(value) for name, value in made.items()}


def example() -> dict[str, str]:
    lines = (DEPLOY / "nanoswap.env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def cluster() -> dict[str, str]:
    return one("ConfigMap", "nanoswap")["data"]


class Asked(dict[str, str]):
    """Keeps the names that were looked up: some are put together from a line's name."""

    def __init__(self, values: dict[str, str]) -> None:
        super().__init__(values)
        self.names: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        self.names.add(key)
        return super().get(key, default)


def read_by_the_service() -> set[str]:
    asked = Asked(SECRET | cluster())
    Settings.from_environment(asked)
    text = "".join(path.read_text() for path in (ROOT / "serve").glob("*.py"))
    return asked.names | set(re.findall(r'"((?:NANOSWAP|SUPABASE)_[A-Z0-9_]+|REDIS_URL)"', text))


def test_every_variable_is_read_by_somebody(tmp_path: Path) -> None:
    known = read_by_the_service() | OTHERS | set(FREED_MEMORY)
    known |= set(ray_environment(tmp_path, 0.0, 22_000)) | set(child_environment(tmp_path))
    assert "NANOSWAP_IMAGE_SLOTS" in known
    for said in (compose(), example(), cluster()):
        assert set(said) <= known


def test_pods_are_told_what_one_machine_is_told(tmp_path: Path) -> None:
    settings = Settings.from_environment(cluster() | SECRET)
    wanted = ray_environment(tmp_path, longest_drain(settings), 22_000) | child_environment(tmp_path) | FREED_MEMORY
    said = cluster()
    assert set(wanted) - NOT_CARRIED <= set(said)
    for name in set(wanted) - NOT_CARRIED - OTHERWISE:
        if wanted[name].startswith("/"):
            assert said[name].startswith(("/dev/shm", "/opt/nanoswap/")), name
        else:
            assert said[name] == wanted[name], name


def test_paths_are_those_of_the_image() -> None:
    """The cluster's settings name files inside the image, which lie below its Python's version."""
    image = (ROOT / "Dockerfile.gpu").read_text()
    (version,) = set(re.findall(r"^FROM python:(\d+\.\d+)", image, re.MULTILINE))
    assert "/opt/nanoswap" in image
    for name in ("NANOSWAP_EDGE_BINARY", "RAY_SERVE_HAPROXY_BINARY_PATH"):
        assert cluster()[name].startswith(f"/opt/nanoswap/lib/python{version}/site-packages/")
    assert cluster()["RAY_SERVE_HAPROXY_BINARY_PATH"].endswith("nanoswap/serve/edge.sh")


def test_settings_take_the_manifests() -> None:
    """What would stop a pod at its start stops here."""
    given = example() | compose()
    machine = Settings.from_environment(SECRET | {name: value for name, value in given.items() if value})
    pod = Settings.from_environment(cluster() | SECRET)
    for settings in (machine, pod):
        assert settings.redis_url.startswith("rediss://")
        assert settings.image_gpus + settings.video_gpus == 1.0
        assert settings.trusted_proxies == 1
        assert settings.safety.gate
        assert settings.provenance.label
        assert settings.models.runtime.device == "cuda"


def test_replicas_grow_to_the_machines_and_have_the_time_to_drain() -> None:
    settings = Settings.from_environment(cluster() | SECRET)
    assert settings.image_rules is not None
    assert settings.video_rules is not None
    group = one("RayService", "nanoswap")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]
    sizes = {group["maxReplicas"]}
    for overlay in OVERLAYS:
        changes = {change["path"]: change["value"] for change in yaml.safe_load((overlay / "size.yaml").read_text())}
        sizes.add(changes["/spec/rayClusterConfig/workerGroupSpecs/0/maxReplicas"])
    assert sizes == {settings.image_rules.maximum} == {settings.video_rules.maximum}
    drain = longest_drain(settings)
    ray_waits = float(cluster()["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
    assert drain < ray_waits < group["template"]["spec"]["terminationGracePeriodSeconds"]
    assert one("RayService", "nanoswap")["spec"]["rayClusterDeletionDelaySeconds"] > drain
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["nanoswap"]
    assert 60 * int(service["stop_grace_period"].removesuffix("m")) > drain


def test_machines_are_there_before_the_floor_asks_for_them() -> None:
    settings = Settings.from_environment(cluster() | SECRET)
    least = one("RayService", "nanoswap")["spec"]["rayClusterConfig"]["workerGroupSpecs"][0]["minReplicas"]
    days = {"1-5": frozenset(range(5)), "6,0": frozenset((5, 6))}
    warm = {}
    for trigger in one("ScaledObject", "placeholder")["spec"]["triggers"]:
        minute, hour, _, _, week = trigger["metadata"]["start"].split()
        assert int(hour) * 60 + int(minute) < 13 * 60 + 45
        warm[days[week]] = int(trigger["metadata"]["desiredReplicas"]) + least
    for rules in (settings.image_rules, settings.video_rules):
        assert rules is not None
        assert {window.days: window.replicas for window in rules.windows} == warm


def test_tunnels_get_as_long_as_they_may_ask_for() -> None:
    # cloudflared refuses to start with more than three minutes.
    pod = one("Deployment", "tunnel")["spec"]["template"]["spec"]
    words = pod["containers"][0]["args"]
    compose_words = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["cloudflared"]["command"]
    for said in (words, compose_words):
        assert int(said[said.index("--grace-period") + 1].removesuffix("s")) <= 180
    assert pod["terminationGracePeriodSeconds"] > 180


def test_nothing_secret_is_in_the_manifests() -> None:
    for said in (compose(), cluster()):
        assert not {"NANOSWAP_SECRET", "REDIS_URL", "NANOSWAP_WEBHOOK_SECRET"} & set(said)
    assert example()["NANOSWAP_SECRET"] == ""


def test_cluster_ray_is_the_locked_one() -> None:
    (version,) = re.findall(r"^ray\[?[a-z,]*\]?==(\S+)", (DEPLOY / "locks" / "gpu.txt").read_text(), re.MULTILINE)
    assert one("RayService", "nanoswap")["spec"]["rayClusterConfig"]["rayVersion"] == version
