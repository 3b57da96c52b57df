"""``nanoswap eval`` on the two portraits and a clip: by the classical engine, judged by stand-ins or by nobody."""

import json
import os
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.clips import Actor, Recipe, Scene, make, sway


@pytest.fixture
def media(tmp_path: Path, astronaut: bytes, hopper: bytes) -> Path:
    for name, data in {
        "sources/astronaut.jpg": astronaut,
        "sources/hopper.jpg": hopper,
        "targets/astronaut.jpg": astronaut,
        "targets/hopper.jpg": hopper,
        "targets/sway.mp4": make(Recipe(Scene([Actor("hopper", sway(240, 135, 50))]), frames=12)),
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    return tmp_path


def evaluate(*words: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NANOSWAP_")}
    return subprocess.run(
        [sys.executable, "-m", "nanoswap.serve.cli", "eval", *words],
        env=inherited, capture_output=True, text=True, timeout=200,
    )  # fmt: skip


def test_every_source_on_every_target_is_judged(media: Path, models: Path) -> None:
    done = evaluate(str(media), "--models", str(models), "--manifest", str(models / "models.toml"))
    assert done.returncode == 0, done.stderr
    assert "STAND-IN WEIGHTS" in done.stdout.splitlines()[1]
    report = json.loads((media / "eval.json").read_text())
    rows = {(row["source"], row["target"]): row for row in report["rows"]}
    assert len(rows) == 6
    assert all(row["failed"] is None for row in rows.values())
    # Whose eyes and nose these are is seen even by this encoder: less like the target than a swap with itself is.
    own, foreign = rows["hopper.jpg", "hopper.jpg"], rows["hopper.jpg", "astronaut.jpg"]
    assert own["nearest"] == "hopper.jpg"
    assert own["identity"] > 0.9
    assert own["identity"] == pytest.approx(own["target_identity"], abs=1e-3)
    assert foreign["target_identity"] < 0.9
    assert foreign["identity"] < own["identity"]
    assert own["pose"] < 2
    assert own["expression"] < foreign["expression"] + 1
    clip = rows["astronaut.jpg", "sway.mp4"]
    assert clip["jitter"] is not None
    assert 0 < clip["jitter"] < 20
    assert own["jitter"] is None
    assert report["summary"]["top1"] >= 0.5
    assert report["summary"]["frechet"] > 0
    sheet = np.asarray(Image.open(BytesIO((media / "eval.png").read_bytes())))
    assert sheet.shape == (3 * 192, 4 * 192, 3)
    assert sheet[192:, 192:].std() > 20


def test_without_weights_it_says_what_is_not_measured(media: Path, tmp_path: Path) -> None:
    (media / "sources" / "astronaut.jpg").unlink()
    (media / "targets" / "sway.mp4").unlink()
    done = evaluate(str(media), "--models", str(tmp_path / "none"))
    assert done.returncode == 0, done.stderr
    assert "identity is not measured" in done.stdout
    assert "realism is not measured" in done.stdout
    report = json.loads((media / "eval.json").read_text())
    assert report["summary"]["identity"] is None
    assert report["summary"]["pose"] is not None


def test_what_can_not_be_judged_is_one_line(media: Path, tmp_path: Path) -> None:
    nowhere = evaluate(str(tmp_path / "nowhere"))
    assert (nowhere.returncode, len(nowhere.stderr.strip().splitlines())) == (2, 1)
    (media / "sources" / "text.jpg").write_text("no picture")
    broken = evaluate(str(media))
    assert broken.returncode == 2
    missing = evaluate(str(media), "--engine", "inswapper")
    assert missing.returncode == 2
    assert "--accept insightface-non-commercial" in missing.stderr


def test_target_without_a_face_is_a_row_and_no_end(media: Path) -> None:
    for file in (media / "targets").iterdir():
        file.unlink()
    buffer = BytesIO()
    Image.new("RGB", (300, 200), (90, 120, 150)).save(buffer, "PNG")
    (media / "targets" / "empty.png").write_bytes(buffer.getvalue())
    done = evaluate(str(media))
    assert done.returncode == 0, done.stderr
    assert [row["failed"] for row in json.loads((media / "eval.json").read_text())["rows"]] == ["no_face"] * 2


def test_engine_of_diffusion_is_judged_on_pictures_and_refuses_clips(media: Path, models: Path) -> None:
    pytest.importorskip("torch", reason="torch isn't installed, and engines of diffusion are optional")
    words = ("--models", str(models), "--manifest", str(models / "models.toml"), "--engine", "instantid")
    done = evaluate(str(media), *words)
    assert done.returncode == 2
    assert done.stderr.strip() == "nanoswap: instantid swaps pictures only, and there are clips: sway.mp4"
    (media / "targets" / "sway.mp4").unlink()
    done = evaluate(str(media), *words)
    assert done.returncode == 0, done.stderr
    report = json.loads((media / "eval.json").read_text())
    assert len(report["rows"]) == 4
    # Random weights make no faces, which is found and said; and it would be judged by eyes that it was not made with.
    assert {row["failed"] for row in report["rows"]} <= {None, "no_face"}
    assert not any("led by" in note for note in report["notes"])
