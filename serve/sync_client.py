"""The client for code that doesn't use asyncio: the asynchronous one on an event loop of its own."""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from nanoswap.serve.client import AsyncClient
from nanoswap.serve.client_media import Source
from nanoswap.serve.client_result import Result

T = TypeVar("T")


class Client:
    """``with Client(url, token=TOKEN) as client: client.swap(...)``."""

    def __init__(
        self, url: str | None = None, *, token: str | Callable[[], str] | None = None, timeout: float = 600.0
    ) -> None:
        self._client = AsyncClient(url, token=token, timeout=timeout)
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._client.__aexit__(kind, error, trace))
        self._runner.close()

    @property
    def url(self) -> str:
        """The service's address."""
        return self._client.url

    @property
    def token(self) -> str:
        """The access token, as it is now. Raises SessionError when there is none."""
        return self._client.token

    def config(self) -> dict[str, Any]:
        """Limits, consent statement, sign-in address."""
        return self._run(self._client.config())

    def queue(self) -> dict[str, Any]:
        """How long it takes now."""
        return self._run(self._client.queue())

    def quota(self) -> dict[str, Any]:
        """The account's fair share."""
        return self._run(self._client.quota())

    def sign_in(self, email: str, password: str) -> str:
        """Sign in with a password; returns the access token."""
        return self._run(self._client.sign_in(email, password))

    def faces(self, target: Source, *, at: float = 0.0) -> dict[str, Any]:
        """The faces of a picture, or of a clip's frame at ``at`` seconds."""
        return self._run(self._client.faces(target, at=at))

    def cancel(self, ticket_id: str) -> None:
        """Leave the line, or stop the swap."""
        self._run(self._client.cancel(ticket_id))

    def swap(self, source: Source, target: Source, **options: Any) -> Result:
        """As ``AsyncClient.swap``."""
        return self._run(self._client.swap(source, target, **options))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)
