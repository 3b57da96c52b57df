"""What a visitor does while `nanoswap prove` watches: each way in which a request can end, with canaries.

A scenario sends media that nobody else has, brings the request to one certain end, and says which bytes must be nowhere
afterwards. It fails when the end was another one than it was written for, for then it proves nothing.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Literal

from nanoswap.pipelines import canary
from nanoswap.pipelines.canary import FRAMES, SIDE, Canary, Format, Forms, as_array
from nanoswap.pipelines.image import encode
from nanoswap.serve.process_memory import command, tree
from nanoswap.serve.visitor import Answer, Gone, Permit, Upload, Visitor

Kind = Literal["image", "video"]
FORMATS: Final[tuple[Format, ...]] = ("jpeg", "png", "webp", "avif", "heic")
_READY_SECONDS: Final = 180.0
_NOTICE_SECONDS: Final = 20.0
_LARGE: Final = 2560  # pixels of a side: 20 MB of noise as PNG, more than all sockets on the way take ahead
_ROWS: Final = 400  # of it, that are looked for
_DRAWS: Final = 20  # of a source, until an engine sees one face in it


@dataclass(frozen=True, slots=True)
class Ended:
    """How a scenario's request ended, and every form of what went in and came out."""

    code: str
    forms: Forms


@dataclass(frozen=True, slots=True)
class Stage:
    """Where a scenario plays. root: the service's first process. learned: what an engine keeps of a source. faces: how
    many it sees in a picture."""

    visitor: Visitor
    root: int
    kind: Kind
    engine: str
    learned: Callable[[bytes], Forms] = field(default=lambda _: {})
    faces: Callable[[bytes], int] = field(default=lambda _: 1)

    def media(self, format: Format = "jpeg", *, face: bool = True) -> tuple[Canary, Canary]:
        """A fresh source and a fresh target."""
        # In some grain a weak detector sees a second face, and who sends such a source is asked which one is meant.
        for _ in range(_DRAWS):
            source = canary.picture(canary.portrait(secrets.randbits(128)), format)
            if self.faces(source.data) == 1:
                break
        seed = secrets.randbits(128)
        if self.kind == "video":
            return source, canary.clip(seed, face=face)
        return source, canary.picture(canary.portrait(seed, face=face), format)

    def permit(self, source: Canary, target: Canary, side: int = SIDE) -> Permit:
        """A turn for these media."""
        count = len(source.data) + len(target.data)
        return self.visitor.permit(
            self.visitor.join(self.kind, count, side=side, frames=FRAMES if self.kind == "video" else 1)
        )

    def begin(self, source: Canary, target: Canary) -> tuple[Permit, Upload]:
        """A turn, and an upload of which only the head has left."""
        permit = self.permit(source, target)
        return permit, self.upload(permit, source, target)

    def upload(self, permit: Permit, source: Canary, target: Canary) -> Upload:
        return self.visitor.upload(permit, {"source": source.data, "target": target.data}, {"engine": self.engine})

    def given_up(self, permit: Permit) -> str:
        """``left``, when the service has noticed that the visitor is gone; else the state of the ticket."""
        deadline = time.monotonic() + _NOTICE_SECONDS
        state = "running"
        while state == "running" and time.monotonic() < deadline:
            time.sleep(0.1)
            state = json.loads(self.visitor.ask("GET", f"/v1/tickets/{permit.ticket}").body).get("state", "?")
        # The place is given back, to whoever comes again.
        return "left" if state in ("waiting", "granted", "parked", "aborted") else str(state)

    def replica(self) -> int:
        """The process that swaps. Raises `Gone`."""
        found = [pid for pid in tree(self.root) if f"ServeReplica:{self.kind}" in command(pid)]
        if not found:
            raise Gone("no replica below this process")
        return found[0]


def went_in(source: Canary, target: Canary) -> Forms:
    """The forms of what was uploaded."""
    sources = {f"source, {name}": data for name, data in source.forms.items()}
    return sources | {f"target, {name}": data for name, data in target.forms.items()}


def came_out(answer: Answer) -> Forms:
    """The forms of a result. One that was left in the middle is looked for as it is; a problem is no result."""
    if answer.code != "ok":
        return {}
    forms: Forms = {"result, file": canary.as_array(answer.body)}
    with suppress(Exception):
        made = canary.clip_forms(answer.body) if answer.type == "video/mp4" else canary.picture_forms(answer.body)
        forms |= {f"result, {name}": data for name, data in made.items()}
    return forms


def success(stage: Stage, format: Format = "jpeg") -> Ended:
    source, target = stage.media(format)
    _, upload = stage.begin(source, target)
    upload.send()
    answer = upload.answer()
    return Ended(answer.code, went_in(source, target) | stage.learned(source.data) | came_out(answer))


def no_face(stage: Stage) -> Ended:
    source, target = stage.media(face=False)
    _, upload = stage.begin(source, target)
    upload.send()
    return Ended(upload.answer().code, went_in(source, target))


def undecodable(stage: Stage) -> Ended:
    """A target that breaks off in its middle."""
    source, target = stage.media()
    broken = Canary(target.data[: len(target.data) // 2], target.forms)
    _, upload = stage.begin(source, broken)
    upload.send()
    return Ended(upload.answer().code, went_in(source, broken))


def left_in_upload(stage: Stage) -> Ended:
    """Gone when half of the body has left."""
    source, target = stage.media()
    permit, upload = stage.begin(source, target)
    upload.send(0.5)
    time.sleep(0.3)
    upload.leave()
    return Ended(stage.given_up(permit), went_in(source, target))


def left_in_response(stage: Stage) -> Ended:
    """Gone when the beginning of the result has come. A picture is large then, so that it can't all be on its way."""
    source, target = stage.media()
    side = SIDE
    if stage.kind == "image":
        side = _LARGE
        pixels = canary.portrait(secrets.randbits(128), side=side)
        file = bytes(encode(pixels, "png", 95))
        rows = pixels[:_ROWS]
        target = Canary(file, {"file": as_array(file[: rows.nbytes]), "rgb": rows, "bgr": rows[..., ::-1]})
    permit = stage.permit(source, target, side)
    upload = stage.upload(permit, source, target)
    upload.send()
    answer = upload.answer(most=5_000)
    if answer.code != "ok":
        return Ended(answer.code, went_in(source, target))
    return Ended(stage.given_up(permit), went_in(source, target) | stage.learned(source.data) | came_out(answer))


def faces(stage: Stage) -> Ended:
    """The faces of a picture are asked for: no turn, and media all the same."""
    _, target = stage.media()
    upload = stage.visitor.upload(Permit("", "/image/v1/faces", ""), {"target": target.data}, {"engine": stage.engine})
    upload.send()
    return Ended(upload.answer().code, went_in(target, target))


def cancelled(stage: Stage) -> Ended:
    """The ticket is cancelled while half of the body is still to come."""
    source, target = stage.media()
    permit, upload = stage.begin(source, target)
    upload.send(0.5)
    time.sleep(0.3)
    stage.visitor.cancel(permit.ticket)
    # The lease is renewed twice a second, and only then does the replica hear of it.
    time.sleep(1.2)
    upload.send()
    return Ended(_end(upload), went_in(source, target))


def too_slow(stage: Stage) -> Ended:
    """A body that stops coming, until the service has had enough."""
    source, target = stage.media()
    _, upload = stage.begin(source, target)
    upload.send(0.5)
    return Ended(_end(upload), went_in(source, target))


def terminated(stage: Stage) -> Ended:
    """The replica is told to end while it holds half of the body. Waits until another one has begun."""
    source, target = stage.media()
    _, upload = stage.begin(source, target)
    upload.send(0.5)
    time.sleep(0.3)
    os.kill(stage.replica(), signal.SIGTERM)
    upload.send()
    code = _end(upload)
    wait_until_ready(stage)
    return Ended(code, went_in(source, target) | stage.learned(source.data))


def refused(stage: Stage) -> Ended:
    """The account's places are taken, and the media come all the same, with a permission that nobody gave."""
    source, target = stage.media()
    while (answer := stage.visitor.join(stage.kind, 1000, side=SIDE, frames=1)).code == "ok":
        pass
    upload = stage.upload(Permit("", f"/{stage.kind}/v1/tickets/t_{'0' * 22}/swap", "none"), source, target)
    upload.send()
    code = _end(upload)
    return Ended(answer.code if code != "ok" else code, went_in(source, target))


@dataclass(frozen=True, slots=True)
class Scenario:
    """codes: the ends for which it was written."""

    name: str
    codes: frozenset[str]
    act: Callable[[Stage], Ended]


def scenarios(kind: Kind, *, first: bool) -> Iterator[Scenario]:
    """All of them; for an engine that is not the first, those that an engine can make different."""
    ok = frozenset({"ok"})
    if kind == "image" and first:
        for format in FORMATS:
            yield Scenario(f"success, {format}", ok, lambda stage, format=format: success(stage, format))  # type: ignore[misc]
    else:
        yield Scenario("success", ok, success)
    yield Scenario("no face", frozenset({"no_face"}), no_face)
    yield Scenario("left in response", frozenset({"left"}), left_in_response)
    if first:
        if kind == "image":
            yield Scenario("faces", ok, faces)
        yield Scenario("undecodable", frozenset({"undecodable", "unsupported"}), undecodable)
        yield Scenario("left in upload", frozenset({"left"}), left_in_upload)
        yield Scenario("cancelled", frozenset({"canceled", "lost_turn", "gone", "incomplete"}), cancelled)
        yield Scenario("quota", frozenset({"quota", "too_many_tickets", "too_many_requests"}), refused)
        yield Scenario("too slow", frozenset({"too_slow"}), too_slow)
        # The numbers: what a tunnel says of an edge that is gone as well.
        ended = frozenset({"gone", "502", "503", "unavailable", "draining", "internal"})
        yield Scenario("replica SIGTERM", ended, terminated)


def wait_until_ready(stage: Stage) -> None:
    """Until a replica swaps again. Raises `Gone` when none does in time."""
    deadline = time.monotonic() + _READY_SECONDS
    time.sleep(1.0)
    while time.monotonic() < deadline:
        with suppress(Gone):
            # A turn that came while none was there is kept for a while, and takes one of the account's places.
            stage.visitor.give_up()
            if stage.visitor.ask("GET", "/readyz").status == 200 and success(stage).code == "ok":
                return
        time.sleep(1.0)
    raise Gone("no replica came back")


def _end(upload: Upload) -> str:
    try:
        return upload.answer().code
    except Gone:
        return "gone"
