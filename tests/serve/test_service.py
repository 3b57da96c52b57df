"""The whole path over HTTP, against the running service: honest people, bad input, and every way to lose a turn."""

import hashlib
import os
import re
import signal
import socket
import time
import uuid
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from nanoswap.serve.process_memory import command, tree
from tests.serve.api import Api
from tests.serve.conftest import Service, jpeg, pixels, wait_until

pytestmark = pytest.mark.service


@pytest.fixture
def api(service: Service) -> Iterator[Api]:
    person = Api(service.url, service.sign_in())
    yield person
    person.close()


def test_swap_changes_the_face_and_only_the_face(api: Api, astronaut: bytes, hopper: bytes) -> None:
    ticket, answer = api.whole(astronaut, hopper, format="png")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-faces"] == "1"
    digest = re.fullmatch(r"sha-256=:(.+):", answer.headers["content-digest"])
    assert digest is not None
    assert b64decode(digest[1]) == hashlib.sha256(answer.content).digest()
    change = np.abs(pixels(answer.content) - pixels(hopper)).max(axis=2)
    assert (change > 12).mean() > 0.02, "no face was changed"
    assert (change == 0).mean() > 0.5, "pixels far from the face were changed"
    after = api.ticket(ticket)
    assert after["state"] == "succeeded"
    assert after["result"]["sha256"] == hashlib.sha256(answer.content).hexdigest()
    assert after["grant"] is None


def test_events_tell_the_story_and_end(api: Api, astronaut: bytes, hopper: bytes) -> None:
    ticket = api.granted(api.join(astronaut, hopper).json())
    assert api.swap(ticket, astronaut, hopper).status_code == 200
    states = [seen["state"] for seen in api.events(ticket, 10)]
    assert states[-1] == "succeeded"


def test_faces_are_found_and_chosen_by_id(api: Api, astronaut: bytes, hopper: bytes) -> None:
    group = np.full((620, 1060, 3), 200, np.uint8)
    group[4:604, 4:516] = pixels(hopper)[:600, :512]
    group[50:562, 540:1052] = pixels(astronaut)
    target = jpeg(group, 95)
    found = api.call("POST", "/image/v1/faces", files={"target": ("t", target)}).json()
    assert (found["width"], found["height"]) == (1060, 620)
    assert len(found["faces"]) == 2
    right = max(found["faces"], key=lambda face: face["box"][0])
    _, answer = api.whole(astronaut, target, faces=right["id"], format="png")
    assert answer.status_code == 200, answer.text
    change = np.abs(pixels(answer.content) - pixels(target)).max(axis=2)
    x, y, w, h = right["box"]
    assert change[y : y + h, x : x + w].max() > 0
    assert not change[:, :516].any(), "a face that was not chosen was changed"


def test_same_idempotency_key_gives_the_same_ticket(api: Api, astronaut: bytes, hopper: bytes) -> None:
    key = str(uuid.uuid4())
    first, second = api.join(astronaut, hopper, key=key), api.join(astronaut, hopper, key=key)
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    assert second.headers["idempotency-replayed"] == "true"
    other = api.join(astronaut, hopper, key=key, width=100)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_mismatch")
    assert api.call("DELETE", first.json()["links"]["cancel"]).status_code == 204
    assert api.ticket(first.json())["state"] == "canceled"


def test_more_tickets_than_the_cap_are_refused(api: Api, astronaut: bytes, hopper: bytes) -> None:
    held = []
    try:
        for _ in range(5):
            answer = api.join(astronaut, hopper)
            if answer.status_code != 201:
                break
            held.append(answer.json())
        assert (answer.status_code, answer.json()["code"]) == (429, "too_many_tickets")
        assert int(answer.headers["retry-after"]) >= 1
        assert api.call("GET", "/v1/quota").json()["open_tickets"] == len(held)
    finally:
        for ticket in held:
            api.call("DELETE", ticket["links"]["cancel"])


def test_grant_is_used_once_and_only_by_its_owner(api: Api, astronaut: bytes, hopper: bytes) -> None:
    ticket = api.granted(api.join(astronaut, hopper).json())
    wrong = api.swap(ticket | {"grant": "forged-grant"}, astronaut, hopper)
    assert wrong.status_code in (404, 409)
    assert api.swap(ticket, astronaut, hopper).status_code == 200
    again = api.swap(ticket, astronaut, hopper)
    assert (again.status_code, again.json()["code"]) == (409, "grant_used")


def test_nobody_gets_in_without_a_session(api: Api, astronaut: bytes, hopper: bytes) -> None:
    stranger = Api(api.url, "eyJhbGciOiJub25lIn0.e30.", api.http)
    for answer in (
        stranger.join(astronaut, hopper),
        stranger.call("GET", "/v1/quota"),
        stranger.call("POST", "/image/v1/faces", files={"target": ("t", hopper)}),
        stranger.call("GET", "/v1/tickets/t_x"),
        stranger.call("POST", "/image/v1/tickets/t_x/swap", headers={"Grant": "x"}, files={"source": ("a", b"x")}),
    ):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["code"].startswith("session_")


NOISE = jpeg(np.random.default_rng(7).integers(0, 255, (300, 300, 3), dtype=np.uint8))


@pytest.mark.parametrize(
    ("swap", "code"),
    [
        (lambda s, t: (s, NOISE), "no_face"),
        (lambda s, t: (NOISE, t), "no_face"),
        (lambda s, t: (s, t[: len(t) // 2]), "undecodable"),
        (lambda s, t: (s, b"not a picture at all"), "unsupported"),
        (lambda s, t: (s, b""), "unsupported"),
    ],
    ids=["no face in the target", "no face in the source", "truncated", "not a picture", "empty"],
)
def test_bad_media_fails_clearly_and_frees_the_slot(api: Api, astronaut: bytes, hopper: bytes, swap, code) -> None:  # type: ignore[no-untyped-def]
    source, target = swap(astronaut, hopper)
    ticket, answer = api.whole(source, target)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == code
    after = api.ticket(ticket)
    assert (after["state"], after["problem"]["code"]) == ("failed", code)


def test_body_larger_than_declared(api: Api, astronaut: bytes, hopper: bytes) -> None:
    joined = api.join(astronaut, hopper, bytes=1000).json()
    answer = api.swap(api.granted(joined), astronaut, hopper)
    assert (answer.status_code, answer.json()["code"]) == (413, "larger_than_declared")


def test_consent_and_form_are_checked_before_a_place_is_given(api: Api, astronaut: bytes, hopper: bytes) -> None:
    assert api.join(astronaut, hopper, consent="no").json()["code"] == "consent_missing"
    assert api.join(astronaut, hopper, width=0).json()["code"] == "bad_request"
    assert api.join(astronaut, hopper, width=20_000, height=20_000).json()["code"] == "too_large"
    assert api.join(astronaut, hopper, kind="hologram").json()["code"] == "bad_request"


def cut_upload(api: Api, ticket: dict, source: bytes, target: bytes) -> None:  # type: ignore[type-arg]
    """Send half of a swap's body and hang up."""
    files = {"source": ("a", source), "target": ("b", target)}
    request = httpx.Request(
        "POST",
        api.url + ticket["links"]["swap"],
        headers={"Authorization": f"Bearer {api.token}", "Grant": ticket["grant"]},
        files=files,
    )
    body = request.read()
    address = urlsplit(api.url)
    with socket.create_connection((address.hostname, address.port)) as wire:
        head = f"POST {ticket['links']['swap']} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items() if name != "host")
        wire.sendall(head.encode() + b"\r\n" + body[: len(body) // 2])
        time.sleep(0.3)


def test_cut_upload_gives_the_place_back(api: Api, astronaut: bytes, hopper: bytes) -> None:
    ticket = api.granted(api.join(astronaut, hopper).json())
    cut_upload(api, ticket, astronaut, hopper)
    again = api.granted(ticket)
    assert again["grant"] != ticket["grant"]
    assert again["created_at"] == ticket["created_at"]
    assert api.swap(again, astronaut, hopper).status_code == 200


def test_killed_replica_keeps_the_persons_place(service: Service, api: Api, astronaut: bytes, hopper: bytes) -> None:
    big = jpeg(np.kron(pixels(hopper).astype(np.uint8), np.ones((9, 9, 1), np.uint8)))
    joined = api.join(astronaut, big, width=4608, height=5400)
    assert joined.status_code == 201, joined.text
    ticket = api.granted(joined.json())
    (replica,) = [pid for pid in tree(service.process.pid) if "ServeReplica:image" in command(pid)]
    import threading

    answers: list[object] = []

    def upload() -> None:
        try:
            answers.append(api.swap(ticket, astronaut, big).status_code)
        except httpx.HTTPError as error:
            answers.append(error)

    person = threading.Thread(target=upload)
    person.start()
    other = Api(api.url, api.token, api.http)
    other.until(ticket, "running")
    os.kill(replica, signal.SIGKILL)
    person.join(60)
    assert answers != [200]
    again = other.granted(ticket, 90)
    assert again["created_at"] == ticket["created_at"]
    assert again["attempts"] >= 1
    assert other.swap(again, astronaut, big).status_code == 200


def test_wiped_redis_gives_the_place_back_from_the_sealed_ticket(
    service: Service, api: Api, astronaut: bytes, hopper: bytes
) -> None:
    ticket = api.join(astronaut, hopper).json()
    (server,) = [pid for pid in tree(service.process.pid) if "redis-server" in command(pid) or "valkey" in command(pid)]
    import redis

    path = (
        next(word for word in command(server).split() if word.endswith(".sock")) if ".sock" in command(server) else None
    )
    path = path or re.search(r"unixsocket:(\S+)", command(server))[1]  # type: ignore[index]
    with redis.Redis(unix_socket_path=path) as store:
        store.flushall()
    assert api.call("GET", ticket["links"]["self"]).status_code == 404
    back = api.until(ticket, "granted", 30)
    assert back["created_at"] == ticket["created_at"]
    assert api.swap(back, astronaut, hopper).status_code == 200
    # Every replica, not only the one that was needed, enlists itself anew within a beat or two.
    latest = time.monotonic() + 20
    while httpx.get(service.url + "/readyz").status_code != 200:
        assert time.monotonic() < latest
        time.sleep(0.2)


def test_page_and_documents_have_their_headers(service: Service) -> None:
    page = httpx.get(service.url + "/")
    assert page.status_code == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert page.headers["x-content-type-options"] == "nosniff"
    for path in ("/openapi.json", "/v1/config", "/v1/queue", "/healthz", "/readyz"):
        assert httpx.get(service.url + path).status_code == 200, path
    nowhere = httpx.get(service.url + "/nowhere")
    assert (nowhere.status_code, nowhere.json()["code"]) == (404, "not_found")


def test_every_listener_is_on_loopback(service: Service) -> None:
    inodes = set()
    for pid in tree(service.process.pid):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(entry))
            except OSError:
                continue
            if found:
                inodes.add(found[1])
    listening = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and words[9] in inodes:
                listening.append(words[1].rsplit(":", 1)[0])
    assert len(listening) > 5
    loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert set(listening) <= loopback


def test_uploads_leave_no_file(service: Service, api: Api, astronaut: bytes, hopper: bytes) -> None:
    marker = os.urandom(24).hex().encode() * 40
    source, target = astronaut, hopper + marker
    _, answer = api.whole(source, target)
    assert answer.status_code in (200, 422)
    needle = marker[:96]
    for pid in tree(service.process.pid):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                name = os.readlink(entry)
                if name.startswith(("/", "memfd")) and entry.stat().st_size < 2**28 and name[:5] != "/dev/":
                    assert needle not in entry.read_bytes(), name
            except OSError:
                continue
    for root in (Path("/dev/shm"), Path("/tmp")):
        for path in root.rglob("ns-*/**/*"):
            if path.is_file():
                assert needle not in path.read_bytes(), path


def test_waiting_helper_really_waits() -> None:
    with pytest.raises(AssertionError):
        wait_until(lambda: False, 0.1)
