"""The Python client: one swap is one call, and everything that can go wrong on the way has a type.

It does what the page does: takes a ticket (safe to retry, because it carries an idempotency key), follows its events,
uploads when granted, and checks the result's digest. When the connection or a server breaks in mid-swap it goes back to
its place in line and uses the next grant; a grant is never used twice. Imports are light: no Ray, no NumPy.
"""

import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Self

import httpx

from nanoswap.serve import client_media
from nanoswap.serve.client_connection import Connection, json_object, pause
from nanoswap.serve.client_errors import Busy, NanoswapError, RequestError, SessionError, Unavailable, ended, problem
from nanoswap.serve.client_media import Source
from nanoswap.serve.client_result import Result

Ticket = Mapping[str, Any]
Watcher = Callable[[Ticket], None]

DEFAULT_URL = "http://127.0.0.1:8000"
_GIVE_UP_SECONDS = 5.0
#: A stream that lasted this long worked; after this many that did not, polling takes over.
_STREAM_SECONDS, _STREAM_TRIES = 30.0, 3
#: The service sends something every 15 s; an upload is answered only when the swap is done, a clip's when it begins.
_SILENCE = httpx.Timeout(10.0, read=25.0)
_UPLOAD = httpx.Timeout(10.0, read=180.0, write=60.0)
#: A grant lasts 15 s, and the edge asks for five seconds between two tries.
_UPLOAD_TRIES = 3
#: After these the upload did not count, and the place in line is asked for again.
_TURN_LOST = frozenset({"grant_expired", "grant_used", "incomplete", "not_found"})
_A = {"image": "a picture", "video": "a clip"}
_ENDED = frozenset({"succeeded", "failed", "canceled", "expired", "aborted"})


class AsyncClient:
    """``async with AsyncClient(url, token=TOKEN) as client: await client.swap(...)``.

    ``token``: a Supabase access token, or a function that returns a fresh one. ``timeout``: seconds for a whole swap.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | Callable[[], str] | None = None,
        timeout: float = 600.0,
    ) -> None:
        address = url or os.environ.get("NANOSWAP_URL") or DEFAULT_URL
        self._connection = Connection(address, token or os.environ.get("NANOSWAP_TOKEN", ""))
        self._timeout = timeout

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.http.aclose()

    @property
    def url(self) -> str:
        """The service's address."""
        return self._connection.url

    @property
    def token(self) -> str:
        """The access token, as it is now. Raises SessionError when there is none."""
        return self._connection.signed()["Authorization"].partition(" ")[2]

    async def config(self) -> dict[str, Any]:
        """Limits, consent statement, sign-in address."""
        return await self._connection.json("GET", "/v1/config", signed=False)

    async def queue(self) -> dict[str, Any]:
        """How long it takes now."""
        return await self._connection.json("GET", "/v1/queue", signed=False)

    async def quota(self) -> dict[str, Any]:
        """The account's fair share."""
        return await self._connection.json("GET", "/v1/quota")

    async def sign_in(self, email: str, password: str) -> str:
        """Sign in at the service's auth address with a password; returns the access token and uses it from now on."""
        auth = (await self.config())["auth"]
        headers = {"apikey": auth["key"]} if auth["key"] else {}
        body = {"email": email, "password": password}
        answer = await self._connection.send(
            "POST", f"{auth['url']}/token?grant_type=password", json=body, headers=headers
        )
        if not answer.is_success:
            raise SessionError("sign_in_failed", "The e-mail or the password is wrong.")
        token = str(answer.json()["access_token"])
        self._connection.token = token
        return token

    async def faces(self, target: Source, *, at: float = 0.0) -> dict[str, Any]:
        """The faces of a picture, or of a clip's frame at ``at`` seconds, with the ids by which they can be chosen.

        Of a clip only that frame is sent.
        """
        data = client_media.read(target)
        if client_media.is_clip(data):
            data = client_media.still(data, at)
        config = await self.config()
        return await self._connection.json("POST", config["links"]["faces"], files={"target": ("target", data)})

    async def cancel(self, ticket_id: str) -> None:
        """Leave the line, or stop the swap."""
        answer = await self._connection.send("DELETE", f"/v1/tickets/{ticket_id}", headers=self._connection.signed())
        if not answer.is_success:
            raise problem(answer, ticket_id)

    async def swap(
        self,
        source: Source,
        target: Source,
        *,
        consent: bool,
        faces: str = "all",
        source_face: str | None = None,
        engine: str | None = None,
        format: str = "same",
        quality: int = 92,
        seed: int = 0,
        at: float | None = None,
        start: float = 0.0,
        end: float | None = None,
        idempotency_key: str | None = None,
        watch: Watcher | None = None,
    ) -> Result:
        """Swap the face of ``source`` into ``target``, a picture or a clip: paths or encoded files.

        ``consent``: True says that the statement of ``config()`` is agreed to. ``faces``: all, largest, or ids from
        ``faces()`` with commas between. ``engine``: one of ``config()["engines"]``, or the first that swaps such a
        target. ``format``, ``quality`` and ``seed`` are for pictures; another seed, another picture, by engines that
        ``config()`` calls seeded. ``start``, ``end``: seconds of a clip to swap; ``at``: the frame that ``faces``
        are from. ``watch`` is called with every snapshot of the ticket.
        """
        if not consent:
            raise RequestError("consent_missing", "Agree to the statement of config()['consent'] first.")
        if not 1 <= quality <= 100:
            raise RequestError("bad_request", "'quality' is a whole number from 1 to 100.")
        if not 0 <= seed < 2**32:
            raise RequestError("bad_request", f"'seed' is a whole number from 0 to {2**32 - 1}.")
        files = {"source": client_media.read(source), "target": client_media.read(target)}
        options: dict[str, Any] = {"faces": faces, "source_face": source_face, "engine": engine}
        if client_media.is_clip(files["target"]):
            options |= {"at": at, "start": start, "end": end}
        else:
            options |= {"format": format, "quality": quality, "seed": seed}
        fields = {name: str(value) for name, value in options.items() if value is not None}
        ticket: Ticket | None = None
        try:
            async with asyncio.timeout(self._timeout):
                ticket = await self._join(files, start, end, engine, idempotency_key or str(uuid.uuid4()))
                return await self._follow(ticket, files, fields, watch or (lambda _: None))
        except TimeoutError:
            await self._give_up(ticket)
            name = None if ticket is None else str(ticket["id"])
            raise Unavailable("timeout", f"No result within {self._timeout:g} s.", ticket_id=name) from None
        except asyncio.CancelledError:
            await self._give_up(ticket)
            raise

    async def events(self, ticket: Ticket) -> AsyncGenerator[dict[str, Any], None]:
        """Snapshots of a ticket until it has ended; reconnects, and falls back to long polling."""
        failures = 0
        while True:
            started = time.monotonic()
            polling = failures >= _STREAM_TRIES
            try:
                stream = self._poll(ticket) if polling else self._stream(ticket)
                async with aclosing(stream) as snapshots:
                    async for snapshot in snapshots:
                        failures = _STREAM_TRIES if polling else failures
                        yield snapshot
                        if snapshot["state"] in _ENDED:
                            return
                # One that is cut soon after every snapshot would otherwise be opened again for ever.
                failures = 0 if time.monotonic() - started > _STREAM_SECONDS else failures + 1
            except httpx.ReadTimeout:
                # Not even the comments came through: something on the way holds the stream back.
                failures = max(failures + 1, _STREAM_TRIES)
            except httpx.TransportError:
                failures += 1
            except NanoswapError as error:
                # The place outlives the service's absence, and the swap's own time-out ends this.
                if not isinstance(error, Unavailable | Busy):
                    raise
                failures += 1
            await asyncio.sleep(pause(failures))

    async def _join(
        self, files: Mapping[str, bytes], start: float, end: float | None, engine: str | None, key: str
    ) -> dict[str, Any]:
        config = await self.config()
        found = client_media.judge(files["target"], config["limits"], start, end)
        able = [one["name"] for one in config["engines"] if found.kind == "image" or one["clips"]]
        if engine is not None and engine not in able:
            raise RequestError("bad_request", f"The engine of {_A[found.kind]} is one of {', '.join(able)}.")
        body = {
            "kind": found.kind,
            "bytes": sum(map(len, files.values())),
            "width": found.width,
            "height": found.height,
            "frames": found.frames,
            "consent": config["consent"]["id"],
        }
        headers = {"Idempotency-Key": key}
        return await self._connection.json("POST", config["links"]["tickets"], json=body, headers=headers)

    async def _follow(
        self, ticket: Ticket, files: Mapping[str, bytes], fields: Mapping[str, str], watch: Watcher
    ) -> Result:
        watch(ticket)
        used = ""
        while True:
            ticket = await self._granted(ticket, used, watch)
            used = str(ticket["grant"])
            upload = asyncio.create_task(self._upload(ticket, files, fields))
            follow = asyncio.create_task(self._report(ticket, watch))
            try:
                result = await upload
            finally:
                for task in (follow, upload):
                    task.cancel()
                await asyncio.gather(follow, upload, return_exceptions=True)
            if result is not None:
                return result

    async def _granted(self, ticket: Ticket, used: str, watch: Watcher) -> Ticket:
        """The ticket with a grant other than ``used``: a grant is for one upload, however that ends."""
        if ticket["state"] == "granted" and ticket["grant"] != used:
            return ticket
        async with aclosing(self.events(ticket)) as snapshots:
            async for snapshot in snapshots:
                watch(snapshot)
                if snapshot["state"] == "granted" and snapshot["grant"] != used:
                    return snapshot
                ticket = snapshot
        raise ended(ticket)

    async def _report(self, ticket: Ticket, watch: Watcher) -> None:
        """Show the progress while the upload is under way; what goes wrong here is told by the upload."""
        with suppress(NanoswapError, httpx.HTTPError):
            async with aclosing(self.events(ticket)) as snapshots:
                async for snapshot in snapshots:
                    if snapshot["state"] == "running":
                        watch(snapshot)

    async def _upload(
        self, ticket: Ticket, files: Mapping[str, bytes], fields: Mapping[str, str], tries: int = _UPLOAD_TRIES
    ) -> Result | None:
        """Use the grant. None when the turn was lost and the ticket is back in line."""
        name = str(ticket["id"])
        headers = self._connection.signed() | {"Grant": str(ticket["grant"])}
        parts = {part: (part, data) for part, data in files.items()}
        request = self._connection.http.stream(
            "POST", ticket["links"]["swap"], headers=headers, files=parts, data=dict(fields), timeout=_UPLOAD
        )
        try:
            async with request as answer:
                await answer.aread()
        except httpx.TransportError:
            return None
        if not answer.is_success:
            error = problem(answer, name)
            if answer.status_code == 503 and error.code == "unavailable" and error.retry_after and tries > 1:
                # No replica was there, so the grant is unused; another comes only when it has passed.
                await asyncio.sleep(error.retry_after)
                return await self._upload(ticket, files, fields, tries - 1)
            if isinstance(error, Unavailable) or error.code in _TURN_LOST:
                return None
            raise error
        clip = answer.headers.get("content-type", "").startswith("video/mp4")
        settled = await self._settled(ticket) if clip else None
        return Result.of(answer, name, settled)

    async def _settled(self, ticket: Ticket) -> Ticket:
        """The ticket when it has ended; a clip's length and digest are in it, because they are known only then."""
        async with aclosing(self.events(ticket)) as snapshots:
            async for snapshot in snapshots:
                if snapshot["state"] in _ENDED:
                    return snapshot
        raise AssertionError("events end with an ended ticket")

    async def _stream(self, ticket: Ticket) -> AsyncGenerator[dict[str, Any], None]:
        headers = self._connection.signed() | {"Ticket": str(ticket["token"])}
        async with self._connection.http.stream(
            "GET", ticket["links"]["events"], headers=headers, timeout=_SILENCE
        ) as answer:
            if not answer.is_success:
                await answer.aread()
                raise problem(answer, str(ticket["id"]))
            event = ""
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    event = value
                elif name == "data" and event == "ticket":
                    yield json.loads(value)

    async def _poll(self, ticket: Ticket) -> AsyncGenerator[dict[str, Any], None]:
        tag = ""
        while True:
            headers = self._connection.signed() | {
                "Ticket": str(ticket["token"]),
                "Prefer": "wait=25",
                "If-None-Match": tag,
            }
            answer = await self._connection.http.get(ticket["links"]["self"], headers=headers)
            if answer.status_code == 304:
                continue
            if not answer.is_success:
                raise problem(answer, str(ticket["id"]))
            tag = answer.headers.get("etag", "")
            yield json_object(answer)

    async def _give_up(self, ticket: Ticket | None) -> None:
        if ticket is not None:
            with suppress(NanoswapError, httpx.HTTPError, TimeoutError):
                # Briefly: the person has already decided to leave, and absence frees the place as well.
                await asyncio.wait_for(self.cancel(str(ticket["id"])), _GIVE_UP_SECONDS)
