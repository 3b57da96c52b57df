"""What runs below a service that is under test."""

import subprocess
from pathlib import Path


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def descendants(pid: int) -> list[int]:
    """All processes below one, itself included."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], check=True, capture_output=True, text=True).stdout
    children: dict[int, list[int]] = {}
    for line in table.splitlines():
        child, parent = map(int, line.split())
        children.setdefault(parent, []).append(child)
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


def replica(pid: int, kind: str) -> int:
    """The process that swaps ``image`` or ``video`` for the service with this process id."""
    (found,) = [below for below in descendants(pid) if f"ServeReplica:{kind}" in command(below)]
    return found


def resident(pid: int) -> int:
    """Bytes of memory that a process holds for itself."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel doesn't tell")
