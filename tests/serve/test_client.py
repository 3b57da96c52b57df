"""The client against a small real server that can be told to misbehave."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from nanoswap.client import AsyncClient, Busy, Client, MediaError, RequestError, SessionError, SwapEnded, Unavailable
from nanoswap.serve import client_connection as module
from nanoswap.serve.local import free_port
from tests.clips import Recipe, make
from tests.corpus import SCENE
from tests.serve.double import RESULT, Double, problem, running

CLIP = make(Recipe(SCENE, frames=30))


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Double, str]]:
    monkeypatch.setattr(module, "_BASE_SECONDS", 0.01)
    made = Double()
    with running(made) as url:
        yield made, url


def swap(url: str, hopper: bytes, **options: Any) -> Any:
    with Client(url, token="token", timeout=20) as client:
        return client.swap(hopper, hopper, consent=True, **options)


def test_swap_saves_the_result_whole(double: tuple[Double, str], hopper: bytes, tmp_path: Path) -> None:
    made, url = double
    seen: list[str] = []
    result = swap(url, hopper, watch=lambda ticket: seen.append(ticket["state"]))
    assert (result.data, result.faces, result.gpu_seconds) == (RESULT, 1, 0.5)
    assert result.save(tmp_path / "out.jpg").read_bytes() == RESULT
    assert [path.name for path in tmp_path.iterdir()] == ["out.jpg"]
    assert seen[0] == "granted"
    assert made.uploads == ["grant-1"]


def test_seed_goes_with_a_picture(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    swap(url, hopper)
    swap(url, hopper, seed=2**32 - 1)
    assert [part(body, "seed") for body in made.bodies] == [b"0", b"4294967295"]
    for seed in (-1, 2**32):
        with pytest.raises(RequestError, match="'seed' is a whole number from 0 to 4294967295"):
            swap(url, hopper, seed=seed)
    with Client(url, token="token", timeout=20) as client:
        client.swap(hopper, CLIP, consent=True)
    # The video line takes no such field.
    assert part(made.bodies[-1], "seed") is None


def part(body: bytes, name: str) -> bytes | None:
    """A field of a multipart body."""
    found = re.search(rb'name="%b"\r\n(?:[^\r]+\r\n)*\r\n([^\r]*)\r\n' % name.encode(), body)
    return found and found[1]


def test_join_is_retried_with_the_same_key(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.script["join"] = [problem(503, "room_unavailable", Retry_After="1"), problem(502, "internal")]
    started = time.monotonic()
    assert swap(url, hopper).data == RESULT
    assert time.monotonic() - started >= 1.0, "Retry-After was not honoured"
    assert len(made.keys) == 3
    assert len(set(made.keys)) == 1


def test_lost_turn_goes_back_for_another_grant(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.script["swap"] = ["lost", "lost"]
    assert swap(url, hopper).data == RESULT
    assert made.uploads == ["grant-1", "grant-2", "grant-3"]


def test_an_upload_that_found_no_replica_uses_the_same_grant_again(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.script["swap"] = [problem(503, "unavailable", Retry_After="1")] * 2
    started = time.monotonic()
    assert swap(url, hopper).data == RESULT
    assert made.uploads == ["grant-1"] * 3
    assert time.monotonic() - started >= 2.0, "Retry-After was not honoured"


def test_a_turn_that_broke_is_not_tried_again(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.script["swap"] = ["broken"]
    assert swap(url, hopper).data == RESULT
    assert made.uploads == ["grant-1", "grant-2"]


def test_broken_streams_end_in_long_polling(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.state = "waiting"
    made.script["events"] = [problem(502, "internal") for _ in range(3)]

    async def go() -> bytes:
        async with AsyncClient(url, token="token", timeout=20) as client:
            task = asyncio.create_task(client.swap(hopper, hopper, consent=True))
            await asyncio.sleep(0.5)
            made.state = "granted"
            return (await task).data

    assert asyncio.run(go()) == RESULT
    assert set(made.tokens) == {"sealed"}, "the sealed ticket was not sent along"


@pytest.mark.parametrize(
    ("where", "failure", "error"),
    [
        ("join", problem(429, "quota", Retry_After="60"), Busy),
        ("join", problem(401, "session_expired"), SessionError),
        ("join", problem(422, "consent_missing"), RequestError),
        ("swap", problem(422, "no_face"), MediaError),
        (
            "swap",
            Response(RESULT, headers={"Content-Digest": "sha-256=:AAAA:", "Content-Type": "image/jpeg"}),
            Unavailable,
        ),
    ],
)
def test_failures_have_types(
    double: tuple[Double, str], hopper: bytes, where: str, failure: Response, error: type[Exception]
) -> None:
    made, url = double
    made.script[where] = [failure] * 6
    with pytest.raises(error):
        swap(url, hopper)


def test_wiped_store_gives_the_place_back_by_the_sealed_ticket(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.script["swap"] = ["wiped"]
    assert swap(url, hopper).data == RESULT
    assert made.uploads == ["grant-1", "grant-2"]


def test_result_cut_off_after_delivery_is_told_as_lost(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.script["swap"] = ["delivered"]
    with pytest.raises(Unavailable, match="lost on its way") as caught:
        swap(url, hopper)
    assert caught.value.code == "result_lost"
    assert len(made.uploads) == 1


@pytest.mark.parametrize("where", ["join", "swap"])
def test_page_of_a_portal_is_never_taken_for_an_answer(double: tuple[Double, str], hopper: bytes, where: str) -> None:
    made, url = double
    made.script[where] = [Response("<html>Sign in to the network", media_type="text/html")]
    with pytest.raises(Unavailable):
        swap(url, hopper)


def test_stream_that_is_cut_after_every_snapshot_ends_in_polling(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.state, made.snapshots = "waiting", 1
    with Client(url, token="token", timeout=1.5) as client, pytest.raises(Unavailable):
        client.swap(hopper, hopper, consent=True)
    assert len(made.tokens) == 3, "the stream was opened again and again"


def test_token_that_is_none_is_refused_here(double: tuple[Double, str]) -> None:
    _, url = double
    for token in ("töken", "to\nken"):
        with Client(url, token=token) as client, pytest.raises(SessionError):
            client.quota()


def test_quality_is_checked_before_waiting(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    with pytest.raises(RequestError):
        swap(url, hopper, quality=0)
    assert made.keys == []


def test_failed_save_leaves_nothing_behind(double: tuple[Double, str], hopper: bytes, tmp_path: Path) -> None:
    _, url = double
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="directory"):
        swap(url, hopper).save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_ended_ticket_is_an_error(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.state = "expired"
    with pytest.raises(SwapEnded):
        swap(url, hopper)


def test_timeout_gives_the_place_up(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.state = "waiting"
    with Client(url, token="token", timeout=0.5) as client, pytest.raises(Unavailable):
        client.swap(hopper, hopper, consent=True)
    assert made.deleted


def test_bad_input_is_refused_before_anything_is_sent(
    double: tuple[Double, str], hopper: bytes, tmp_path: Path
) -> None:
    made, url = double
    with Client(url, token="token") as client:
        with pytest.raises(RequestError):
            client.swap(hopper, hopper, consent=False)
        with pytest.raises(MediaError):
            client.swap(tmp_path / "missing.jpg", hopper, consent=True)
        with pytest.raises(MediaError):
            client.swap(hopper, b"not a picture", consent=True)
    with Client(url) as client, pytest.raises(SessionError):
        client.swap(hopper, hopper, consent=True)
    assert made.keys == []


def test_unreachable_service_is_said_so(hopper: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BASE_SECONDS", 0.01)
    with pytest.raises(Unavailable, match="can't be reached"):
        swap(f"http://127.0.0.1:{free_port()}", hopper)


def test_importing_the_client_is_light() -> None:
    code = (
        "import sys, nanoswap.client; print([name for name in ('ray', 'numpy', 'cv2', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_clip_is_declared_streamed_and_checked_by_its_ticket(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.script["swap"] = ["cut"]
    with Client(url, token="token", timeout=20) as client:
        result = client.swap(hopper, CLIP, consent=True, start=0.5, end=1.0)
    declared = {name: made.joined[name] for name in ("kind", "bytes", "width", "height", "frames")}
    assert declared == {"kind": "video", "bytes": len(hopper) + len(CLIP), "width": 480, "height": 272, "frames": 12}
    assert (result.data, result.media_type, result.frames, result.gpu_seconds) == (RESULT * 2, "video/mp4", 30, 1.5)
    assert made.uploads == ["grant-1", "grant-2"], "a stream that was cut is not a result"


def test_clip_that_was_changed_on_its_way_is_no_result(double: tuple[Double, str], hopper: bytes) -> None:
    made, url = double
    made.script["swap"] = ["bent"]
    with Client(url, token="token", timeout=20) as client, pytest.raises(Unavailable) as caught:
        client.swap(hopper, CLIP, consent=True)
    assert caught.value.code == "damaged"
