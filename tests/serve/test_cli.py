"""The command line against the running service: both directions, exit codes, nothing left behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nanoswap.serve.cli_progress import describe
from tests.clips import Recipe, make, read, read_number
from tests.corpus import SCENE
from tests.serve.conftest import Service, jpeg

pytestmark = pytest.mark.service


def nanoswap(*words: object, **options: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "nanoswap.serve.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload, no-any-return]


@pytest.fixture
def photos(tmp_path: Path, astronaut: bytes, hopper: bytes) -> tuple[Path, Path]:
    (tmp_path / "astronaut.jpg").write_bytes(astronaut)
    (tmp_path / "hopper.jpg").write_bytes(hopper)
    return tmp_path / "astronaut.jpg", tmp_path / "hopper.jpg"


def test_swap_in_both_directions(service: Service, photos: tuple[Path, Path], tmp_path: Path) -> None:
    for source, target in (photos, photos[::-1]):
        out = tmp_path / f"to-{target.stem}.png"
        done = nanoswap(
            "swap", source, target, "-o", out, "--format", "png", "--demo", "--consent", "--url", service.url
        )
        assert (done.returncode, done.stdout.strip()) == (0, str(out)), done.stderr
        change = np.abs(np.asarray(Image.open(out)).astype(int) - np.asarray(Image.open(target)).astype(int))
        assert (change.max(axis=2) > 12).mean() > 0.005
        assert "your turn" in done.stderr
    assert {path.suffix for path in tmp_path.iterdir()} == {".jpg", ".png"}


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        (["--consent"], 2, "exists: use --force"),
        ([], 2, "--consent is needed"),
        (["--consent", "--faces", "f0000000000000000"], 2, "chosen face is not in the picture"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    service: Service, photos: tuple[Path, Path], tmp_path: Path, change: list[str], code: int, says: str
) -> None:
    out = tmp_path / "out.jpg"
    if "exists" in says:
        out.write_bytes(b"mine")
    before = sorted(path.name for path in tmp_path.iterdir())
    done = nanoswap("swap", *photos, "-o", out, "--demo", "--url", service.url, *change)
    assert done.returncode == code
    assert says in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("nanoswap:")]) == 1
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_picture_without_a_face(service: Service, photos: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "grey.jpg").write_bytes(jpeg(np.full((300, 300, 3), 128, np.uint8)))
    words = (
        "swap",
        photos[0],
        tmp_path / "grey.jpg",
        "-o",
        tmp_path / "o.jpg",
        "--demo",
        "--consent",
        "--url",
        service.url,
    )
    done = nanoswap(*words)
    assert done.returncode == 2
    assert "No face was found" in done.stderr


def test_clip_and_its_chosen_face(service: Service, photos: tuple[Path, Path], tmp_path: Path) -> None:
    clip, out = tmp_path / "party.mp4", tmp_path / "out.mp4"
    clip.write_bytes(make(Recipe(SCENE, frames=132)))
    (face,) = json.loads(nanoswap("faces", clip, "--at", "0.5", "--demo", "--json", "--url", service.url).stdout)[
        "faces"
    ]
    words = ("swap", photos[0], clip, "-o", out, "--demo", "--consent", "--json", "--url", service.url)
    done = nanoswap(*words, "--faces", face["id"], "--at", "0.5", "--start", "0.5", "--end", "5.25")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["frames"] == 114
    assert [read_number(frame) for frame in read(out.read_bytes()).frames] == list(range(12, 126))
    assert "] " in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["astronaut.jpg", "hopper.jpg", "out.mp4", "party.mp4"]


def test_bad_clip_is_refused_before_waiting(service: Service, photos: tuple[Path, Path], tmp_path: Path) -> None:
    clip = tmp_path / "cut.mp4"
    clip.write_bytes(make(Recipe(SCENE, frames=12))[:-2000])
    done = nanoswap("swap", photos[0], clip, "-o", tmp_path / "o.mp4", "--demo", "--consent", "--url", service.url)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["nanoswap: The clip is cut short."]


def test_small_commands(service: Service, photos: tuple[Path, Path]) -> None:
    faces = json.loads(nanoswap("faces", photos[0], "--demo", "--json", "--url", service.url).stdout)
    assert len(faces["faces"]) == 1
    assert "GPU seconds left" in nanoswap("quota", "--demo", "--url", service.url).stdout
    assert "images:" in nanoswap("queue", "--url", service.url).stdout
    token = nanoswap("login", "--demo", "--url", service.url).stdout.strip()
    assert token.count(".") == 2
    assert nanoswap("quota", "--token", token, "--url", service.url).returncode == 0
    assert nanoswap("cancel", "t_unknown", "--token", token, "--url", service.url).returncode == 2


def test_unreachable_service_is_exit_code_4(photos: tuple[Path, Path], tmp_path: Path) -> None:
    done = nanoswap("queue", "--url", "http://127.0.0.1:9")
    assert done.returncode == 4
    assert "can't be reached" in done.stderr


def test_progress_is_told_in_words() -> None:
    waiting = {"state": "waiting", "position": 3, "eta": {"p50": 4.2, "p90": 9.1}, "progress": None}
    assert describe(waiting) == "place 3 in line, about 4-9 s"
    running = {"state": "running", "progress": {"stage": "swap", "done": 1, "total": 2}}
    assert describe(running) == "swap 1/2"
    clip = {"state": "running", "progress": {"stage": "swap", "done": 150, "total": 300}}
    assert describe(clip) == f"swap [{'#' * 15}{'.' * 15}] frame 150 of 300"
    upload = {"state": "running", "progress": {"stage": "upload", "done": 10**6, "total": 4 * 10**6}}
    assert describe(upload).endswith("25 %")
