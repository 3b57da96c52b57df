"""How far a swap is, in a terminal: one line that is rewritten, or a line for every change where it can't be."""

import sys
from collections.abc import Mapping
from typing import Any

from nanoswap.serve.client import Ticket

_BAR = 30


class Progress:
    """One line that is rewritten on a terminal, a line per change elsewhere."""

    def __init__(self, terminal: bool) -> None:
        self._terminal = terminal
        self._shown = ""

    def __call__(self, ticket: Ticket) -> None:
        text = describe(ticket)
        if text != self._shown:
            self._shown = text
            print(
                f"\r\x1b[K{text}" if self._terminal else text,
                end="" if self._terminal else "\n",
                file=sys.stderr,
                flush=True,
            )

    def end(self) -> None:
        if self._terminal and self._shown:
            print(file=sys.stderr)


def describe(ticket: Ticket) -> str:
    """How a ticket stands, in a few words."""
    match ticket["state"]:
        case "waiting":
            wait = f", about {seconds_range(ticket['eta'])}" if ticket["eta"] else ""
            return f"place {ticket['position']} in line{wait}"
        case "granted":
            return "your turn: uploading"
        case "parked":
            return "interrupted: your place is kept"
        case "running":
            progress = ticket["progress"]
            return _stage(progress) if progress else "working"
    return str(ticket["state"])


def _stage(progress: Mapping[str, Any]) -> str:
    """A stage in words; long ones with a bar."""
    stage, done, total = progress["stage"], progress["done"], max(1, progress["total"])
    if total < _BAR:
        return f"{stage} {done}/{total}"
    full = _BAR * done // total
    count = f"{100 * done // total} %" if stage == "upload" else f"frame {done} of {total}"
    return f"{stage} [{'#' * full}{'.' * (_BAR - full)}] {count}"


def seconds_range(eta: Mapping[str, float]) -> str:
    """A range of seconds in a few characters."""
    low, high = round(eta["p50"]), max(1, round(eta["p90"]))
    return f"{high} s" if low >= high else f"{low}-{high} s"
