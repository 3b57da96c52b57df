"""What an operator says to the public: whom to write to, where the service is, what it was built from.

Nothing here is needed to swap a face. What isn't set is not made up: without a contact there is no ``security.txt``,
and without a build's own words ``/verify`` says that the operator has said nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nanoswap.serve.environment import SettingsError
from nanoswap.serve.webhook import WebhookKey

_ADDRESS = re.compile(r"mailto:[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+")
_COMMIT = re.compile(r"[0-9a-f]{7,64}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicSettings:
    """Each field names its variable in ``from_environment``."""

    #: ``mailto:`` or ``https:`` address for reports of weaknesses.
    security_contact: str | None = None
    #: The same for reports of abuse; the other one where none was set.
    abuse_contact: str | None = None
    #: Scheme and host under which people reach the service, e.g. ``https://swap.example``.
    origin: str | None = None
    #: Git commit and image digest, as the operator's build says them: nothing here can prove them.
    build_commit: str | None = None
    image_digest: str | None = None
    #: Where the last report of ``nanoswap prove`` is mounted.
    prove_report: Path | None = None
    #: Signs the calls that say that an account was deleted; without it they have no address.
    webhook: WebhookKey | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "PublicSettings":
        """Raises SettingsError naming the variable and what it needs."""
        security = _contact(environment, "NANOSWAP_SECURITY_CONTACT")
        report = environment.get("NANOSWAP_PROVE_REPORT")
        return cls(
            security_contact=security,
            abuse_contact=_contact(environment, "NANOSWAP_ABUSE_CONTACT") or security,
            origin=_origin(environment.get("NANOSWAP_PUBLIC_ORIGIN")),
            build_commit=_word(environment, "NANOSWAP_BUILD_COMMIT", _COMMIT, "7 to 64 hexadecimal digits"),
            image_digest=_word(environment, "NANOSWAP_IMAGE_DIGEST", _DIGEST, "sha256: and 64 hexadecimal digits"),
            prove_report=Path(report) if report else None,
            webhook=_key(environment.get("NANOSWAP_WEBHOOK_SECRET")),
        )


def _contact(environment: Mapping[str, str], name: str) -> str | None:
    value = environment.get(name)
    if not value:
        return None
    parts = urlsplit(value)
    # What is printed into a text file and a page must be one address and nothing else.
    if _ADDRESS.fullmatch(value) or (parts.scheme == "https" and parts.hostname and re.fullmatch(r"[!-~]+", value)):
        return value
    raise SettingsError(f"{name} must be one mailto: or https: address")


def _origin(value: str | None) -> str | None:
    if not value:
        return None
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or value != f"https://{parts.netloc}" or "@" in parts.netloc:
        raise SettingsError("NANOSWAP_PUBLIC_ORIGIN must be https:// and a host, without a path")
    return value


def _word(environment: Mapping[str, str], name: str, form: re.Pattern[str], words: str) -> str | None:
    value = environment.get(name)
    if value and not form.fullmatch(value):
        raise SettingsError(f"{name} must be {words}")
    return value or None


def _key(value: str | None) -> WebhookKey | None:
    if not value:
        return None
    try:
        return WebhookKey.parse(value)
    except ValueError as error:
        raise SettingsError(f"NANOSWAP_WEBHOOK_SECRET is not usable: {error}") from None
