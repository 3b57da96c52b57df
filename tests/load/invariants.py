"""What must hold whatever breaks, as pure functions of what a crowd went through."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import median, quantiles

from tests.load.journey import Journey

#: Problems of a person who never got a place: turned away, with an answer that says so, and nothing to lose.
TURNED_AWAY = frozenset({"unreachable", "unavailable", "room_unavailable", "session_unavailable", "draining"})
#: Seconds by which a turn may be given out of order: whoever lost the connection is back within them.
SLACK = 15.0
#: Seconds.
BIN = 10.0


@dataclass(frozen=True, slots=True)
class Findings:
    """Of one fault. Each list names the tickets that break an invariant; empty: it holds."""

    results: int
    turned_away: int
    #: How many were in line, or in a turn that broke, when it struck.
    in_line: int
    others: list[str]
    unsettled: list[str]
    lost: list[str]
    overtaken: list[str]


def judge(journeys: Sequence[Journey], struck: float) -> Findings:
    """``struck``: when the fault began, seconds of `time.monotonic`."""
    away = [one for one in journeys if not one.ticket and one.problem in TURNED_AWAY]
    done = [one for one in journeys if not one.problem]
    return Findings(
        results=len(done),
        turned_away=len(away),
        others=[one.ticket for one in done if not one.theirs],
        unsettled=[one.ticket for one in done if one.settled is False],
        lost=[f"{one.ticket or 'no ticket'} {one.problem}" for one in journeys if one.problem and one not in away],
        in_line=len(in_line(journeys, struck)),
        overtaken=overtaken(journeys, struck),
    )


def in_line(journeys: Sequence[Journey], struck: float) -> list[Journey]:
    """Who had a place and no result at the blow, and was given a turn after it, or should have been: the turn of some
    was interrupted."""
    here = [one for one in journeys if one.ticket and one.joined <= struck < one.ended]
    return [one for one in here if one.problem or any(grant > struck for grant in one.grants)]


def overtaken(journeys: Sequence[Journey], struck: float) -> list[str]:
    """Those of `in_line` whom somebody of the same kind, who came afterwards, was ahead of at the turn by more than
    SLACK."""
    found = []
    for one in in_line(journeys, struck):
        turn = next((grant for grant in one.grants if grant > struck), None)
        later = [
            other.grants[0]
            for other in journeys
            if other.kind == one.kind and other.ticket and other.joined > struck and other.grants
        ]
        if later and (turn is None or turn > min(later) + SLACK):
            found.append(one.ticket)
    return found


def recovered(journeys: Sequence[Journey], struck: float) -> float | None:
    """Seconds from the blow until half of those who come within any ten seconds wait no longer than nineteen of twenty
    did before it (or than a second). None when that isn't so for the last who came."""
    before = [wait for one in journeys if one.began < struck and (wait := one.wait) is not None]
    usual = max(1.0, quantiles(before, n=20)[-1]) if len(before) > 1 else 1.0
    bins: dict[int, list[float]] = {}
    for one in journeys:
        if one.began >= struck:
            bins.setdefault(int((one.began - struck) // BIN), []).append(inf if one.wait is None else one.wait)
    slow = [index for index, waits in bins.items() if median(waits) > usual]
    if slow and max(slow) == max(bins):
        return None
    return BIN * (max(slow) + 1) if slow else 0.0
