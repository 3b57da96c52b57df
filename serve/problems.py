"""Errors as the API speaks them: RFC 9457 problem details with a stable ``code``.

The set of codes is part of the API: it stands here once, the OpenAPI document lists it, and clients branch on it.
A detail is one of our own sentences. It never repeats a value that came with the request, so neither an answer nor
a log can carry a token, a file name or a piece of somebody's picture.
"""

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from nanoswap.pipelines.errors import NoFace, PipelineError
from nanoswap.queue import room
from nanoswap.queue.session import InvalidSession, SessionsUnavailable
from nanoswap.serve.log_records import place

log = logging.getLogger(__name__)

#: code -> (status, title). Order follows the life of a request.
CODES: dict[str, tuple[int, str]] = {
    "session_missing": (401, "Sign in first"),
    "session_malformed": (401, "The access token can't be read"),
    "session_expired": (401, "The session has expired"),
    "session_untrusted": (401, "The access token is not one of ours"),
    "session_revoked": (401, "The session was ended"),
    "session_unavailable": (503, "Sessions can't be checked right now"),
    "call_untrusted": (403, "This call doesn't carry a valid signature"),
    "bad_request": (422, "The request doesn't have the expected form"),
    "consent_missing": (422, "The consent statement was not agreed to"),
    "unknown_kind": (422, "This kind of swap is not offered here"),
    "idempotency_mismatch": (409, "This Idempotency-Key was used for another request"),
    "quota": (429, "This account's fair share is used up for now"),
    "too_many_tickets": (429, "This account already has its number of places in line"),
    "queue_full": (503, "The line is full"),
    "draining": (503, "This service is about to restart"),
    "room_unavailable": (503, "The waiting room can't be reached"),
    "not_found": (404, "There is nothing here for this account"),
    "method_not_allowed": (405, "This address doesn't take this method"),
    "grant_used": (409, "This turn has been used"),
    "grant_expired": (410, "This turn has passed"),
    "length_required": (411, "The request must say how long its body is"),
    "larger_than_declared": (413, "The upload is larger than declared"),
    "too_large": (413, "The file is too large"),
    "too_slow": (408, "The upload took too long"),
    "slow_reader": (408, "The result was taken too slowly"),
    "incomplete": (400, "The upload was cut off"),
    "unsupported": (415, "This kind of file is not supported"),
    "undecodable": (422, "The file can't be read"),
    "timed_out": (422, "The file takes too long to work on"),
    "no_face": (422, "No face was found"),
    "many_faces": (422, "More than one source face was found"),
    "unknown_face": (422, "A chosen face is not in the picture"),
    "content_refused": (422, "This content isn't swapped here"),
    "not_marked": (503, "Results can't be marked right now"),
    "canceled": (409, "The swap was canceled"),
    "lost_turn": (503, "The turn was interrupted"),
    "too_many_requests": (429, "Too many requests"),
    "unavailable": (503, "This part of the service is not there right now"),
    "internal": (500, "Something went wrong on our side"),
}

MEDIA_TYPE = "application/problem+json"
NO_STORE = {"Cache-Control": "no-store"}


@dataclass(eq=False)
class Problem(Exception):
    """An error on its way to the client. (Not frozen: Python itself writes a traceback onto it.)"""

    code: str
    detail: str | None = None
    #: Seconds until another try makes sense; becomes ``Retry-After``.
    retry_after: float | None = None
    #: Which part of the request it is about: ``source``, ``target`` or a field.
    part: str | None = None

    @property
    def status(self) -> int:
        return CODES[self.code][0]

    def body(self) -> dict[str, object]:
        status, title = CODES[self.code]
        body: dict[str, object] = {
            "type": f"/problems#{self.code}",
            "title": title,
            "status": status,
            "code": self.code,
        }
        optional = {"detail": self.detail, "retry_after": self.wait, "part": self.part}
        return body | {name: value for name, value in optional.items() if value is not None}

    @property
    def wait(self) -> int | None:
        """Whole seconds for ``Retry-After``, never 0: a client that waits 0 s is a busy loop."""
        return None if self.retry_after is None else max(1, math.ceil(self.retry_after))

    def response(self) -> JSONResponse:
        headers = dict(NO_STORE)
        if self.wait is not None:
            headers["Retry-After"] = str(self.wait)
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse(self.body(), self.status, headers, MEDIA_TYPE)


#: What the waiting room's refusals are called here.
_ROOM: dict[type[room.RoomError], str] = {
    room.RoomUnavailable: "room_unavailable",
    room.TicketNotFound: "not_found",
    room.QueueFull: "queue_full",
    room.QuotaExceeded: "quota",
    room.TooManyTickets: "too_many_tickets",
    room.IdempotencyMismatch: "idempotency_mismatch",
    room.GrantUsed: "grant_used",
    room.GrantExpired: "grant_expired",
}
#: A store or an auth service that is away is usually back by then.
_AWAY_SECONDS = 5.0


def as_problem(error: Exception) -> Problem:
    """The problem that an error of one of the rooms is to a client; ``internal`` for one that isn't foreseen."""
    match error:
        case Problem():
            return error
        case room.RoomUnavailable():
            return Problem("room_unavailable", retry_after=_AWAY_SECONDS)
        case room.Refused():
            return Problem(_ROOM[type(error)], retry_after=error.retry_after)
        case room.RoomError():
            return Problem(_ROOM[type(error)])
        case InvalidSession():
            return Problem(error.code, str(error))
        case SessionsUnavailable():
            return Problem("session_unavailable", retry_after=_AWAY_SECONDS)
        case NoFace():
            return Problem(error.code, str(error), part=error.where)
        case PipelineError():
            return Problem(error.code, str(error))
    return Problem("internal")


_BY_STATUS = {404: "not_found", 405: "method_not_allowed"}


def install(app: FastAPI) -> None:
    """Make every error of an application, its framework's own included, a problem+json."""

    async def on_problem(_: Request, error: Exception) -> JSONResponse:
        return as_problem(error).response()

    async def on_surprise(_: Request, error: Exception) -> JSONResponse:
        # Type and place only: a message or a local variable could hold something of a person.
        log.error("unforeseen %s", place(error))
        return Problem("internal").response()

    async def on_validation(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        # FastAPI would repeat the input; name only where it went wrong.
        where = ".".join(str(step) for step in error.errors()[0]["loc"] if isinstance(step, str))
        return Problem("bad_request", f"'{where}' is missing or out of range.").response()

    async def on_http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return Problem(_BY_STATUS.get(error.status_code, "bad_request")).response()

    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[JSONResponse]]] = {
        Problem: on_problem,
        room.RoomError: on_problem,
        InvalidSession: on_problem,
        SessionsUnavailable: on_problem,
        PipelineError: on_problem,
        Exception: on_surprise,
        RequestValidationError: on_validation,
        HTTPException: on_http,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
