"""What can go wrong for a client, as types.

NanoswapError
├── SessionError     sign in (again)
├── Busy             refused for now: queue, quota, places; ``retry_after`` says when
├── MediaError       these pictures can't be swapped: no face, too large, undecodable, refused …
├── RequestError     anything else that is wrong with the request or the ticket
├── SwapEnded        the ticket ended without a result: canceled, expired, aborted
└── Unavailable      the service can't be reached or keeps failing
"""

import json
from collections.abc import Mapping
from typing import Any

import httpx

_BUSY = frozenset({"quota", "too_many_tickets", "queue_full", "too_many_requests"})
_MEDIA = frozenset(
    {"no_face", "many_faces", "unknown_face", "unsupported", "undecodable", "too_large", "larger_than_declared"}
    | {"content_refused"}
)


class NanoswapError(Exception):
    """The swap did not happen. ``code`` is the API's stable code."""

    def __init__(
        self, code: str, message: str, *, retry_after: float | None = None, ticket_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retry_after = retry_after
        self.ticket_id = ticket_id


class SessionError(NanoswapError):
    """Sign in, or sign in again."""


class Busy(NanoswapError):
    """Refused for now."""


class MediaError(NanoswapError):
    """These pictures can't be swapped."""


class RequestError(NanoswapError):
    """The request or the ticket is wrong."""


class SwapEnded(NanoswapError):
    """The ticket ended without a result."""


class Unavailable(NanoswapError):
    """The service can't be reached, or keeps failing."""


def problem(answer: httpx.Response, ticket_id: str | None = None) -> NanoswapError:
    """The typed error of an answer that isn't a success."""
    try:
        body = json.loads(answer.content)
        code, title = str(body["code"]), str(body["title"])
    except (ValueError, KeyError, TypeError):
        return Unavailable(
            "unavailable", f"The service answered with status {answer.status_code}.", ticket_id=ticket_id
        )
    kind: type[NanoswapError] = RequestError
    if code in _BUSY:
        kind = Busy
    elif answer.status_code == 401:
        kind = SessionError
    elif code in _MEDIA:
        kind = MediaError
    elif answer.status_code >= 500:
        kind = Unavailable
    text = " ".join(part for part in (f"{title}.", body.get("detail")) if part)
    return kind(code, text, retry_after=retry_after(answer), ticket_id=ticket_id)


def retry_after(answer: httpx.Response) -> float | None:
    """Seconds of the Retry-After header (RFC 9110 section 10.2.3, the number form)."""
    value = answer.headers.get("retry-after", "")
    return float(value) if value.isdecimal() else None


def ended(ticket: Mapping[str, Any]) -> NanoswapError:
    """The error of a ticket that ended without a result."""
    given = ticket.get("problem")
    if given:
        kind = MediaError if given["code"] in _MEDIA else RequestError
        return kind(given["code"], f"{given['title']}.", ticket_id=ticket["id"])
    if ticket["state"] == "succeeded":
        # The answer broke off after its last byte had left the service, which has wiped it by now.
        return Unavailable("result_lost", "The result was lost on its way. Swap again.", ticket_id=ticket["id"])
    return SwapEnded(str(ticket["state"]), f"The ticket was {ticket['state']}.", ticket_id=ticket["id"])
