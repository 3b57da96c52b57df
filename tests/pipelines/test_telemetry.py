"""No library of this room reports home: a process that runs a network leaves nothing in its home folder."""

import subprocess
import sys
from pathlib import Path

RUN = "from nanoswap.pipelines.onnx_arena import shared_arena; shared_arena()"


def test_onnx_runtime_keeps_no_database(tmp_path: Path) -> None:
    # Nothing of this process's environment is passed on: that of a CI would hush it too.
    subprocess.run([sys.executable, "-c", RUN], env={"HOME": str(tmp_path)}, check=True, timeout=120)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
