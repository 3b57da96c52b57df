"""What runs below a service that is under test."""

from pathlib import Path

from nanoswap.serve.process_memory import command, tree


def replica(pid: int, kind: str) -> int:
    """The process that swaps ``image`` or ``video`` for the service with this process id."""
    (found,) = [below for below in tree(pid) if f"ServeReplica:{kind}" in command(below)]
    return found


def resident(pid: int) -> int:
    """Bytes of memory that a process holds for itself."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the kernel doesn't tell")
