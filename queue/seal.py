"""A ticket that the person keeps: signed, so that after the store has lost everything it proves the old place.

The token is ``version.payload.signature`` with an HMAC-SHA256 over the first two. It is readable (it holds nothing that
the person doesn't know) and can't be changed. It is worth nothing to anybody else: it names its account.
"""

import base64
import binascii
import hmac
import json
from hashlib import sha256

from nanoswap.queue.ticket import Kind, State, Ticket

VERSION = "n1"
MAX_LENGTH = 2048
_FIELDS = (
    *("id", "account", "kind", "estimate", "debt", "score", "joined"),
    *("bytes", "width", "height", "frames", "consent", "attempts"),
)


class SealError(Exception):
    """This is not a ticket that we sealed."""


class Seal:
    """Signs and checks tickets with one secret."""

    def __init__(self, secret: bytes) -> None:
        # A key of its own: the same secret also makes account names.
        self._key = hmac.digest(secret, b"nanoswap ticket seal", sha256)

    def seal(self, ticket: Ticket) -> str:
        """The token of a ticket."""
        payload = {name: getattr(ticket, name) for name in _FIELDS}
        body = f"{VERSION}.{_encode(json.dumps(payload, separators=(',', ':')).encode())}"
        return f"{body}.{_encode(self._sign(body))}"

    def unseal(self, token: str) -> Ticket:
        """The ticket of a token, waiting at its old place. Raises SealError. Age is for the room to judge."""
        body, _, signature = token.rpartition(".")
        version, _, payload = body.partition(".")
        try:
            given = _decode(signature)
            if len(token) > MAX_LENGTH or version != VERSION or not hmac.compare_digest(given, self._sign(body)):
                raise SealError
            fields = json.loads(_decode(payload))
        except (ValueError, binascii.Error):
            raise SealError from None
        return Ticket(state=State.WAITING, kind=Kind(fields.pop("kind")), **fields)

    def _sign(self, body: str) -> bytes:
        return hmac.digest(self._key, body.encode(), sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
