"""How many replicas a line needs: a pure function of what waits, what runs, and the clock.

Up it goes at once, to the largest of three numbers. The floor is the operator's: hours in which replicas stand ready,
which begin earlier by the time that a start takes. The work that waits must be gone within as long as a start takes, or
within the wait that is aimed at, if that is longer: what those who are ready will have done by the time that others
could help is not counted, because a replica for it would come too late. And when somebody waits longer than is
aimed at, as more than one in twenty did lately, although nothing is on its way, the line is slower than its estimates,
and one more is asked for; then that one must have come, and had the time of another start to show what it is good for.

Down it goes by one, after some time in which nobody had to wait, nothing changed, and the turns that ran would on
average have left one replica idle with something to spare. So the same demand always comes to rest: what would have
to wait with one replica less keeps it.
"""

import math
from dataclasses import dataclass, replace

DAY = 86_400.0
MINUTE = 60.0
#: 1970-01-01 was a Thursday; days count from Monday as 0.
_EPOCH_WEEKDAY = 3
#: Shorter waits are the time between two statements of the room, not a line.
NOTICED = 1.0
#: Times the target that nobody should wait, however the last people fared: in a line that stands still nobody is last.
FAR_TOO_LONG = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Hours, in UTC, in which at least ``replicas`` stand ready. ``days``: on which it begins, Monday is 0. ``begin``
    and ``end`` are minutes of the day; an end that isn't after the begin is on the next day."""

    days: frozenset[int]
    begin: int
    end: int
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an operator decides for one line. Times are seconds."""

    #: Turns that one replica works on at once.
    slots: int
    minimum: int
    maximum: int
    #: The wait that nineteen of twenty people should stay below.
    target_wait: float
    #: From asking for a replica until it takes its first turn.
    cold_start: float
    #: Without anybody waiting, for one replica less.
    step_down: float = 600.0
    #: Most of the slots that would be left may have been busy, on average, for one replica less.
    busy_share: float = 0.7
    windows: tuple[Window, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """A line at one moment: GPU seconds that wait, seconds that the first to come has waited, turns given out (running
    or granted), and the wait that nineteen of twenty of the last people stayed below; None if there were none."""

    work: float
    oldest: float
    turns: int
    p95: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """The replicas of a line, and what has been seen of them. Times are seconds since the epoch."""

    #: Asked for; those that are ready, and those that are on their way.
    target: int
    ready: int
    #: Since when both numbers are what they are.
    changed: float
    #: Since when, besides, nobody has had to wait; the last look; the seconds of turns between the two.
    calm: float
    seen: float
    turn_seconds: float = 0.0

    @property
    def busy(self) -> float:
        """Turns at once, on average, since it has been calm."""
        past = self.seen - self.calm
        return self.turn_seconds / past if past > 0 else math.inf


def follow(before: Fleet | None, demand: Demand, *, target: int, ready: int, now: float) -> Fleet:
    """The fleet with one more look at it; ``before`` is None at the first."""
    if before is None or (before.target, before.ready) != (target, ready) or now < before.seen:
        return Fleet(target=target, ready=ready, changed=now, calm=now, seen=now)
    if demand.oldest >= NOTICED:
        return replace(before, calm=now, seen=now, turn_seconds=0.0)
    return replace(before, seen=now, turn_seconds=before.turn_seconds + demand.turns * (now - before.seen))


def desired(demand: Demand, rules: Rules, now: float, fleet: Fleet) -> int:
    """Replicas to ask for, from the floor to ``rules.maximum``. ``now``: seconds since the epoch, UTC.

    Never below the floor; below what is asked for now by at most one, and never so that those that are left have fewer
    slots than turns are given out.
    """
    needed = max(floor(rules, now), _for_work(demand, rules, fleet.ready), _for_age(demand, rules, now, fleet))
    kept = fleet.target - 1 if _spare(demand, rules, now, fleet) else fleet.target
    return min(rules.maximum, max(needed, kept))


def floor(rules: Rules, now: float) -> int:
    """Replicas that must stand ready at ``now``, whatever the line: the largest of the windows that are open or will be
    before a replica that is asked for now could be ready."""
    opened = (window.replicas for window in rules.windows if _open(window, now, rules.cold_start))
    return min(rules.maximum, max(rules.minimum, *opened, 0))


def _open(window: Window, now: float, early: float) -> bool:
    today = math.floor(now / DAY)
    length = ((window.end - window.begin - 1) % (DAY / MINUTE) + 1) * MINUTE
    # One that began yesterday may last until today, one of tomorrow may need a start today.
    for day in (today - 1, today, today + 1):
        begin = day * DAY + window.begin * MINUTE
        if (day + _EPOCH_WEEKDAY) % 7 in window.days and begin - early <= now < begin + length:
            return True
    return False


def _for_work(demand: Demand, rules: Rules, ready: int) -> int:
    late = demand.work - ready * rules.slots * rules.cold_start
    return max(0, math.ceil(late / (rules.slots * max(rules.target_wait, rules.cold_start))))


def _for_age(demand: Demand, rules: Rules, now: float, fleet: Fleet) -> int:
    settled = fleet.ready >= fleet.target and now - fleet.changed >= rules.cold_start
    # One of twenty may wait longer than the target.
    usual = demand.oldest if demand.p95 is None else min(demand.oldest, demand.p95)
    late = max(usual, demand.oldest / FAR_TOO_LONG) > rules.target_wait
    return fleet.target + 1 if settled and late else 0


def _spare(demand: Demand, rules: Rules, now: float, fleet: Fleet) -> bool:
    if demand.oldest >= NOTICED or now - fleet.calm < rules.step_down:
        return False
    left = fleet.target - 1
    wanted_back = _for_work(demand, rules, left) > left
    return (
        not wanted_back and demand.turns <= left * rules.slots and fleet.busy <= rules.busy_share * left * rules.slots
    )
