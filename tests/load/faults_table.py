"""The fault bench: a running service under a crowd, broken in one way after the other, and what held.

``./dev run python -m tests.load.faults_table [NAME …]`` prints a table, a row for each fault, and ends with 1 when an
invariant is broken. Forty minutes on two cores. The crowd is the real client against the real service: pictures and
clips with their owners' numbers on them, everybody an account of their own.
"""

import asyncio
import os
import subprocess
import sys
import time

from tests.load import media
from tests.load.crowd import Crowd, Media
from tests.load.faults import FAULTS, Fault
from tests.load.invariants import Findings, judge, recovered
from tests.load.target import Target, held, target

#: People a second, and the share of them with a clip: about half of what two cores can do, crowd included.
RATE, CLIPS = 1.0, 0.15
CALM_SECONDS, GATHER_SECONDS, AFTER_SECONDS = 20.0, 1.0, 40.0
CALM = "nothing"
#: What the service may hold more than before the first fault, when nobody is left.
MEMORY_BYTES = 64 * 2**20
HEAD = (
    "| fault | in line | results | turned away | somebody else's | not settled | lost a place | overtaken"
    " | waits as before after | memory | prove |\n| --- |" + " ---: |" * 9 + " --- |"
)


async def suffer(fault: Fault, struck: Target, things: Media) -> tuple[Findings, float | None]:
    """A crowd, the blow, and what became of everybody."""
    crowd = Crowd(struck.url, struck.auth, things, RATE, CLIPS)
    crowd.begin()
    await asyncio.sleep(CALM_SECONDS)
    # So that somebody is in line: some come at once.
    for kind in ("image",) * 8 + ("video",) * 4:
        crowd.one(kind)
    await asyncio.sleep(GATHER_SECONDS)
    began = time.monotonic()
    await fault.strike(struck)
    await asyncio.sleep(AFTER_SECONDS)
    await crowd.end()
    return judge(crowd.journeys, began), recovered(crowd.journeys, began)


def proven(struck: Target, *words: str) -> bool:
    """Whether `nanoswap prove` finds nothing."""
    words = ("prove", "--url", struck.url, "-o", os.devnull, *words)
    done = subprocess.run(
        [sys.executable, "-m", "nanoswap.serve.cli", *words],
        env=os.environ | {"NANOSWAP_TOKEN": struck.auth.token()},
        capture_output=True,
        text=True,
    )
    if done.returncode:
        print(done.stdout, done.stderr, file=sys.stderr)
    return done.returncode == 0


def row(name: str, findings: Findings, seconds: float | None, grown: int, clean: bool) -> tuple[str, bool]:
    """A line of the table, and whether everything held."""
    counts = [len(one) for one in (findings.others, findings.unsettled, findings.lost, findings.overtaken)]
    holds = not any(counts) and seconds is not None and grown < MEMORY_BYTES and clean and findings.results > 0
    holds = holds and (findings.in_line > 0 or name == CALM)
    cells = [name, findings.in_line, findings.results, findings.turned_away, *counts]
    cells += [
        "never" if seconds is None else f"{seconds:.0f} s",
        f"{grown / 2**20:+.0f} MiB",
        "0" if clean else "FOUND",
    ]
    return f"| {' | '.join(map(str, cells))} |", holds


def main() -> int:
    wanted = sys.argv[1:]
    faults = [one for one in FAULTS if not wanted or any(word in one.name for word in wanted)]
    things = Media(
        [(number, media.picture(number, 2.0)) for number in range(128)],
        [(number, media.clip(number)) for number in range(128, 160)],
    )
    everything = True
    # Short, or eight who crawl would hold every turn for minutes.
    with target(NANOSWAP_UPLOAD_SECONDS="10") as struck:
        # Once without a fault, for what is loaded and kept when it is first used.
        calm = Fault(CALM, lambda _: asyncio.sleep(0))
        print(HEAD, flush=True)
        before = 0
        for fault in (calm, *faults):
            findings, seconds = asyncio.run(suffer(fault, struck, things))
            clean = proven(struck, "--only", "success, jpeg;success")
            now = held(struck.root)
            before = before or now
            line, holds = row(fault.name, findings, seconds, now - before, clean)
            print(line, flush=True)
            for broken in (findings.others, findings.unsettled, findings.lost, findings.overtaken):
                for one in broken[:5]:
                    print(f"    {one}", file=sys.stderr, flush=True)
            everything = everything and holds
        if not wanted:
            clean = proven(struck)
            print(
                f"\nThe whole of `nanoswap prove` on the same service, after all of these: {'0' if clean else 'FOUND'}"
            )
            everything = everything and clean
    return 0 if everything else 1


if __name__ == "__main__":
    sys.exit(main())
