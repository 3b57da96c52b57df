"""``./dev bench``: every benchmark, one after the other, as text. Figures in README and docs name this command."""

import subprocess
import sys
from pathlib import Path

BENCHES = ("room", "paste", "image", "gateway")


def main() -> int:
    chosen = sys.argv[1:] or BENCHES
    failed = 0
    for name in chosen:
        print(f"\n== {name} ==", flush=True)
        failed |= subprocess.run([sys.executable, str(Path(__file__).with_name(f"bench_{name}.py"))]).returncode
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
