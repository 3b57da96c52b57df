"""One line of JSON for a turn that has ended: what an operator needs to plan, and nothing by which to find a person.

No account, ticket, address or time of day finer than the log's own; sizes are rounded up to powers of two, so that a
line can't be matched with a file whose size somebody knows. Lines are off unless the operator turns them on
(``NANOSWAP_LOG_TURNS=1``): a replica's log is in its bounded scratch, and some 250 bytes a turn add up where nobody
collects them.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from nanoswap.queue.ticket import Kind

log = logging.getLogger(__name__)

#: How a turn ended that ended well, and one whose place was given back. Else a code of ``problems.CODES``.
DELIVERED, GIVEN_BACK = "delivered", "given_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnRecord:
    """``gpu_seconds``: of work. ``stages``: name -> seconds. ``declared_bytes``, ``result_bytes``: rounded up to powers
    of two, 0 for none."""

    kind: Kind
    code: str
    gpu_seconds: float
    stages: Mapping[str, float]
    declared_bytes: int
    result_bytes: int

    def line(self) -> str:
        """The record as one line of JSON; seconds to a millisecond."""
        stages = {name: round(seconds, 3) for name, seconds in self.stages.items()}
        fields = asdict(self) | {"gpu_seconds": round(self.gpu_seconds, 3), "stages": stages}
        return json.dumps({"event": "turn"} | fields, separators=(",", ":"))


def write(record: TurnRecord) -> None:
    """Write the line, at WARNING: Ray hands on nothing below it from a replica's own loggers."""
    log.warning("%s", record.line())


def rounded_up(count: int) -> int:
    """The smallest power of two that is at least ``count``; 0 for 0."""
    return 1 << (count - 1).bit_length() if count else 0
