"""``/.well-known/security.txt`` (RFC 9116): whom to tell about a weakness.

The file must say when it stops being true. A date that was fixed when the image was built is wrong twice: it runs out
under a service that still runs, and it says nothing about whether the address is still read. What keeps the address
true here is the operator's setting, so each answer says 90 days from today: long enough that no reader finds it near
its end, far below the year that the RFC advises against exceeding, and a copy that somebody keeps of a service that is
gone runs out within a quarter. Days are whole, so that the answer changes once a day.

It is not signed: the RFC's OpenPGP signature would need a private key in this process, and TLS says as much.
"""

from datetime import UTC, datetime, timedelta

from nanoswap.serve.public_settings import PublicSettings

PATH = "/.well-known/security.txt"
#: Days from an answer to its ``Expires``.
VALID_DAYS = 90
#: The page that ``Policy`` names.
POLICY_PATH = "/security"


def security_txt(public: PublicSettings, now: datetime) -> str | None:
    """The file as of ``now`` (aware), or None where there is nobody to write to: an empty promise would be worse."""
    if public.security_contact is None:
        return None
    expires = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=VALID_DAYS)
    fields = [
        f"Contact: {public.security_contact}",
        f"Expires: {expires:%Y-%m-%dT%H:%M:%SZ}",
        "Preferred-Languages: en",
    ]
    if public.origin is not None:
        # Both must be whole https addresses (RFC 9116 sections 2.5.2 and 2.5.7): without the origin there are none.
        fields += [f"Canonical: {public.origin}{PATH}", f"Policy: {public.origin}{POLICY_PATH}"]
    return "".join(f"{line}\n" for line in fields)
