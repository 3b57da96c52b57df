"""`nanoswap prove` on a running service: nothing is left; and on one that keeps what it gets, it says so."""

import ctypes
import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nanoswap.serve.cli import main
from nanoswap.serve.prove import CanNotProve, find_root, learned
from nanoswap.serve.prove_report import ReportUnreadable, read_report
from tests.serve.conftest import Service, start_service, stop_service

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(
        sys.platform != "linux" or os.geteuid() != 0, reason="reading other processes' memory takes Linux and root"
    ),
]

#: What a dishonest replica does: it keeps what it should overwrite.
LEAKY = """
import sys
if any("default_worker" in word for word in sys.orig_argv):
    import nanoswap.serve.upload as upload
    kept = []
    real = upload.wipe
    def keep(data):
        kept.append(bytes(data))
        real(data)
    upload.wipe = keep
"""


def prove(service: Service, out: Path, *words: str) -> tuple[int, dict[str, Any]]:
    code = main(["prove", "--demo", "--url", service.url, "-o", str(out), *words])
    return code, json.loads(out.read_text())


def test_nothing_is_left_of_a_picture_or_a_clip(service: Service, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    code, report = prove(service, out, "--only", "success, jpeg;success;left in upload;no face")
    table = {(row["kind"], row["name"]): row for row in report["scenarios"]}
    assert {(kind, name) for kind in ("image", "video") for name in ("left in upload", "no face")} < set(table)
    for row in report["scenarios"]:
        assert row["problem"] is None, row
        assert row["places"] == {}, row
        assert row["on_disk"] == [], row
        assert row["processes"] > 8
        assert row["scanned"] > 200_000_000
    assert (code, report["passed"]) == (0, True)
    assert report["host"]["may_dump_core"] == []
    # /verify shows the report of a whole run, and of nothing less.
    with pytest.raises(ReportUnreadable):
        read_report(out, datetime.now(UTC))
    out.write_text(json.dumps(report | {"complete": True}))
    shown = read_report(out, datetime.now(UTC))
    assert shown is not None
    assert shown.passed


def test_replica_that_keeps_an_upload_is_found_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(LEAKY)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    leaky = start_service(PYTHONPATH=path, NANOSWAP_VIDEO_REPLICAS="0")
    try:
        code, report = prove(leaky, tmp_path / "report.json", "--only", "success, png")
    finally:
        stop_service(leaky)
    assert (code, report["passed"]) == (1, False)
    (row,) = report["scenarios"]
    assert row["ended"] == "ok"
    (place,) = row["places"]
    assert "ServeReplica:image" in place
    assert row["needles"]["source, file"] > 100_000
    assert row["needles"]["target, file"] > 100_000
    assert "ServeReplica:image" in capsys.readouterr().out


def test_who_may_not_look_is_told_in_one_line(service: Service) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nanoswap.serve.cli", "prove", "--demo", "--url", service.url, "-o", "/dev/null"],
        preexec_fn=without_leave_to_look, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr == "nanoswap: the memory of the service can't be read: run as root on its machine\n"


def without_leave_to_look() -> None:
    """Whatever is executed next has every right of root but this one: PR_CAPBSET_DROP, CAP_SYS_PTRACE."""
    ctypes.CDLL(None).prctl(24, 19, 0, 0, 0)


def test_first_process_is_found_by_the_port(service: Service) -> None:
    port = int(service.url.rpartition(":")[2])
    assert find_root(port) == service.process.pid
    with pytest.raises(CanNotProve, match="no process"):
        find_root(1)


def test_what_an_engine_learns_is_looked_for() -> None:
    from nanoswap.pipelines.canary import picture, portrait
    from nanoswap.pipelines.mesh import MeshEngine

    forms = learned(MeshEngine(), picture(portrait(3), "jpeg").data)
    assert forms["source, learned.pixels"].nbytes > 10_000
