"""``nanoswap prove``: search a running service of this machine for what it was given.

A line per scenario on standard output, and a dated JSON report. Exit code 0: no remnant and no file written on a disk;
1: there was one, or a scenario proved nothing; 2: nothing could be seen from here.
"""

from __future__ import annotations

import argparse
import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nanoswap import __version__
from nanoswap.serve.client_errors import MediaError

if TYPE_CHECKING:
    from nanoswap.serve.prove import Verdict

FOUND = 1


def add_words(parser: argparse.ArgumentParser) -> None:
    """The words of the command, besides those that say where the service is and who asks."""
    parser.add_argument("--pid", type=int, help="first process of the service; default what listens on the port")
    parser.add_argument("--kind", choices=["image", "video"], help="default both that are open")
    parser.add_argument("--engine", metavar="NAME", help="default all that are offered")
    parser.add_argument("--only", metavar="NAMES", default="", help="these scenarios, with semicolons between")
    parser.add_argument("--after", type=float, default=1.0, metavar="SECONDS", help="from an end to its search (1)")
    parser.add_argument("-o", "--out", metavar="FILE", help="the report; default prove-DATE.json")


def run(arguments: argparse.Namespace, config: dict[str, Any], token: str, url: str) -> int:
    """Raises `MediaError` for what can't be seen or written."""
    # Imported late: numpy and the codecs, which the rest of the command line doesn't need.
    from nanoswap.queue.room import RoomUnavailable
    from nanoswap.serve.file_trace import NoTrace
    from nanoswap.serve.process_memory import OwnTree
    from nanoswap.serve.prove import CanNotProve, Proof, find_root, host_facts, load_engines
    from nanoswap.serve.visitor import Gone, Visitor

    started = datetime.now(UTC)
    out = Path(arguments.out or f"prove-{started:%Y-%m-%dT%H%M%SZ}.json")
    if not out.parent.is_dir():
        raise MediaError("unreadable", f"{out.parent} is not a folder.")
    parts = urlsplit(url)
    try:
        root = arguments.pid or find_root(parts.port or (443 if parts.scheme == "https" else 80))
        engines = _engines(config, arguments.kind, arguments.engine)
        names = {name for chosen in engines.values() for name in chosen}
        loaded, notes = load_engines(root, names)
        proof = Proof(Visitor(url, token, config["consent"]["id"]), root, engines, loaded, after=arguments.after)
        print(f"{'scenario':<18}{'kind':<7}{'engine':<21}{'ended':<17}{'remnants':>8}{'writes':>8}{'scanned':>10}")
        verdicts = proof.run({name.strip() for name in arguments.only.split(";") if name.strip()}, _show)
    except (CanNotProve, NoTrace, OwnTree, RoomUnavailable, Gone, OSError, ValueError) as error:
        raise MediaError("unreadable", str(error) or type(error).__name__) from None
    passed = bool(verdicts) and all(verdict.passed for verdict in verdicts)
    if proof.unwatched:
        notes.append(f"writes there were not told: {', '.join(proof.unwatched)}")
    report = {
        "tool": "nanoswap prove",
        "version": __version__,
        "started": started.isoformat(timespec="seconds"),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "passed": passed,
        "url": f"{parts.scheme}://{parts.netloc}",
        # Of everything that is offered, and in the time that is promised.
        "complete": not arguments.only and not arguments.kind and not arguments.engine and arguments.after <= 2.0,
        "after": arguments.after,
        "host": host_facts(root),
        "notes": notes,
        "scenarios": [verdict.as_json() for verdict in verdicts],
    }
    out.write_text(json.dumps(report, indent=1) + "\n")
    for note in notes:
        print(f"note: {note}")
    print(f"{'passed' if passed else 'FAILED'}: {len(verdicts)} scenarios, report in {out}")
    return 0 if passed else FOUND


def _engines(config: dict[str, Any], kind: str | None, engine: str | None) -> dict[Any, list[str]]:
    """Kind -> names of the engines to try, the default one first."""
    offered = [one for one in config["engines"] if engine in (None, one["name"])]
    if not offered:
        raise MediaError("unreadable", f"the service doesn't offer the engine {engine}.")
    chosen = {"image": [one["name"] for one in offered]}
    if config["limits"].get("video"):
        chosen["video"] = [one["name"] for one in offered if one["clips"]]
    return {name: names for name, names in chosen.items() if kind in (None, name) and names}


def _show(verdict: Verdict) -> None:
    row = f"{verdict.name:<18}{verdict.kind:<7}{verdict.engine:<21}{verdict.ended:<17}"
    print(f"{row}{verdict.remnants:>8}{verdict.writes:>8}{verdict.scanned / 2**20:>6.0f} MiB", flush=True)
    for where, count in verdict.places.items():
        print(f"    about {count} bytes in {where}")
    for what, count in verdict.needles.items():
        print(f"    of {what}: {count}")
    for path in verdict.on_disk:
        print(f"    written: {path}")
    if verdict.problem:
        print(f"    proves nothing: {verdict.problem}", file=sys.stderr)
