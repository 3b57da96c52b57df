"""``./dev bench``: every benchmark, one after the other, as text. Figures in README and docs name this command."""

import subprocess
import sys
from pathlib import Path

BENCHES = (
    "room", "paste", "image", "gateway", "video", "video_memory", "tracking", "mixed", "networks", "runtime", "steps",
    "provenance", "volatile",
)  # fmt: skip
ROOT = Path(__file__).parents[2]


def main() -> int:
    chosen = sys.argv[1:] or BENCHES
    failed = 0
    for name in chosen:
        print(f"\n== {name} ==", flush=True)
        failed |= subprocess.run([sys.executable, "-m", f"tests.bench.bench_{name}"], cwd=ROOT).returncode
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
