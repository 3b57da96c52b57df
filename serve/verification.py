"""``/v1/verify``: what runs here, what was last found when it was searched, and what anybody can check for themselves.

Everything is either this process's own knowledge, the operator's word (and called so), or a step that a reader can
repeat. What can't be checked from afar is listed as such: an answer of this address proves nothing about the memory
behind it.
"""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Literal

from pydantic import Field

from nanoswap.serve.build import Build, build
from nanoswap.serve.prove_report import ProveReport, ReportUnreadable, read_report
from nanoswap.serve.public_settings import PublicSettings
from nanoswap.serve.wire import Wire

log = logging.getLogger(__name__)

COMMAND = "nanoswap prove"
#: What anybody can check at this address, without a right on its machine.
REMOTE = (
    "Headers: each answer has Content-Security-Policy, Strict-Transport-Security and Cross-Origin-Resource-Policy; "
    "answers about a person say Cache-Control: no-store.",
    "Digests: a whole result has the length and SHA-256 that its ticket states, and /v1/models lists the hashes of the "
    "weights, to compare with what their publishers list.",
    "Origin: where results are marked, a reader of C2PA shows the mark.",
    "Contact: /.well-known/security.txt.",
    "Nothing to fetch: a result comes once, in the response to its upload; its address gives it to nobody a second "
    "time, with the same grant or without.",
)
#: What nobody can check from afar.
NOT_REMOTE = (
    "That nothing is left in the memory of this machine. Run the service yourself and search it, as the command does.",
    "That this machine runs this code and this image unchanged. Only attestation by hardware would show it; there is "
    "none.",
    "That nobody with root on this machine reads its memory while a swap runs.",
)


class BuildOut(Wire):
    versions: dict[str, str | None] = Field(description="null: not installed here.")
    commit: str | None = Field(description="As the operator's build says it; null: it says nothing.")
    image_digest: str | None = Field(description="As the operator says it; null: nothing is said.")


class ScenarioOut(Wire):
    name: str
    kind: Literal["image", "video"]
    engine: str
    remnants: int = Field(description="About how many bytes of what was uploaded or made of it were found afterwards.")
    writes: int = Field(description="Files on a disk that the service wrote to.")
    problem: str | None = Field(description="Why this one proves nothing, whatever was found; null: it does.")


class ReportOut(Wire):
    version: str = Field(description="Of nanoswap, when it was searched.")
    same_version: bool = Field(description="Whether that is the version that runs here.")
    started: datetime
    finished: datetime
    age_seconds: int
    passed: bool
    scenarios: list[ScenarioOut]


class RepeatOut(Wire):
    command: str = COMMAND
    remote: tuple[str, ...] = REMOTE
    not_remote: tuple[str, ...] = NOT_REMOTE


class VerifyOut(Wire):
    """What can be known of this service, and how to check it."""

    build: BuildOut
    report_status: Literal["none", "unreadable", "read"]
    report: ReportOut | None = Field(description="The last report of the command that the operator has mounted.")
    models: str = "/v1/models"
    repeat: RepeatOut = RepeatOut()


class Verification:
    """Answers for one gateway. The build is read once; the report each time, because it may be renewed."""

    def __init__(self, public: PublicSettings) -> None:
        self._path = public.prove_report
        self.build: Build = build(public)

    async def answer(self, now: datetime | None = None) -> VerifyOut:
        """The answer as of ``now`` (aware; default: now). Never raises for a report that can't be shown."""
        now = now or datetime.now(UTC)
        made = BuildOut(versions=self.build.versions, commit=self.build.commit, image_digest=self.build.image_digest)
        if self._path is None:
            return VerifyOut(build=made, report_status="none", report=None)
        try:
            report = await asyncio.to_thread(read_report, self._path, now)
        except ReportUnreadable:
            log.warning("the report of %s can't be shown", COMMAND)
            return VerifyOut(build=made, report_status="unreadable", report=None)
        if report is None:
            return VerifyOut(build=made, report_status="none", report=None)
        return VerifyOut(build=made, report_status="read", report=self._shown(report, now))

    def _shown(self, report: ProveReport, now: datetime) -> ReportOut:
        return ReportOut(
            version=report.version,
            same_version=report.version == self.build.versions["nanoswap"],
            started=report.started,
            finished=report.finished,
            age_seconds=max(0, int((now - report.finished).total_seconds())),
            passed=report.passed,
            scenarios=[ScenarioOut(**one.model_dump()) for one in report.scenarios],
        )
