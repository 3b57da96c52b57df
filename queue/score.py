"""Where a new ticket stands in line: GCRA-boost, as pure functions.

Every account has a clock. A turn of ``estimate`` GPU seconds moves it ahead by ``estimate / phi``: the account is then
served as if it held the share ``phi`` of one GPU (the theoretical arrival time of GCRA, ITU-T I.371, used as a priority
instead of a limit). The place is the clock's reading minus a head start for short jobs (gamma-Boost, arXiv 2404.08826).
The score never changes afterwards, so nobody starves: only people who join within ``boost_cap`` can overtake.
"""

import math


def boost(estimate: float, gamma: float, cap: float) -> float:
    """Head start in seconds of a job of ``estimate`` GPU seconds: the shorter the job, the larger, at most ``cap``."""
    return min(cap, -math.log(-math.expm1(-gamma * estimate)) / gamma)


def debt(estimate: float, phi: float) -> float:
    """Seconds by which a turn of ``estimate`` GPU seconds moves the account's clock ahead."""
    return estimate / phi


def milliseconds(seconds: float) -> int:
    """Whole milliseconds, up: in these the rooms count times and costs."""
    return math.ceil(seconds * 1000 - 1e-6)
