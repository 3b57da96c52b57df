"""How many GPU seconds a swap will take, before anything has been seen of it.

The waiting room orders people by this number and settles the difference to what was really used, so it only has to
be fair: the same for everybody who declares the same, and never zero.
"""

from nanoswap.queue.ticket import Kind

#: Seconds that a swap costs whatever its size, and per megapixel of each frame, on the default engine of each kind.
_FIXED = {Kind.IMAGE: 0.25, Kind.VIDEO: 2.0}
_PER_MEGAPIXEL = {Kind.IMAGE: 0.08, Kind.VIDEO: 0.03}


def estimate_seconds(kind: Kind, width: int, height: int, frames: int) -> float:
    """Expected GPU seconds for ``frames`` pictures of ``width`` × ``height`` pixels."""
    return _FIXED[kind] + _PER_MEGAPIXEL[kind] * width * height * frames / 1e6
