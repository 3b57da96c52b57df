"""What the static pages can't know before the service starts: contacts, build, retention table.

A page is a file of ``web/`` with ``$names`` in it, filled once at the start. Each value is text that is escaped here,
or rows whose cells were; there is no logic in a page, so there is no template language.
"""

from collections.abc import Iterable, Sequence
from html import escape

from nanoswap.queue.room import Policy
from nanoswap.serve.build import Build
from nanoswap.serve.public_settings import PublicSettings
from nanoswap.serve.retention import retention
from nanoswap.serve.settings import Settings
from nanoswap.serve.verification import COMMAND, NOT_REMOTE, REMOTE

NOBODY = "The operator of this service has named nobody."


def words(settings: Settings, policy: Policy, build: Build) -> dict[str, str]:
    """Name in a page -> HTML."""
    public = settings.public
    kept = retention(settings, policy)
    return {
        "abuse_contact": contact(public.abuse_contact),
        "security_contact": contact(public.security_contact),
        "retention": _rows((row.what, row.where, f"Until {row.until}.") for row in kept),
        "versions": _rows((name, version or "not installed here") for name, version in build.versions.items()),
        "build": _rows(_said(public)),
        "command": escape(COMMAND),
        "remote": _items(REMOTE),
        "not_remote": _items(NOT_REMOTE),
    }


def contact(address: str | None) -> str:
    """A link to an address, or the sentence that there is none."""
    if address is None:
        return escape(NOBODY)
    return f'<a href="{escape(address)}">{escape(address.removeprefix("mailto:"))}</a>'


def _said(public: PublicSettings) -> list[tuple[str, str]]:
    silent = "the operator's build doesn't say"
    return [("commit", public.build_commit or silent), ("image digest", public.image_digest or silent)]


def _rows(rows: Iterable[Sequence[str]]) -> str:
    made = []
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
        made.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    return "\n".join(made)


def _items(items: Iterable[str]) -> str:
    made = []
    for item in items:
        head, colon, rest = item.partition(": ")
        made.append(
            f"<li><strong>{escape(head)}.</strong> {escape(rest)}</li>" if colon else f"<li>{escape(item)}</li>"
        )
    return "\n".join(made)
