"""Where the end of every turn is written down: in the counts of this process, and as a line of the log where wanted."""

from dataclasses import dataclass, field

from nanoswap.pipelines.errors import ContentRefused
from nanoswap.serve import metrics, turn_record
from nanoswap.serve.meter import Meter
from nanoswap.serve.turn_record import TurnRecord


@dataclass(frozen=True, slots=True)
class Books:
    """``lines``: write a line for each turn."""

    meter: Meter = field(default_factory=Meter)
    lines: bool = False

    def write(self, record: TurnRecord, error: BaseException | None) -> None:
        """Count a turn that ended with ``error``, and why the gate refused if it did."""
        for stage, seconds in record.stages.items():
            self.meter.observe(metrics.STAGE, record.kind, stage, amount=seconds)
        self.meter.count(metrics.BUSY, record.kind, amount=record.gpu_seconds)
        if isinstance(error, ContentRefused):
            self.meter.count(metrics.REFUSALS, error.reason)
        if self.lines:
            turn_record.write(record)
