"""The last report of ``nanoswap prove``, as its operator mounted it, read with suspicion.

A report is a file from outside of this process, so it is bounded, checked and reduced to the fields that are shown;
more fields may be in it and are left out. It is shown whole or not at all: one that contradicts itself (passed, with
remnants or with a scenario that proved nothing) or is from the future is as unreadable as one that isn't JSON. A
failed report is shown as failed. It is not signed: that it is about this service, unchanged, is the operator's word.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

#: A report of some dozens of scenarios has a few kilobytes.
MAX_BYTES = 1 << 20
#: Clocks of two machines may differ by so much.
LEEWAY = timedelta(minutes=5)

Word = Annotated[str, Field(min_length=1, max_length=200)]
Count = Annotated[int, Field(ge=0, strict=True)]


class Scenario(BaseModel):
    """One thing that was tried: about how many bytes of it were found, how many files on a disk were written to, and
    why it proves nothing (None: it does)."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Word
    kind: Literal["image", "video"]
    engine: Word
    remnants: Count
    writes: Count
    problem: Word | None = None


class ProveReport(BaseModel):
    """What is shown of a report. Times are aware."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    tool: Literal["nanoswap prove"]
    version: Word
    started: AwareDatetime
    finished: AwareDatetime
    passed: Annotated[bool, Field(strict=True)]
    #: One of some scenarios, or long after their end, proves nothing of the whole and isn't shown.
    complete: Literal[True]
    scenarios: Annotated[list[Scenario], Field(min_length=1, max_length=500)]

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.passed and any(one.remnants or one.writes or one.problem for one in self.scenarios):
            raise ValueError("passed in spite of what was found, or not tried")
        if self.finished < self.started:
            raise ValueError("ended before it began")
        return self


class ReportUnreadable(Exception):
    """There is a report, and it can't be shown."""


def read_report(path: Path, now: datetime) -> ProveReport | None:
    """The report at ``path`` as of ``now`` (aware); None without one. Raises ReportUnreadable.

    Reads a file: call it in a thread.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError:
        raise ReportUnreadable from None
    if len(data) > MAX_BYTES:
        raise ReportUnreadable
    try:
        report = ProveReport.model_validate_json(data)
    except (ValidationError, RecursionError):
        raise ReportUnreadable from None
    if report.finished > now.astimezone(UTC) + LEEWAY:
        raise ReportUnreadable
    return report
