"""``/v1/verify``: what runs here, and a report that is shown whole, with its age, or not at all."""

import json
import platform
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest

from nanoswap import __version__
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.serve.build import build
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.prove_report import MAX_BYTES, ReportUnreadable, read_report
from nanoswap.serve.public_settings import PublicSettings
from nanoswap.serve.verification import Verification
from tests.serve.test_gateway import SETTINGS, Anyone

NOW = datetime(2026, 12, 1, 12, 0, tzinfo=UTC)
REPORT: dict[str, Any] = {
    "tool": "nanoswap prove",
    "complete": True,
    "version": __version__,
    "started": "2026-11-30T11:00:00Z",
    "finished": "2026-11-30T11:30:00+00:00",
    "passed": True,
    "host": "not shown",
    "scenarios": [
        {"name": "success", "kind": "image", "engine": "mesh", "remnants": 0, "writes": 0, "bytes_scanned": 10**9},
        {"name": "client gone", "kind": "video", "engine": "mesh", "remnants": 0, "writes": 0, "pids": [1]},
    ],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "prove.json"


async def verify(path: Path | None, now: datetime = NOW) -> dict[str, Any]:
    answer = await Verification(PublicSettings(prove_report=path)).answer(now)
    return answer.model_dump(mode="json")


def put(path: Path, text: str) -> None:
    path.write_text(text)


def scenario(**changes: Any) -> dict[str, Any]:
    return REPORT | {"scenarios": [REPORT["scenarios"][0] | changes]}


async def test_report_is_shown_with_its_age_and_without_what_was_not_asked_for(path: Path) -> None:
    put(path, json.dumps(REPORT))
    answer = await verify(path)
    assert answer["report_status"] == "read"
    shown = answer["report"]
    assert (shown["passed"], shown["same_version"], shown["age_seconds"]) == (True, True, 88_200)
    assert shown["scenarios"][0] == {
        "name": "success", "kind": "image", "engine": "mesh", "remnants": 0, "writes": 0, "problem": None,
    }  # fmt: skip
    assert "not shown" not in json.dumps(answer)


async def test_report_of_another_version_says_so(path: Path) -> None:
    put(path, json.dumps(REPORT | {"version": "0.0.9"}))
    assert (await verify(path))["report"]["same_version"] is False


async def test_failed_report_is_shown_as_failed(path: Path) -> None:
    put(path, json.dumps(scenario(remnants=3) | {"passed": False}))
    shown = (await verify(path))["report"]
    assert shown["passed"] is False
    assert shown["scenarios"][0]["remnants"] == 3


async def test_scenario_that_proved_nothing_says_why(path: Path) -> None:
    put(path, json.dumps(scenario(problem="ended as gone and not as canceled") | {"passed": False}))
    shown = (await verify(path))["report"]
    assert [one["problem"] for one in shown["scenarios"]] == ["ended as gone and not as canceled"]


async def test_report_is_read_anew_when_it_is_renewed(path: Path) -> None:
    verification = Verification(PublicSettings(prove_report=path))
    assert (await verification.answer(NOW)).report_status == "none"
    put(path, json.dumps(REPORT))
    assert (await verification.answer(NOW)).report_status == "read"


async def test_without_a_report_nothing_is_claimed(path: Path) -> None:
    for nowhere in (None, path):
        answer = await verify(nowhere)
        assert (answer["report_status"], answer["report"]) == ("none", None)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "[]",
        "nonsense",
        "[" * 100_000,
        json.dumps(REPORT | {"tool": "another"}),
        json.dumps({name: value for name, value in REPORT.items() if name != "passed"}),
        json.dumps(REPORT | {"passed": "true"}),
        json.dumps(REPORT | {"scenarios": []}),
        json.dumps(scenario(remnants=-1)),
        json.dumps(scenario(remnants="0")),
        json.dumps(scenario(remnants=None)),
        json.dumps(scenario(kind="audio")),
        json.dumps(scenario(name="x" * 201)),
        json.dumps(scenario(remnants=1)),
        json.dumps(scenario(writes=1)),
        json.dumps(scenario(problem="ended as gone")),
        json.dumps(scenario(problem="x" * 201)),
        json.dumps(REPORT | {"finished": "2026-11-30T10:00:00Z"}),
        json.dumps(REPORT | {"finished": "2026-11-30T11:30:00"}),
        json.dumps(REPORT | {"finished": "2026-12-01T12:06:00Z"}),
        json.dumps(REPORT) + " " * MAX_BYTES,
    ],
)
async def test_report_that_is_not_in_order_is_not_shown(path: Path, wrong: str) -> None:
    put(path, wrong)
    with pytest.raises(ReportUnreadable):
        read_report(path, NOW)
    answer = await verify(path)
    assert (answer["report_status"], answer["report"]) == ("unreadable", None)


async def test_a_folder_in_its_place_is_no_error_of_the_service(tmp_path: Path) -> None:
    assert (await verify(tmp_path))["report_status"] == "unreadable"


async def test_clock_that_is_a_little_ahead_is_no_lie(path: Path) -> None:
    put(path, json.dumps(REPORT))
    answer = await verify(path, datetime(2026, 11, 30, 11, 29, tzinfo=UTC))
    assert answer["report"]["age_seconds"] == 0


def test_versions_are_those_that_are_installed_and_the_build_says_the_rest() -> None:
    digest = "sha256:" + "ab" * 32
    made = build(PublicSettings(build_commit="0123abc", image_digest=digest))
    assert (made.commit, made.image_digest) == ("0123abc", digest)
    assert made.versions["nanoswap"] == __version__
    assert made.versions["python"] == platform.python_version()
    assert made.versions["ray"] == metadata.version("ray")
    assert build(PublicSettings()).commit is None


def test_ffmpeg_is_the_one_that_would_be_loaded() -> None:
    import av

    said = build(PublicSettings()).versions["ffmpeg"]
    if said is None:
        pytest.skip("PyAV was built against an FFmpeg of the system")
    assert said == "libavcodec " + ".".join(map(str, av.library_versions["libavcodec"]))


def test_knowing_versions_loads_nothing_heavy() -> None:
    code = (
        "import sys; from nanoswap.serve.build import build; "
        "from nanoswap.serve.public_settings import PublicSettings; "
        "build(PublicSettings()); print(sorted({'torch', 'ray', 'onnxruntime', 'av', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


async def test_answer_is_public_and_kept_for_a_minute_only(path: Path) -> None:
    report = REPORT | {
        "started": "2020-01-01T00:00:00Z",
        "finished": (datetime.now(UTC) - timedelta(hours=2)).isoformat(),
    }
    put(path, json.dumps(report))
    settings = replace(SETTINGS, public=PublicSettings(prove_report=path))
    app = create_gateway(settings, MemoryRoom(Policy()), Anyone())  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        answer = await client.get("/v1/verify")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "public, max-age=60")
    assert 7200 <= answer.json()["report"]["age_seconds"] < 7260
    assert answer.json()["repeat"]["command"] == "nanoswap prove"
    assert str(path) not in answer.text
