"""The table of the privacy page against what a real store keeps, and against what the page's scripts keep."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis

from nanoswap.queue import session
from nanoswap.queue.redis_room import RedisRoom
from nanoswap.queue.redis_script import PREFIX
from nanoswap.queue.redis_server import RedisServer
from nanoswap.queue.room import Policy
from nanoswap.queue.ticket import Declaration, Kind
from nanoswap.serve.estimate import estimate_seconds
from nanoswap.serve.retention import Kept, duration, retention
from tests.serve.test_gateway import SETTINGS

ROOT = Path(__file__).parents[2]
SERVE_WEB = ROOT / "serve" / "web"
ACCOUNT = "a1" * 32
POLICY = Policy()
ROWS = retention(SETTINGS, POLICY)


def row(key: str) -> Kept:
    (found,) = [one for one in ROWS if key in one.keys]
    return found


@pytest.fixture(scope="module")
def redis_server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


async def test_no_key_of_a_person_is_without_a_row_or_lives_longer_than_it_says(redis_server: RedisServer) -> None:
    room = RedisRoom(redis_server.url, POLICY)
    largest = Declaration(kind=Kind.VIDEO, bytes=9, width=1920, height=1088, frames=3600, consent="c")
    cost = estimate_seconds(Kind.VIDEO, 1920, 1088, SETTINGS.max_video_frames)
    seen: dict[str, float] = {}

    def look() -> None:
        with redis.Redis.from_url(redis_server.url, decode_responses=True) as store:
            for key in store.scan_iter():
                letters = key.removeprefix(f"{PREFIX}:").partition(":")[0]
                seen[letters] = max(seen.get(letters, 0.0), store.pttl(key) / 1000)

    # As deep in debt as anybody may be who still gets a place, and then the dearest one.
    for number, estimate in enumerate((POLICY.horizon * POLICY.phi, cost)):
        await room.join(ACCOUNT, largest, estimate, idempotency_key=str(number))
    look()
    assert seen["tat"] > POLICY.horizon + cost / POLICY.phi - 60
    open_ticket = (await room.join("b2" * 32, largest, cost, idempotency_key=None)).place.ticket
    await room.cancel(open_ticket.id, "b2" * 32)
    look()
    await room.erase(ACCOUNT, 1, forgive=True)
    look()
    await room.close()
    assert seen.keys() >= {"t", "a", "q", "hb", "tat", "i", "k", "x", "d"}
    for letters, seconds in seen.items():
        if letters in ("work", "w", "slots", "jobs", "end", "c"):
            continue  # sums and workers: nobody's
        kept = row(letters).seconds
        assert kept is not None
        assert seconds <= kept, letters


def test_every_key_of_the_store_is_spoken_for() -> None:
    heads = re.findall(r"P:([a-z]+)", (ROOT / "queue" / "room.lua").read_text().split("local P")[0])
    spoken = {key for one in ROWS for key in one.keys}
    assert set(heads) - spoken == {"w", "work", "slots", "jobs", "end"}


@pytest.mark.parametrize(
    ("change", "key", "said"),
    [
        ({"tombstone": 7200.0}, "t", "2 hours more"),
        ({"parked": 300.0, "presence": 60.0}, "t", "6 minutes"),
        ({"idempotency": 3600.0}, "i", "1 hour after"),
        ({"denial": 90_000.0}, "d", "25 hours"),
        ({"horizon": 100_000.0}, "tat", "28 hours"),
    ],
)
def test_whoever_changes_the_number_changes_the_page(change: dict[str, float], key: str, said: str) -> None:
    def until(policy: Policy) -> str:
        return next(one.until for one in retention(SETTINGS, policy) if key in one.keys)

    assert said not in until(POLICY)
    assert said in until(replace(POLICY, **change))


def test_settings_and_session_check_are_in_it() -> None:
    text = " ".join(
        one.until for one in retention(replace(SETTINGS, upload_seconds=77.0, deliver_seconds=999.0), POLICY)
    )
    assert "77 seconds" in text
    assert "16 minutes and 39 seconds" in text
    assert f"{session.CONFIRM_SECONDS:.0f} seconds" in text


def test_debt_is_bounded_by_the_largest_clip() -> None:
    owed = row("tat").seconds
    assert owed is not None
    smaller = retention(replace(SETTINGS, max_video_frames=36), POLICY)
    assert next(one.seconds for one in smaller if "tat" in one.keys) < owed  # type: ignore[operator]
    assert duration(60 * (owed // 60 + 1)) in row("tat").until


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (45, "45 seconds"), (60, "60 seconds"), (119.2, "120 seconds"), (600, "10 minutes"),
        (645, "10 minutes and 45 seconds"),
        (10_800, "3 hours"), (86_460, "24 hours and 1 minute"), (3661, "1 hour and 1 minute and 1 second"),
    ],
)  # fmt: skip
def test_durations_are_not_rounded(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_browser_keeps_what_the_page_says_and_nothing_else() -> None:
    ours = {path.name: path.read_text() for path in SERVE_WEB.glob("*.js")}
    said = " ".join(one.what for one in ROWS if one.where.startswith("your browser"))
    (stored,) = re.findall(r'storageKey: "([^"]+)"', ours["session.js"])
    (database,) = re.findall(r'DATABASE = "([^"]+)"', ours["keep.js"])
    assert f"({stored})" in said
    assert f"({database})" in said
    for name, text in ours.items():
        uses = set(re.findall(r"\b(localStorage|sessionStorage|indexedDB|caches|cookieStore|serviceWorker)\b", text))
        uses |= {"cookie"} if "document.cookie" in text else set()
        assert uses == ({"indexedDB"} if name == "keep.js" else set()), name
