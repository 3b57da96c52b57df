"""The command line against a small server that misbehaves: every exit code, Ctrl-C, one line and no traceback."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nanoswap.serve.cli import main
from tests.serve.conftest import wait_until
from tests.serve.double import RESULT, Double, problem, running


@pytest.fixture
def double() -> Iterator[tuple[Double, str]]:
    made = Double()
    with running(made) as url:
        yield made, url


@pytest.fixture
def photo(tmp_path: Path, hopper: bytes) -> Path:
    path = tmp_path / "hopper.jpg"
    path.write_bytes(hopper)
    return path


def words(photo: Path, out: Path, url: str, *more: str) -> list[str]:
    return ["swap", str(photo), str(photo), "-o", str(out), "--consent", "--token", "token", "--url", url, *more]


def test_result_goes_to_the_file_and_its_path_to_standard_output(
    double: tuple[Double, str], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.jpg"
    umask = os.umask(0o022)
    try:
        assert main(words(photo, out, double[1])) == 0
    finally:
        os.umask(umask)
    assert capsys.readouterr().out == f"{out}\n"
    assert out.read_bytes() == RESULT
    assert out.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("status", "error", "code"),
    [(429, "quota", 3), (503, "queue_full", 3), (503, "room_unavailable", 4), (422, "bad_request", 2)],
)
def test_refusals_have_their_exit_code(
    double: tuple[Double, str],
    photo: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    status: int,
    error: str,
    code: int,
) -> None:
    made, url = double
    made.script["join"] = [problem(status, error, Retry_After="60")]
    assert main(words(photo, tmp_path / "out.jpg", url)) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert ("Try again in 60 s" in said) == (code == 3)
    assert [path.name for path in tmp_path.iterdir()] == ["hopper.jpg"]


@pytest.mark.parametrize("seed", ["-1", "4294967296", "1.5", "lucky", ""])
def test_seed_that_is_none_is_one_line_and_exit_code_2(
    double: tuple[Double, str], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: str
) -> None:
    made, url = double
    try:
        code = main(words(photo, tmp_path / "out.jpg", url, f"--seed={seed}"))
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]
    said = capsys.readouterr().err
    assert code == 2
    assert said.startswith("nanoswap: ")
    assert said.count("\n") == 1
    assert "seed" in said
    assert made.keys == []


def test_output_that_can_not_be_written_is_found_before_waiting(
    double: tuple[Double, str], photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, url = double
    assert main(words(photo, tmp_path, url, "--force")) == 2
    assert "is a folder" in capsys.readouterr().err
    assert made.keys == []


@pytest.mark.parametrize("url", ["http://127.0.0.1:port", "http://127.0.0.1:99999999", "127.0.0.1:8000"])
def test_address_that_is_none_is_exit_code_2(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue", "--url", url]) == 2
    assert "address" in capsys.readouterr().err


def default_interrupt() -> None:
    """A shell's background job hands SIGINT down as ignored; a person's terminal doesn't."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_interrupt_gives_the_place_up(double: tuple[Double, str], photo: Path, tmp_path: Path) -> None:
    made, url = double
    made.state = "waiting"
    command = [sys.executable, "-m", "nanoswap.serve.cli", *words(photo, tmp_path / "out.jpg", url)]
    process = subprocess.Popen(preexec_fn=default_interrupt, args=command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: made.tokens)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
    assert made.deleted, "the ticket was left in line"
    assert [path.name for path in tmp_path.iterdir()] == ["hopper.jpg"]


def test_command_line_starts_without_the_heavy_libraries() -> None:
    heavy = "('ray', 'numpy', 'cv2', 'PIL', 'fastapi')"
    code = f"import sys, nanoswap.serve.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
