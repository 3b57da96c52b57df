"""Fetching files of weights: a command that an operator gives, never part of a request.

What comes over the network is nobody's word for what it is: the store hashes it before it takes its name. Here it is
seen to that the licence was accepted before the first byte is asked for, that nothing crosses a network in clear, and
that a redirect can't lead to a service of this machine that speaks HTTP.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from typing import Final

import httpx

from nanoswap import __version__
from nanoswap.pipelines.model_store import ModelError, ModelStore

Report = Callable[[int, int | None], None]

REDIRECTS: Final = 5
SECONDS: Final = 60.0  # without a byte, then it counts as gone
_PIECE: Final = 2**20
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")
_LATER: Final = frozenset({408, 429})
_HEADERS: Final = {"User-Agent": f"nanoswap/{__version__}", "Accept-Encoding": "identity"}


class PullError(ModelError):
    """The file can't be fetched."""


class Unreachable(PullError):
    """Whoever has the file doesn't answer, or not now."""


def pull(store: ModelStore, name: str, report: Report) -> None:
    """Fetch a model's file, or the archive that holds it, into the store. Nothing is left behind when that fails.

    report: bytes that have come, and how many there will be or None; called for every piece.
    Raises `ModelUnknown`, `LicenceNotAccepted` before anything is asked for, `PullError`, `Unreachable`, and what
    `ModelStore.write` raises.
    """
    store.check_licence(name)
    with closing(_pieces(store.model(name).url, report)) as pieces:
        store.write(name, pieces)


def _pieces(url: str, report: Report) -> Generator[bytes, None, None]:
    try:
        with httpx.Client(headers=_HEADERS, timeout=SECONDS) as client, _answer(client, httpx.URL(url)) as answer:
            total = _length(answer)
            for piece in answer.iter_bytes(_PIECE):
                report(answer.num_bytes_downloaded, total)
                yield piece
    except httpx.InvalidURL:
        raise PullError(f"{url} is not an address") from None
    except httpx.HTTPError as error:
        why = str(error) or type(error).__name__
        raise Unreachable(f"{httpx.URL(url).host} can't be reached, or broke off: {why}") from None


@contextmanager
def _answer(client: httpx.Client, url: httpx.URL) -> Iterator[httpx.Response]:
    """The answer at the end of all redirects. Only hosts are named in errors: signed addresses carry secrets."""
    _check(url, None)
    for _ in range(REDIRECTS + 1):
        with client.stream("GET", url) as answer:
            if answer.next_request is None:
                _check_answer(answer)
                yield answer
                return
            there = answer.next_request.url
        _check(there, url)
        url = there
    raise PullError(f"{url.host} sends from one address to the next without end")


def _check(url: httpx.URL, before: httpx.URL | None) -> None:
    """https, or loopback that nobody but loopback sent to."""
    inside = url.host in _LOOPBACK and (before is None or before.host in _LOOPBACK)
    if not (url.scheme == "https" and url.host) and not (url.scheme == "http" and inside):
        sent = "" if before is None else f"{before.host} sends elsewhere: "
        raise PullError(f"{sent}{url.host or 'the address'} is not fetched by {url.scheme or 'nothing'}, only by https")


def _check_answer(answer: httpx.Response) -> None:
    host, status = answer.url.host, answer.status_code
    if status >= 500 or status in _LATER:
        raise Unreachable(f"{host} answered with status {status}: try again later")
    if status != 200:
        raise PullError(f"{host} answered with status {status}")
    if answer.headers.get("content-type", "").startswith("text/html"):
        raise PullError(f"{host} sent a page, not a file")


def _length(answer: httpx.Response) -> int | None:
    """Bytes that will come. Without a length or chunks nobody could tell a file from the first half of it."""
    length = answer.headers.get("content-length", "")
    if length.isdecimal():
        return int(length)
    if answer.headers.get("transfer-encoding", "").lower() != "chunked":
        raise PullError(f"{answer.url.host} doesn't say how long the file is")
    return None
