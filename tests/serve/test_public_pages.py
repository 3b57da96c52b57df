"""The pages for everybody: what the operator said is on them, escaped; and they work without a script."""

import re
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, Route, expect

from nanoswap import __version__
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.pages import NOBODY, contact
from nanoswap.serve.public_settings import PublicSettings
from nanoswap.serve.retention import retention
from nanoswap.serve.site import PAGES
from nanoswap.serve.verification import NOT_REMOTE, REMOTE
from tests.serve.browser import SHOTS, Visit
from tests.serve.conftest import Service
from tests.serve.test_gateway import SETTINGS, Anyone
from tests.serve.test_verification import REPORT

PUBLIC = PublicSettings(
    security_contact="https://swap.example/report?a=1&b=2",
    abuse_contact="mailto:abuse@swap.example",
    build_commit="0123abc",
    image_digest="sha256:" + "cd" * 32,
)


async def page(path: str, public: PublicSettings = PUBLIC) -> str:
    app = create_gateway(replace(SETTINGS, public=public), MemoryRoom(Policy()), Anyone())  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        answer = await client.get(path)
        again = await client.get(path, headers={"If-None-Match": answer.headers["etag"]})
    assert (answer.status_code, again.status_code) == (200, 304)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


def text(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_is_filled_and_has_no_style_or_script_of_its_own(path: str) -> None:
    html = await page(path)
    assert not re.search(r"\$[a-z]", html)
    assert "style=" not in html
    assert "<style" not in html
    assert "<script" not in re.sub(r'<script type="module" src="/web/[a-z]+\.js"></script>', "", html)
    for other in set(PAGES) - {path}:
        assert f'href="{other}"' in html, other


async def test_contacts_are_links_and_escaped() -> None:
    abuse = await page("/abuse")
    assert '<a href="mailto:abuse@swap.example">abuse@swap.example</a>' in abuse
    assert 'href="https://swap.example/report?a=1&amp;b=2"' in await page("/security")
    assert contact('https://x.example/"><img src=x>').count("<") == 2


async def test_a_service_without_a_contact_says_that_there_is_none() -> None:
    for path in ("/abuse", "/security", "/privacy"):
        assert NOBODY in text(await page(path, PublicSettings()))


async def test_privacy_page_has_every_row_of_the_table() -> None:
    said = text(await page("/privacy"))
    for row in retention(SETTINGS, Policy()):
        assert " ".join((row.what, row.where, f"Until {row.until}.")) in said


async def test_page_about_the_promise_says_without_a_script_what_runs_and_how_to_check() -> None:
    said = text(await page("/verify"))
    assert f"nanoswap {__version__}" in said
    assert "commit 0123abc" in said
    assert f"image digest {PUBLIC.image_digest}" in said
    for step in (*REMOTE, *NOT_REMOTE):
        assert " ".join(step.split(": ")[-1].split()) in said
    silent = text(await page("/verify", PublicSettings()))
    assert "commit the operator's build doesn't say" in silent


async def test_page_with_its_names_is_not_served_unfilled() -> None:
    app = create_gateway(SETTINGS, MemoryRoom(Policy()), Anyone())  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        assert (await client.get("/web/privacy.html")).status_code == 404


@pytest.mark.browser
@pytest.mark.service
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_pages_are_accessible_and_never_wider_than_the_screen(
    browser: Browser, service: Service, scheme: str, width: int
) -> None:
    person = Visit(browser, service, color_scheme=scheme, viewport={"width": width, "height": 800})
    try:
        for path in ("/privacy", "/abuse", "/security"):
            person.page.goto(service.url + path)
            person.axe()
            assert person.page.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0
            person.page.screenshot(path=SHOTS / f"8{path.replace('/', '-')}-{scheme}-{width}.png", full_page=True)
        assert person.wrong == []
    finally:
        person.close()


def answering(body: object) -> Callable[[Route], None]:
    return lambda route: route.fulfill(json=body)


@pytest.mark.browser
@pytest.mark.service
def test_report_is_shown_as_it_is(browser: Browser, service: Service) -> None:
    person = Visit(browser, replace(service, url=f"{service.url}/verify"))
    page = person.page
    status = page.locator("#report-status")
    try:
        expect(status).to_contain_text("mounted no report")
        answer = httpx.get(service.url + "/v1/verify").json()
        hostile = "<img src=x onerror=alert(1)>"
        tried = REPORT["scenarios"][0] | {"name": hostile, "problem": None}
        shown = {name: REPORT[name] for name in ("version", "started", "finished", "passed")}
        shown |= {"same_version": True, "age_seconds": 90_000, "scenarios": [tried]}
        found, nothing = tried | {"remnants": 160}, tried | {"problem": "ended as gone"}
        for report, said in [
            (shown, "Passed: nothing was found. Finished 1 day ago"),
            (shown | {"passed": False, "scenarios": [nothing, found]}, "Failed: something was found."),
            (shown | {"passed": False, "scenarios": [tried, nothing]}, "not all that was tried proves something"),
            (shown | {"same_version": False, "version": "9.9"}, "made of version 9.9, not of the one that runs here"),
        ]:
            page.route("**/v1/verify", answering(answer | {"report_status": "read", "report": report}))
            person.open()
            expect(status).to_contain_text(said)
            expect(page.get_by_role("rowheader", name=hostile).first).to_be_visible()
            expect(page.get_by_text("Proves nothing: ended as gone")).to_have_count(report["scenarios"].count(nothing))
            assert page.locator("#report img").count() == 0
            page.unroute("**/v1/verify")
        person.axe()
        page.route("**/v1/verify", answering(answer | {"report_status": "unreadable"}))
        person.open()
        expect(status).to_contain_text("nothing is known")
        assert person.wrong == []
    finally:
        person.close()


@pytest.mark.browser
@pytest.mark.service
def test_person_deletes_their_data_on_the_page(
    browser: Browser, service: Service, astronaut: bytes, hopper: bytes
) -> None:
    person = Visit(browser, service)
    page = person.page
    delete = page.get_by_role("button", name="Delete my data")
    try:
        expect(delete).to_be_hidden()
        person.ready(astronaut, hopper)
        # Hold the upload back: the swap is under way.
        page.route("**/swap", lambda route: None)
        page.get_by_role("button", name="Swap", exact=True).click()
        expect(page.locator("#waiting")).to_be_visible()
        delete.click()
        person.axe()
        page.get_by_role("button", name="Keep it").click()
        expect(page.locator("#waiting")).to_be_visible()
        delete.click()
        with page.expect_response(lambda one: one.url.endswith("/v1/account")) as answer:
            page.get_by_role("button", name="Delete it").click()
        assert answer.value.status == 204
        token = answer.value.request.headers["authorization"]
        expect(page.get_by_role("button", name="Sign in", exact=True).first).to_be_visible()
        page.wait_for_selector("html[data-ready]")
        assert person.kept_ticket() is None
        assert page.evaluate("() => Object.keys(localStorage)") == []
        assert httpx.get(service.url + "/v1/quota", headers={"Authorization": token}).status_code == 401
        # Nobody is locked out: whoever signs in again may go on.
        fresh = service.sign_in()
        for _ in range(30):
            quota = httpx.get(service.url + "/v1/quota", headers={"Authorization": f"Bearer {fresh}"})
            if quota.status_code == 200:
                break
            page.wait_for_timeout(200)
            fresh = service.sign_in()
        assert quota.json()["open_tickets"] == 0
    finally:
        person.close()


@pytest.mark.browser
@pytest.mark.service
def test_signing_out_leaves_nothing_on_the_page(
    browser: Browser, service: Service, astronaut: bytes, hopper: bytes
) -> None:
    person = Visit(browser, service)
    page = person.page
    try:
        person.ready(astronaut, hopper)
        expect(page.get_by_alt_text("Your portrait")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("button", name="Sign in", exact=True).first).to_be_visible()
        page.wait_for_selector("html[data-ready]")
        expect(page.get_by_alt_text("Your portrait")).to_be_hidden()
        assert page.locator("img[src^=blob]").count() == 0
        assert page.evaluate("() => Object.keys(localStorage)") == []
        assert person.wrong == []
    finally:
        person.close()


def test_no_page_names_what_is_not_there() -> None:
    """A link on a page leads to a page, a document or a place on it."""
    folder = Path(__file__).parents[2] / "serve" / "web"
    known = {*PAGES, "/openapi.json", "/v1/verify", "/v1/models", "#main"}
    for path in folder.glob("*.html"):
        links = re.findall(r'<a [^>]*href="([^"]+)"', path.read_text())
        assert {link for link in links if not link.startswith("/web/")} <= known, path.name
