"""security.txt: valid on every day on which somebody asks, and absent rather than empty."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import httpx
import pytest

from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.serve.environment import SettingsError
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.public_settings import PublicSettings
from nanoswap.serve.security_txt import PATH, POLICY_PATH, security_txt
from nanoswap.serve.settings import Settings
from tests.serve.test_gateway import SETTINGS, Anyone

PUBLIC = PublicSettings(security_contact="mailto:security@swap.example", origin="https://swap.example")


def fields(text: str) -> dict[str, str]:
    """Name -> value. Each may come once only: RFC 9116 wants that of Expires and Preferred-Languages."""
    assert text.endswith("\n")
    pairs = [line.split(": ", 1) for line in text.splitlines()]
    assert len({name for name, _ in pairs}) == len(pairs)
    return {name: value for name, value in pairs}


def file(now: datetime, public: PublicSettings = PUBLIC) -> dict[str, str]:
    text = security_txt(public, now)
    assert text is not None
    return fields(text)


@pytest.mark.parametrize("start", [datetime(2026, 11, 26, tzinfo=UTC), datetime(2028, 2, 27, 23, 59, 59, tzinfo=UTC)])
def test_on_no_day_is_it_near_its_end_and_never_a_year_ahead(start: datetime) -> None:
    seen = set()
    for hours in range(0, 24 * 400, 7):
        now = start + timedelta(hours=hours)
        expires = datetime.strptime(file(now)["Expires"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        assert timedelta(days=30) < expires - now < timedelta(days=365)
        seen.add(expires)
    assert len(seen) < 24 * 400 / 7 / 3, "the same day is the same file"


def test_the_moment_is_universal_time() -> None:
    there = datetime(2026, 12, 31, 22, 0, tzinfo=timezone(timedelta(hours=-5)))
    assert file(there) == file(datetime(2027, 1, 1, 3, 0, tzinfo=UTC))


def test_addresses_are_whole_ones_or_absent() -> None:
    assert file(datetime.now(UTC)).keys() == {"Contact", "Expires", "Preferred-Languages", "Canonical", "Policy"}
    assert file(datetime.now(UTC))["Contact"] == "mailto:security@swap.example"
    assert file(datetime.now(UTC))["Canonical"] == "https://swap.example/.well-known/security.txt"
    nowhere = file(datetime.now(UTC), replace(PUBLIC, origin=None))
    assert nowhere.keys() == {"Contact", "Expires", "Preferred-Languages"}


async def ask(public: PublicSettings, path: str, **changes: object) -> httpx.Response:
    app = create_gateway(replace(SETTINGS, public=public, **changes), MemoryRoom(Policy()), Anyone())  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        return await client.get(path)


async def test_it_is_where_the_standard_says_as_plain_text() -> None:
    answer = await ask(PUBLIC, PATH)
    assert PATH == "/.well-known/security.txt"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert fields(answer.text)["Contact"] == PUBLIC.security_contact
    policy = await ask(PUBLIC, POLICY_PATH)
    assert 'href="mailto:security@swap.example"' in policy.text


async def test_without_a_contact_there_is_none_and_the_start_says_so(caplog: pytest.LogCaptureFixture) -> None:
    answer = await ask(PublicSettings(), PATH)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "NANOSWAP_SECURITY_CONTACT" in caplog.text


@pytest.mark.parametrize(("public", "development"), [(PUBLIC, False), (PublicSettings(), True)])
async def test_nothing_is_said_with_one_or_in_development(
    public: PublicSettings, development: bool, caplog: pytest.LogCaptureFixture
) -> None:
    await ask(public, PATH, development=development)
    assert "CONTACT" not in caplog.text


GOOD = {"SUPABASE_URL": "https://p.supabase.co", "NANOSWAP_SECRET": "s" * 32, "REDIS_URL": "redis://127.0.0.1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SECURITY_CONTACT", "security@swap.example"),
        ("SECURITY_CONTACT", "mailto:a@b.example\nContact: mailto:evil@b.example"),
        ("SECURITY_CONTACT", "http://swap.example/report"),
        ("SECURITY_CONTACT", "javascript:alert(1)"),
        ("ABUSE_CONTACT", "https://"),
        ("ABUSE_CONTACT", "https://swap.example/a b"),
        ("PUBLIC_ORIGIN", "http://swap.example"),
        ("PUBLIC_ORIGIN", "https://swap.example/"),
        ("PUBLIC_ORIGIN", "https://somebody@swap.example"),
        ("BUILD_COMMIT", "main"),
        ("IMAGE_DIGEST", "latest"),
        ("WEBHOOK_SECRET", "hunter2"),
    ],
)
def test_wrong_words_are_refused_by_name_and_not_repeated(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"NANOSWAP_{name}") as caught:
        Settings.from_environment(GOOD | {f"NANOSWAP_{name}": value})
    assert value not in str(caught.value)


def test_right_words_are_taken_and_abuse_falls_back_to_security() -> None:
    public = Settings.from_environment(
        GOOD
        | {
            "NANOSWAP_SECURITY_CONTACT": "https://swap.example/report?a=b",
            "NANOSWAP_PUBLIC_ORIGIN": "https://swap.example:8443",
            "NANOSWAP_BUILD_COMMIT": "0123abc",
            "NANOSWAP_IMAGE_DIGEST": "sha256:" + "0" * 64,
            "NANOSWAP_PROVE_REPORT": "/reports/prove.json",
        }
    ).public
    assert public.abuse_contact == public.security_contact == "https://swap.example/report?a=b"
    assert (public.origin, public.build_commit) == ("https://swap.example:8443", "0123abc")
    assert str(public.prove_report) == "/reports/prove.json"
    both = {"NANOSWAP_SECURITY_CONTACT": "mailto:s@x.example", "NANOSWAP_ABUSE_CONTACT": "mailto:a@x.example"}
    assert Settings.from_environment(GOOD | both).public.abuse_contact == "mailto:a@x.example"
    assert Settings.from_environment(GOOD).public == PublicSettings()
