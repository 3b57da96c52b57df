"""The name under which the room knows an account: a keyed hash that leads nobody back to the person."""

import hmac
from hashlib import sha256


class Accounts:
    """Turns Supabase user ids into account names with one secret."""

    def __init__(self, secret: bytes) -> None:
        # A key of its own: the same secret also seals tickets.
        self._key = hmac.digest(secret, b"nanoswap account name", sha256)

    def of(self, sub: str) -> str:
        """The account of a user id: 64 hexadecimal digits, HMAC-SHA256 (RFC 2104)."""
        return hmac.digest(self._key, sub.lower().encode(), sha256).hex()
