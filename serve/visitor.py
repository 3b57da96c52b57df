"""A visitor who behaves as badly as told: the requests of `nanoswap prove`.

The product's own client sends whole bodies and takes whole results. This one stops in the middle, so it speaks HTTP
itself, one connection a request, and can close a connection with a reset as a phone does that loses its network.
"""

from __future__ import annotations

import http.client
import json
import secrets
import socket
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

SLICE: Final = 64 * 1024
_SECONDS: Final = 200.0  # longer than the service waits for a body


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: status, media type, body (of a result that was left, its beginning), entity tag."""

    status: int
    type: str
    body: bytes
    tag: str = ""

    @property
    def code(self) -> str:
        """``ok``, the code of a problem, or the status."""
        if self.status < 300:
            return "ok"
        try:
            return str(json.loads(self.body)["code"])
        except (ValueError, KeyError, TypeError):
            return str(self.status)


@dataclass(frozen=True, slots=True)
class Permit:
    """A ticket that may upload: where to, with what."""

    ticket: str
    swap: str
    grant: str


class Gone(Exception):
    """The connection ended before an answer, or the visitor ended it."""


class Visitor:
    """One account at one service. Raises `Gone` when it can't be reached."""

    def __init__(self, url: str, token: str, consent: str) -> None:
        self._parts = urlsplit(url)
        self._token = token
        self._consent = consent
        self._tickets: list[str] = []

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None, **headers: str) -> Answer:
        """One small request."""
        data = None if body is None else json.dumps(body).encode()
        kind = {} if body is None else {"Content-Type": "application/json"}
        connection = self._connection()
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, data, self._signed() | kind | named)
            answer = connection.getresponse()
            tag = answer.headers.get("ETag", "")
            return Answer(answer.status, answer.headers.get_content_type(), answer.read(), tag)
        except (OSError, http.client.HTTPException) as error:
            raise Gone(type(error).__name__) from None
        finally:
            connection.close()

    def join(self, kind: str, count: int, *, side: int, frames: int) -> Answer:
        """Take a place in line for ``count`` bytes of media."""
        declared = {"kind": kind, "bytes": count, "width": side, "height": side, "frames": frames}
        answer = self.ask(
            "POST", "/v1/tickets", declared | {"consent": self._consent}, Idempotency_Key=secrets.token_hex(8)
        )
        if answer.code == "ok":
            self._tickets.append(json.loads(answer.body)["id"])
        return answer

    def give_up(self) -> None:
        """Leave every place that was taken: one that a broken connection gave back counts as taken."""
        while self._tickets:
            self.cancel(self._tickets.pop())

    def permit(self, ticket: Answer, seconds: float = 300.0) -> Permit:
        """Wait until a ticket is granted. Raises `Gone` when it isn't in time."""
        place = json.loads(ticket.body)
        deadline = time.monotonic() + seconds
        tag = ""
        while place.get("grant") is None:
            if time.monotonic() > deadline or place.get("state") not in ("waiting", "granted", "parked"):
                raise Gone(f"no turn: {place.get('state', ticket.code)}")
            answer = self.ask("GET", f"/v1/tickets/{place['id']}", Prefer="wait=20", If_None_Match=tag)
            if answer.status == 304:
                continue
            if answer.code != "ok":
                raise Gone(f"no turn: {answer.code}")
            place, tag = json.loads(answer.body), answer.tag
        return Permit(place["id"], place["links"]["swap"], place["grant"])

    def cancel(self, ticket: str) -> None:
        self.ask("DELETE", f"/v1/tickets/{ticket}")

    def upload(self, permit: Permit, files: Mapping[str, bytes], fields: Mapping[str, str]) -> Upload:
        """Begin to send media; nothing but the head has left when this returns."""
        boundary = secrets.token_hex(16)
        body = bytearray()
        for name, value in fields.items():
            body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, data in files.items():
            body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n\r\n'.encode()
            body += data + b"\r\n"
        body += f"--{boundary}--\r\n".encode()
        connection = self._connection()
        head = {"Content-Type": f"multipart/form-data; boundary={boundary}", "Content-Length": str(len(body))}
        try:
            connection.putrequest("POST", permit.swap)
            for name, value in (self._signed() | head | {"Grant": permit.grant}).items():
                connection.putheader(name, value)
            connection.endheaders()
        except OSError as error:
            raise Gone(type(error).__name__) from None
        # Little is taken ahead, so that a result that is left in its middle hasn't all come.
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        return Upload(connection, memoryview(body))

    def _connection(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._parts.scheme == "https" else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=_SECONDS)

    def _signed(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token}"}


class Upload:
    """A body on its way, and the answer to it."""

    def __init__(self, connection: http.client.HTTPConnection, body: memoryview) -> None:
        self._connection, self._body, self._sent = connection, body, 0

    def send(self, share: float = 1.0) -> None:
        """Send up to this share of the body. Raises `Gone`."""
        end = int(share * len(self._body))
        try:
            while self._sent < end:
                self._connection.send(self._body[self._sent : min(self._sent + SLICE, end)])
                self._sent = min(self._sent + SLICE, end)
        except OSError as error:
            # The answer may have come before the body had left: the service refused it.
            if not isinstance(error, BrokenPipeError | ConnectionResetError):
                raise Gone(type(error).__name__) from None

    def answer(self, most: int | None = None) -> Answer:
        """What comes back; with ``most`` the visitor leaves when so many bytes of it have come. Raises `Gone`."""
        body = bytearray()
        try:
            came = self._connection.getresponse()
            while part := came.read(SLICE if most is None else min(SLICE, most - len(body))):
                body += part
                if most is not None and len(body) >= most:
                    self.leave()
                    break
            return Answer(came.status, came.headers.get_content_type(), bytes(body))
        except (OSError, http.client.HTTPException) as error:
            raise Gone(type(error).__name__) from None
        finally:
            self._connection.close()

    def leave(self) -> None:
        """Reset the connection: no goodbye, nothing is sent any more."""
        if self._connection.sock is not None:
            self._connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.close()
