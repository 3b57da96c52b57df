"""Whether there is a safety gate: the strict default, where it can't be turned off, and that everybody is told."""

import logging
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from nanoswap.pipelines.classifier_gate import ClassifierGate
from nanoswap.pipelines.model_store import ModelMissing
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.serve.catalogue import CONSENT
from nanoswap.serve.environment import SettingsError
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.model_settings import ModelSettings
from nanoswap.serve.safety_settings import SafetySettings, for_development
from nanoswap.serve.settings import Settings
from tests.clips import portrait
from tests.pipelines.test_swap_clip import marked, striped
from tests.serve.api import Api
from tests.serve.conftest import Service, start_service, stop_service
from tests.serve.test_gateway import SETTINGS, Anyone, person
from tests.serve.test_settings import GOOD
from tests.serve.test_video import begin


@pytest.mark.parametrize(
    ("environment", "region", "gate"),
    [
        ({}, "eu", True),
        ({"NANOSWAP_REGION": "eu"}, "eu", True),
        ({"NANOSWAP_REGION": "elsewhere"}, "elsewhere", True),
        ({"NANOSWAP_REGION": "elsewhere", "NANOSWAP_GATE": "on"}, "elsewhere", True),
        ({"NANOSWAP_REGION": "elsewhere", "NANOSWAP_GATE": "off"}, "elsewhere", False),
    ],
)
def test_gate_is_on_unless_it_is_turned_off_outside_the_eu(
    environment: dict[str, str], region: str, gate: bool
) -> None:
    safety = Settings.from_environment(GOOD | environment).safety
    assert (safety.region, safety.gate) == (region, gate)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"NANOSWAP_GATE": "off"}, r"NANOSWAP_GATE can't be off where NANOSWAP_REGION is eu.*2 December 2026 Art. 5"),
        ({"NANOSWAP_REGION": "eu", "NANOSWAP_GATE": "off"}, "NANOSWAP_GATE can't be off"),
        ({"NANOSWAP_REGION": "EU"}, "NANOSWAP_REGION must be one of eu, elsewhere"),
        ({"NANOSWAP_REGION": "", "NANOSWAP_GATE": "off"}, "NANOSWAP_REGION must be one of"),
        ({"NANOSWAP_REGION": "elsewhere", "NANOSWAP_GATE": "0"}, "NANOSWAP_GATE must be one of on, off"),
        ({"NANOSWAP_REGION": "elsewhere", "NANOSWAP_GATE": ""}, "NANOSWAP_GATE must be one of on, off"),
    ],
)
def test_what_is_not_allowed_is_refused_in_one_line(environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as error:
        Settings.from_environment(GOOD | environment)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        ({}, {"NANOSWAP_REGION": "elsewhere", "NANOSWAP_GATE": "off"}),
        ({"NANOSWAP_GATE": "on"}, {"NANOSWAP_GATE": "on"}),
        ({"NANOSWAP_REGION": "eu"}, {"NANOSWAP_REGION": "eu"}),
    ],
)
def test_development_goes_without_only_when_nothing_was_said(was: dict[str, str], becomes: dict[str, str]) -> None:
    environment = dict(was)
    for_development(environment)
    assert environment == becomes


def test_gate_that_is_on_is_loaded_or_nothing_starts(models: Path, tmp_path: Path) -> None:
    on = SafetySettings()
    there = ModelSettings(folder=models, manifest=models / "models.toml")
    on.check(there)
    assert isinstance(on.load(there), ClassifierGate)
    for attempt in (on.check, on.load):
        with pytest.raises(ModelMissing, match="nanoswap models pull gate"):
            attempt(replace(there, folder=tmp_path))


def test_gate_that_is_off_needs_nothing_and_is_logged_at_each_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    off = SafetySettings(region="elsewhere", gate=False)
    nothing = ModelSettings(folder=tmp_path)
    off.check(nothing)
    assert off.load(nothing) is None
    assert off.load(nothing) is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "the safety gate is off" in caplog.text


def start(**environment: str) -> "subprocess.CompletedProcess[str]":
    """What `nanoswap serve` says when it can't."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NANOSWAP_")}
    return subprocess.run(
        [sys.executable, "-m", "nanoswap.serve.cli", "serve"],
        env=inherited | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_service_that_may_not_start_says_why_in_one_line(tmp_path: Path) -> None:
    outside = {"SUPABASE_URL": "https://p.supabase.co", "NANOSWAP_MODELS": str(tmp_path)}
    for environment, named in (
        # Nothing is made up for a service that others can sign in to.
        (outside, "run nanoswap models pull gate"),
        (outside | {"NANOSWAP_REGION": "elsewhere"}, "run nanoswap models pull gate"),
        (outside | {"NANOSWAP_GATE": "off"}, "NANOSWAP_GATE can't be off"),
        ({"NANOSWAP_GATE": "off"}, "NANOSWAP_GATE can't be off"),
        ({"NANOSWAP_GATE": "on", "NANOSWAP_MODELS": str(tmp_path)}, "run nanoswap models pull gate"),
    ):
        done = start(**environment)
        assert done.returncode == 2, environment
        assert named in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("on", [True, False])
async def test_anybody_may_ask_whether_there_is_a_gate(on: bool) -> None:
    safety = SafetySettings(region="eu" if on else "elsewhere", gate=on)
    app = create_gateway(replace(SETTINGS, safety=safety), MemoryRoom(Policy()), Anyone())  # type: ignore[arg-type]
    async with person(app, "ann") as client:
        config = (await client.get("/v1/config")).json()
    assert config["safety"] == {"gate": on, "region": "eu" if on else "elsewhere"}


def test_consent_says_what_it_must() -> None:
    """The text and its id change together: whoever changes the one must change the other, and this line."""
    assert (CONSENT.id, CONSENT.text) == (
        "likeness-3",
        "I may use these pictures and clips. Everyone who can be recognised in them is an adult and has agreed to this "
        "swap. Nothing in them is intimate or sexual. I will say that the result is AI-generated wherever I show it, "
        "and not pass it off as real.",
    )


@pytest.mark.service
def test_development_service_has_no_gate_and_says_so(service: Service) -> None:
    assert httpx.get(f"{service.url}/v1/config").json()["safety"] == {"gate": False, "region": "elsewhere"}


@pytest.mark.service
def test_service_with_a_gate_refuses(models: Path, hopper: bytes, astronaut: bytes) -> None:
    """One whole process tree with the gate on, picture and clip."""
    words = ("--models", str(models), "--manifest", str(models / "models.toml"))
    running = start_service(*words, NANOSWAP_GATE="on", NANOSWAP_THREADS="1")
    try:
        config = httpx.get(f"{running.url}/v1/config").json()
        assert config["safety"] == {"gate": True, "region": "eu"}
        api = Api(running.url, running.sign_in())
        _, fine = api.whole(hopper, astronaut)
        assert fine.status_code == 200, fine.text
        ticket, refused = api.whole(hopper, striped(portrait("astronaut")))
        assert (refused.status_code, refused.json()["code"]) == (422, "content_refused")
        after = api.until(ticket, "failed")
        assert after["problem"] == {"code": "content_refused", "title": "This content isn't swapped here"}
        clip = marked(3)
        ticket = begin(api, hopper, clip, 36)
        refused = api.swap(ticket, hopper, clip)
        assert (refused.status_code, refused.json()["code"]) == (422, "content_refused")
        # Not seen by the look ahead, and then the stream is cut.
        clip = marked(16)
        ticket = begin(api, hopper, clip, 36)
        with pytest.raises(httpx.RemoteProtocolError):
            api.swap(ticket, hopper, clip)
        assert api.until(ticket, "failed")["problem"]["code"] == "content_refused"
        api.close()
    finally:
        stop_service(running)
