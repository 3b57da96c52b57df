"""Marks are a matter of configuration that can't be forgotten: without a certificate nothing starts."""

import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509

from nanoswap.client import Client
from nanoswap.serve.development_certificate import DAYS, development_certificate, write_development_certificate
from nanoswap.serve.environment import SettingsError
from nanoswap.serve.local import _mark_development, local_service
from nanoswap.serve.provenance_settings import ProvenanceSettings
from nanoswap.serve.safety_settings import Region
from tests.marks import CHAIN, KEY, seen
from tests.serve.conftest import Service


def given(folder: Path, chain: bytes = CHAIN, key: bytes = KEY) -> dict[str, str]:
    names = {"NANOSWAP_C2PA_CERTIFICATE": folder / "chain", "NANOSWAP_C2PA_KEY": folder / "key"}
    for path, data in zip(names.values(), (chain, key), strict=True):
        path.write_bytes(data)
    return {name: str(path) for name, path in names.items()}


@pytest.mark.parametrize(
    ("region", "set_to", "label"),
    [("eu", None, True), ("elsewhere", None, False), ("eu", "off", False), ("elsewhere", "on", True)],
)
def test_label_is_on_in_the_eu_unless_it_is_switched_off(region: Region, set_to: str | None, label: bool) -> None:
    environment = {} if set_to is None else {"NANOSWAP_LABEL": set_to}
    assert ProvenanceSettings.from_environment(environment, region).label is label


def test_files_are_read_and_sign(tmp_path: Path) -> None:
    marks = ProvenanceSettings.from_environment(given(tmp_path) | {"NANOSWAP_LABEL": "on"}, "eu").load()
    assert marks.label
    assert marks.signer is not None


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({"NANOSWAP_LABEL": "yes"}, "NANOSWAP_LABEL must be one of on, off"),
        ({"NANOSWAP_C2PA_KEY": "key.pem"}, "must both be set"),
        ({"NANOSWAP_C2PA_CERTIFICATE": "chain.pem"}, "must both be set"),
        ({}, "not set"),
        ({"NANOSWAP_C2PA_CERTIFICATE": "/none", "NANOSWAP_C2PA_KEY": "/none"}, "can't be read: No such file"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(environment: dict[str, str], why: str) -> None:
    with pytest.raises(SettingsError, match=why) as error:
        ProvenanceSettings.from_environment(environment, "eu").load()
    assert "\n" not in str(error.value)


def test_certificate_that_cannot_sign_is_refused(tmp_path: Path) -> None:
    old = development_certificate(datetime.now(UTC) - timedelta(days=DAYS + 1))
    for chain, key, why in ((*old, "has ended"), (CHAIN, old[1], "not the certificate's own")):
        with pytest.raises(SettingsError, match=f"NANOSWAP_C2PA_CERTIFICATE: .*{why}"):
            ProvenanceSettings.from_environment(given(tmp_path, chain, key), "eu").load()


def test_development_certificate_is_the_owners_and_says_what_it_is(tmp_path: Path) -> None:
    paths = write_development_certificate(tmp_path)
    assert [stat.S_IMODE(path.stat().st_mode) for path in paths] == [0o600, 0o600]
    for one in x509.load_pem_x509_certificates(paths[0].read_bytes()):
        assert "Nanoswap development, not to be trusted" in one.subject.rfc4514_string().replace("\\", "")
    with pytest.raises(FileExistsError):
        write_development_certificate(tmp_path)


def test_local_service_makes_its_own_and_leaves_what_is_set(tmp_path: Path) -> None:
    environment: dict[str, str] = {}
    _mark_development(environment, tmp_path)
    marks = ProvenanceSettings.from_environment(environment, "eu").load()
    assert marks.signer is not None
    assert not marks.label
    own = given(tmp_path) | {"NANOSWAP_LABEL": "on"}
    before = dict(own)
    _mark_development(own, tmp_path)
    assert own == before


@pytest.mark.parametrize(
    "sign_in",
    # On loopback too: there may be people behind it.
    [{"SUPABASE_URL": "https://p.supabase.co"}, {"NANOSWAP_AUTH_URL": "http://127.0.0.1:9999/auth/v1"}],
    ids=["Supabase", "on loopback"],
)
def test_service_for_the_public_does_not_start_without(
    sign_in: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def started(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("nanoswap.serve.local._ray", started)
    environment = sign_in | {
        "REDIS_URL": "unix:///none",
        "NANOSWAP_REGION": "elsewhere", "NANOSWAP_GATE": "off",
    }  # fmt: skip
    with pytest.raises(SettingsError, match="NANOSWAP_C2PA_CERTIFICATE"), local_service(environment, threading.Event()):
        pass


@pytest.mark.service
def test_running_service_signs_and_says_so(service: Service, astronaut: bytes, hopper: bytes) -> None:
    assert httpx.get(service.url + "/v1/config").json()["marks"] == {"c2pa": True, "label": False}
    with Client(service.url, token=service.sign_in()) as client:
        result = client.swap(astronaut, hopper, consent=True)
    there = seen("image/jpeg", result.data)
    assert there.state == "Valid"
    assert there.manifest["signature"]["common_name"] == "Nanoswap development certificate"
