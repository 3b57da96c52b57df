"""What one line has seen so far: sums that only grow, and that say nothing of anybody.

They are counted where it happens, in the same atomic step that changes a ticket, so no count is lost with the process
that would have made it and none is made twice. A store that is emptied begins at zero, which whoever reads counters
must expect of any process (Prometheus does).

The quote is held against the wait as the person saw it: the upper end of the range that came with the place, until the
turn began. Those who leave after it has passed count as not covered; those who leave before, can't be heard for so long
that they are parked, or had a turn and didn't come for it, say nothing about it and count nowhere. Leaving the first
out would make the estimate look better than it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from nanoswap.queue.ticket import Kind, State

#: Upper ends of the waits that are counted together, seconds; one more count is of those beyond the last.
WAIT_BOUNDS = (0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 180.0, 300.0, 600.0, 1200.0, 3600.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """The sums of one line since its store was empty."""

    kind: Kind
    #: State -> tickets that came to it. Waiting: places taken, not those that came back from parking.
    tickets: Mapping[State, int]
    #: Grants that nobody came for.
    no_shows: int
    #: Quotes whose truth is known, and those that the wait did not exceed.
    quoted: int
    covered: int
    #: First waits by ``WAIT_BOUNDS``, each counted once, and their sum in seconds.
    waits: tuple[int, ...]
    wait_seconds: float


def bucket(wait: float) -> int:
    """Index into ``Tally.waits`` of a wait in seconds: the first bound that it does not exceed."""
    return sum(wait > bound for bound in WAIT_BOUNDS)


def tally(kind: Kind, fields: Mapping[str, int]) -> Tally:
    """The tally of what a store keeps: names of states, ``no_shows``, ``quoted``, ``covered``, ``wait:INDEX`` and
    ``wait_ms``. What is missing is 0."""
    return Tally(
        kind=kind,
        tickets={state: fields.get(state.value, 0) for state in State},
        no_shows=fields.get("no_shows", 0),
        quoted=fields.get("quoted", 0),
        covered=fields.get("covered", 0),
        waits=tuple(fields.get(f"wait:{index}", 0) for index in range(len(WAIT_BOUNDS) + 1)),
        wait_seconds=fields.get("wait_ms", 0) / 1000,
    )
