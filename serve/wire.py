"""What travels over HTTP, as types: the request and answer bodies of the API, and how a place becomes one.

The waiting room's own dataclasses stay inside; a client sees these models and nothing else. The OpenAPI document is
made from them.
"""

from datetime import UTC, datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from nanoswap.queue.room import Line, Quota
from nanoswap.queue.ticket import Eta, Place
from nanoswap.serve.problems import CODES
from nanoswap.serve.safety_settings import Region


class Wire(BaseModel):
    """Base of every body: unknown fields are refused, so that a misspelt option is an error and not a surprise."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TicketRequest(Wire):
    """A request for a place in line. It declares the media; it never carries any."""

    kind: Literal["image", "video"] = "image"
    bytes: Annotated[int, Field(gt=0, description="Sum of both files, in bytes.")]
    width: Annotated[int, Field(gt=0, le=100_000, description="Target width in pixels.")]
    height: Annotated[int, Field(gt=0, le=100_000, description="Target height in pixels.")]
    frames: Annotated[int, Field(gt=0, le=1_000_000)] = 1
    consent: Annotated[str, Field(max_length=64, description="Id of the statement in /v1/config that was agreed to.")]


class Range(Wire):
    """Seconds from now, as a range: half and nine tenths of the people like you wait no longer."""

    p50: float
    p90: float

    @classmethod
    def of(cls, eta: Eta | None) -> Self | None:
        return None if eta is None else cls(p50=round(eta.p50, 2), p90=round(eta.p90, 2))


class Spread(Wire):
    """Seconds, measured over the last tickets."""

    p50: float
    p95: float


class ProgressOut(Wire):
    stage: str
    done: int
    total: int


class ResultOut(Wire):
    bytes: int
    sha256: str
    gpu_seconds: float


class ProblemOut(Wire):
    """RFC 9457 problem details; ``code`` is stable."""

    type: str
    title: str
    status: int
    code: str
    detail: str | None = None
    retry_after: int | None = None
    part: str | None = None


class TicketProblem(Wire):
    code: str
    title: str


class Links(Wire):
    self: str
    events: str
    swap: str
    cancel: str


class TicketOut(Wire):
    """A place in line, as it is now."""

    id: str
    kind: str
    state: Literal["waiting", "granted", "running", "parked", "succeeded", "failed", "canceled", "expired", "aborted"]
    position: int | None = Field(description="1 is next; null when not in line.")
    ahead_seconds: float | None = Field(description="GPU seconds of the work ahead.")
    eta: Range | None
    grant: str | None = Field(description="One-time permission to upload, for the Grant header.")
    grant_expires_at: datetime | None
    created_at: datetime
    token: str = Field(description="Sealed ticket. Send it back as the Ticket header: it restores a lost place.")
    progress: ProgressOut | None
    result: ResultOut | None
    problem: TicketProblem | None
    attempts: int
    links: Links

    @classmethod
    def of(cls, place: Place, token: str) -> Self:
        """The answer for one place. ``token`` is its sealed ticket."""
        ticket = place.ticket
        outcome = ticket.outcome
        here = f"/v1/tickets/{ticket.id}"
        return cls(
            id=ticket.id,
            kind=ticket.kind.value,
            state=ticket.state.value,
            position=place.position,
            ahead_seconds=None if place.ahead is None else round(place.ahead, 2),
            eta=Range.of(place.eta),
            grant=ticket.grant,
            grant_expires_at=None if ticket.grant_expires is None else _moment(ticket.grant_expires),
            created_at=_moment(ticket.joined),
            token=token,
            progress=None
            if ticket.progress is None
            else ProgressOut(stage=ticket.progress.stage, done=ticket.progress.done, total=ticket.progress.total),
            result=None
            if outcome is None or outcome.code
            else ResultOut(bytes=outcome.bytes, sha256=outcome.sha256, gpu_seconds=outcome.gpu_seconds),
            problem=None
            if outcome is None or not outcome.code
            else TicketProblem(code=outcome.code, title=CODES[outcome.code][1]),
            attempts=ticket.attempts,
            links=Links(self=here, events=f"{here}/events", swap=f"/{ticket.kind.value}{here}/swap", cancel=here),
        )


class LineOut(Wire):
    """One line, for anybody to see."""

    waiting: int
    granted: int
    running: int
    slots: int
    workers: int
    work_seconds: float
    eta: Range | None
    wait: Spread | None
    service: Spread | None

    @classmethod
    def of(cls, line: Line) -> Self:
        return cls(
            waiting=line.waiting,
            granted=line.granted,
            running=line.running,
            slots=line.slots,
            workers=line.workers,
            work_seconds=round(line.work_seconds, 1),
            eta=Range.of(line.eta) if line.workers else None,
            wait=None if line.wait is None else Spread(p50=round(line.wait.p50, 2), p95=round(line.wait.p95, 2)),
            service=None
            if line.service is None
            else Spread(p50=round(line.service.p50, 2), p95=round(line.service.p95, 2)),
        )


class QuotaOut(Wire):
    available_seconds: float
    horizon_seconds: float
    refill_seconds: float
    open_tickets: int
    max_tickets: int

    @classmethod
    def of(cls, quota: Quota) -> Self:
        return cls(
            available_seconds=round(quota.available_seconds, 1),
            horizon_seconds=round(quota.horizon_seconds, 1),
            refill_seconds=round(quota.refill_seconds, 1),
            open_tickets=quota.open_tickets,
            max_tickets=quota.max_tickets,
        )


class FaceOut(Wire):
    id: str = Field(description="Names this face by where it is; send it in 'faces' of the swap.")
    box: tuple[int, int, int, int] = Field(description="x, y, width, height in pixels of the upright picture.")
    score: float


class FacesOut(Wire):
    width: int
    height: int
    faces: list[FaceOut]


class EngineOut(Wire):
    name: str
    label: str
    licence: str
    clips: bool = Field(description="Whether it swaps clips too. A clip that asks for none gets the first that does.")
    seeded: bool = Field(description="Whether it begins with noise, so that another seed gives another picture.")


class LicenceOut(Wire):
    name: str
    title: str
    commercial: bool = Field(description="Whether a service that earns may use the file.")


class ModelOut(Wire):
    """One file of weights."""

    name: str
    role: str
    repository: str
    revision: str
    file: str
    sha256: str | None = Field(
        description="No other file is loaded. null: none was published; the operator records it."
    )
    bytes: int | None
    licence: LicenceOut
    use: str
    stand_in: bool = Field(description="Made for tests: what comes of it means nothing.")
    required: bool = Field(description="False: the engine uses it only where the operator has it.")


class ModelsEngineOut(Wire):
    name: str
    label: str
    licence: str
    offered: bool = Field(description="Whether it runs here.")
    models: list[ModelOut]


class ModelsOut(Wire):
    """Every engine that is known here, and the files it is made of; and those of the safety gate."""

    engines: list[ModelsEngineOut]
    gate: list[ModelOut] = Field(description="Whether the gate is on here is in /v1/config.")


class Demo(Wire):
    email: str
    password: str


class AuthOut(Wire):
    url: str
    key: str | None
    development: bool
    demo: Demo | None


class ImageLimitsOut(Wire):
    max_bytes: int
    max_pixels: int
    max_side: int
    formats: list[str]


class VideoLimitsOut(Wire):
    max_bytes: int
    max_pixels: int = Field(description="Of one frame.")
    max_frames: int
    max_seconds: float
    max_fps: float
    codecs: list[str]
    containers: list[str]


class Limits(Wire):
    image: ImageLimitsOut
    video: VideoLimitsOut | None = Field(default=None, description="null when clips are not offered.")


class QueueOut(Wire):
    image: LineOut
    video: LineOut | None = Field(default=None, description="null when clips are not offered.")
    limits: Limits
    promise_seconds: int = 120


class ConsentOut(Wire):
    id: str
    text: str


class SafetyOut(Wire):
    """Whether intimate pictures and faces of minors are refused here, and where the service is offered."""

    gate: bool
    region: Region


class ConfigLinks(Wire):
    faces: str = "/image/v1/faces"
    tickets: str = "/v1/tickets"
    queue: str = "/v1/queue"
    quota: str = "/v1/quota"
    models: str = "/v1/models"


class MarksOut(Wire):
    """What every result says of itself."""

    c2pa: bool = Field(
        description="A signed C2PA manifest: made by this service, by which engine, and unchanged since."
    )
    label: bool = Field(description="The words AI-generated, in a corner of its pixels.")


class ConfigOut(Wire):
    """All that a client needs to know before it signs in."""

    version: str
    engine: EngineOut
    engines: list[EngineOut]
    auth: AuthOut
    limits: Limits
    consent: ConsentOut
    safety: SafetyOut
    marks: MarksOut
    links: ConfigLinks = ConfigLinks()


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
