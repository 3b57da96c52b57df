"""The house: which room may import which, what the wheel holds, and that nothing shadows the standard library."""

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("serve", "pipelines", "queue")
MAY_IMPORT = {"serve": {"serve", "pipelines", "queue"}, "pipelines": {"pipelines"}, "queue": {"queue"}}
#: Libraries that belong to one room only: no HTTP, Redis or Ray with the pixels, no pixels or Ray in the line.
FOREIGN = {
    "pipelines": {"fastapi", "starlette", "uvicorn", "redis", "ray", "supabase", "httpx"},
    "queue": {"ray", "numpy", "cv2", "PIL", "torch"},
    "serve": {"cv2", "PIL", "torch", "redis", "supabase"},
}


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, at any depth of nesting."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
            if node.module == "nanoswap":
                found |= {f"nanoswap.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_in_one_direction(room: str) -> None:
    files = sorted((ROOT / room).glob("*.py"))
    assert files
    for path in files:
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "nanoswap" and len(parts) > 1 and parts[1] in ROOMS:
                assert parts[1] in MAY_IMPORT[room], f"{path.name} of {room} imports {name}"
            if path.name != "client_probe.py":
                assert parts[0] not in FOREIGN[room], f"{path.name} of {room} imports {name}"


def test_standard_queue_is_not_shadowed() -> None:
    code = "import queue, concurrent.futures, multiprocessing; assert hasattr(queue, 'SimpleQueue')"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    assert not (ROOT / "queue" / "__init__.py").exists()


def test_import_package_is_the_folders_at_the_top() -> None:
    code = "import nanoswap.queue.ticket as t, nanoswap.serve.wire, nanoswap.pipelines.face; print(t.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd="/", check=True, capture_output=True, text=True)
    assert Path(done.stdout.strip()).resolve() == ROOT / "queue" / "ticket.py"


def test_wheel_holds_every_module_and_file(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "uv",
        "build",
        "--wheel",
        "--no-build-isolation",
        "-q",
        "-o",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    modes = {one.filename: one.external_attr >> 16 for one in zipfile.ZipFile(wheel).infolist()}
    held = set(modes)
    for room in ROOMS:
        for path in (ROOT / room).rglob("*"):
            inside = path.relative_to(ROOT / room)
            if path.is_file() and "__pycache__" not in inside.parts and path.suffix != ".pyc":
                assert f"nanoswap/{room}/{inside}" in held
                # An installer makes executable what the wheel says is.
                assert bool(modes[f"nanoswap/{room}/{inside}"] & 0o111) == bool(path.stat().st_mode & 0o111), inside
    assert "nanoswap/py.typed" in held


def test_lock_files_name_no_place() -> None:
    locks = list((ROOT / "deploy" / "locks").glob("*.txt"))
    assert len(locks) == 3
    for lock in locks:
        text = lock.read_text()
        assert not re.search(r"://|^-|^\s*@|file:", text, re.MULTILINE), lock.name
        assert "--hash=sha256:" in text


def test_one_cv2_with_the_cascade_classifier() -> None:
    import cv2

    assert hasattr(cv2, "CascadeClassifier")
    assert "opencv-python-headless" not in (ROOT / "deploy" / "locks" / "dev.txt").read_text()


def test_top_level_is_the_agreed_one() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    top = {line.split("/")[0] for line in tracked.splitlines()}
    assert top <= {
        *ROOMS, "deploy", "tests", "src", "pyproject.toml", "Dockerfile.gpu", "README.md", "LICENSE", "SECURITY.md",
        "dev", ".ci", ".gitignore", ".dockerignore", "docs", "examples",
    }  # fmt: skip


def test_no_picture_of_a_person_and_no_weights_are_committed() -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    media = {".jpg", ".jpeg", ".png", ".webp", ".avif", ".heic", ".mp4", ".onnx", ".safetensors", ".pth", ".pt"}
    # The one screenshot shows the page before anything is chosen.
    assert {path for path in tracked if Path(path).suffix.lower() in media} <= {"docs/page.png"}
