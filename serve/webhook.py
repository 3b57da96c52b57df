"""Calls from a machine that shares a secret with us, as the Standard Webhooks specification signs them.

The signature is an HMAC-SHA256 (RFC 2104) over ``id.timestamp.body``, so neither the body nor its age can be changed.
A call older or newer than five minutes is refused. Within them somebody who listened could send it once more: what a
call does must therefore be something that may be done twice, and the moment that it is about must be its own
timestamp, not the moment at which it comes (https://www.standardwebhooks.com, as of 2024).
"""

import base64
import binascii
import hmac
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256

TOLERANCE_SECONDS = 300
#: Of the secret, in bytes; the specification's own bounds.
SECRET_BYTES = (24, 64)
#: As many signatures as a sender may list while it changes its secret; more are not looked at.
MAX_SIGNATURES = 4
_STAMP = re.compile(r"[1-9][0-9]{0,11}")


class WebhookRefused(Exception):
    """This call doesn't carry a valid signature of a moment near enough."""


@dataclass(frozen=True, slots=True)
class WebhookKey:
    """The shared secret of one sender."""

    secret: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "WebhookKey":
        """From ``v1,whsec_BASE64``, as Supabase writes it, or ``whsec_BASE64``. Raises ValueError for anything else."""
        encoded = text.removeprefix("v1,")
        if not encoded.startswith("whsec_"):
            raise ValueError("a secret begins with v1,whsec_ or whsec_")
        try:
            secret = base64.b64decode(encoded.removeprefix("whsec_"), validate=True)
        except binascii.Error:
            raise ValueError("a secret is base64") from None
        low, high = SECRET_BYTES
        if not low <= len(secret) <= high:
            raise ValueError(f"a secret has {low} to {high} bytes")
        return cls(secret)

    def sign(self, message_id: str, timestamp: int, body: bytes) -> str:
        """The value of ``webhook-signature`` for a body."""
        signed = f"{message_id}.{timestamp}.".encode() + body
        return f"v1,{base64.b64encode(hmac.digest(self.secret, signed, sha256)).decode()}"

    def check(self, headers: Mapping[str, str], body: bytes, clock: Callable[[], float] = time.time) -> int:
        """The timestamp of a call, in seconds since the epoch. ``headers``: by lower-case names.

        Raises WebhookRefused, without saying what of it was wrong.
        """
        message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not message_id or not _STAMP.fullmatch(stamp):
            raise WebhookRefused
        expected = self.sign(message_id, int(stamp), body).encode()
        given = headers.get("webhook-signature", "").split(" ")[:MAX_SIGNATURES]
        # All are compared, each in constant time: how long it takes says nothing of where they differ.
        matches = [hmac.compare_digest(one.encode(), expected) for one in given]
        if not any(matches) or abs(clock() - int(stamp)) > TOLERANCE_SECONDS:
            raise WebhookRefused
        return int(stamp)
