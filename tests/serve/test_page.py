"""The page in a real browser, against the running service, with real clicks."""

import json
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Request, Route, expect

from nanoswap.serve.problems import MEDIA_TYPE, Problem
from tests.serve.browser import SHOTS, Visit
from tests.serve.conftest import Service, jpeg, wait_until

pytestmark = [pytest.mark.browser, pytest.mark.service]


@pytest.fixture
def visit(browser: Browser, service: Service) -> Iterator[Visit]:
    person = Visit(browser, service)
    yield person
    person.close()


def test_whole_job_by_real_clicks(visit: Visit, astronaut: bytes, hopper: bytes) -> None:
    page = visit.page
    expect(page.locator("#queue")).to_contain_text("GPU process ready")
    page.screenshot(path=SHOTS / "1-start.png", full_page=True)
    visit.ready(astronaut, hopper)
    expect(page.locator("#picker-note")).to_have_text("One face found.")
    page.screenshot(path=SHOTS / "2-chosen.png", full_page=True)
    page.get_by_role("button", name="Swap", exact=True).click()
    expect(page.locator("#done")).to_be_visible(timeout=60_000)
    page.screenshot(path=SHOTS / "3-done.png", full_page=True)
    slider = page.get_by_label("Compare before and after")
    slider.focus()
    page.keyboard.press("Home")
    expect(slider).to_have_value("0")
    assert "inset(0px 100% 0px 0px)" in page.locator("#before").evaluate("one => getComputedStyle(one).clipPath")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    data = Path(download.value.path()).read_bytes()
    result = np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)
    before = np.asarray(Image.open(BytesIO(hopper)).convert("RGB")).astype(int)
    assert result.shape == before.shape
    assert (np.abs(result - before).max(axis=2) > 25).mean() > 0.01
    assert Image.open(BytesIO(data)).getexif() == {}
    left = page.evaluate("() => indexedDB.databases().then(() => import('/web/keep.js')).then(keep => keep.kept())")
    assert left is None, "the pictures stayed in the browser's store"
    assert visit.wrong == []


def test_reload_keeps_the_place(visit: Visit, astronaut: bytes, hopper: bytes) -> None:
    page = visit.page
    visit.ready(astronaut, hopper)
    # Hold the upload back, so that the reload happens in the middle.
    page.route("**/swap", lambda route: None)
    page.get_by_role("button", name="Swap", exact=True).click()
    expect(page.locator("#waiting")).to_be_visible()
    wait_until(visit.kept_ticket)
    held = visit.kept_ticket()
    assert held is not None
    page.unroute("**/swap")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    visit.open()
    expect(page.locator("#done")).to_be_visible(timeout=60_000)
    assert any(held in url for url in asked)
    assert not any(url.endswith("/v1/tickets") for url in asked), "a second ticket was taken"


def test_upload_that_found_no_replica_uses_the_same_grant_again(visit: Visit, astronaut: bytes, hopper: bytes) -> None:
    page = visit.page
    grants: list[str] = []

    def nobody_at_first(route: Route) -> None:
        grants.append(route.request.headers["grant"])
        if len(grants) > 2:
            return route.continue_()
        answer = Problem("unavailable", retry_after=1)
        return route.fulfill(status=answer.status, content_type=MEDIA_TYPE, body=json.dumps(answer.body()))

    visit.ready(astronaut, hopper)
    page.route("**/swap", nobody_at_first)
    page.get_by_role("button", name="Swap", exact=True).click()
    expect(page.locator("#done")).to_be_visible(timeout=30_000)
    assert len(grants) == 3
    assert len(set(grants)) == 1


def test_cancel_gives_the_place_up(visit: Visit, astronaut: bytes, hopper: bytes) -> None:
    page = visit.page
    visit.ready(astronaut, hopper)
    page.route("**/swap", lambda route: None)
    page.get_by_role("button", name="Swap", exact=True).click()
    wait_until(visit.kept_ticket)
    with page.expect_response(lambda answer: answer.request.method == "DELETE") as deleted:
        page.get_by_role("button", name="Cancel").click()
    assert deleted.value.status == 204
    expect(page.locator("#hint")).to_have_text("Canceled.")


def test_picture_without_a_face_is_explained(visit: Visit, astronaut: bytes) -> None:
    flat = jpeg(np.full((300, 400, 3), 128, np.uint8))
    visit.sign_in()
    visit.choose("source", astronaut)
    visit.choose("target", flat)
    expect(visit.page.locator("#picker-note")).to_contain_text("No face was found in the photo")
    visit.page.get_by_role("checkbox").check()
    expect(visit.page.locator("#hint")).to_have_text("The photo needs a face to change.")


def test_refusal_of_the_gate_is_explained(visit: Visit, astronaut: bytes, hopper: bytes) -> None:
    refused = '{"type":"/problems#content_refused","title":"No","status":422,"code":"content_refused","detail":"No."}'

    def refuse(route: Route) -> None:
        # The ticket ends with it, as it does where the gate has refused.
        address = urlsplit(route.request.url)
        ticket = f"{address.scheme}://{address.netloc}/v1/tickets/{address.path.split('/')[-2]}"
        httpx.delete(ticket, headers={"Authorization": route.request.headers["authorization"]}).raise_for_status()
        route.fulfill(status=422, content_type="application/problem+json", body=refused)

    visit.ready(astronaut, hopper)
    visit.page.route("**/swap", refuse)
    visit.page.get_by_role("button", name="Swap", exact=True).click()
    expect(visit.page.locator("body")).to_contain_text("This content isn't swapped here", timeout=30_000)
    expect(visit.page.locator("body")).to_contain_text("Pictures must show adults, and nothing intimate.")


def test_faces_are_buttons_that_can_be_pressed(visit: Visit, astronaut: bytes, hopper: bytes) -> None:
    left, right = (np.asarray(Image.open(BytesIO(data)).convert("RGB"))[:512, :512] for data in (hopper, astronaut))
    page = visit.page
    visit.ready(astronaut, jpeg(np.hstack([left, right]), 95))
    buttons = page.locator("#target-drop .faces button")
    expect(buttons).to_have_count(2)
    expect(buttons.nth(0)).to_have_attribute("aria-pressed", "true")
    buttons.nth(0).focus()
    page.keyboard.press("Space")
    expect(buttons.nth(0)).to_have_attribute("aria-pressed", "false")
    page.screenshot(path=SHOTS / "4-group.png", full_page=True)
    visit.axe()


def test_location_never_leaves_the_browser(visit: Visit, astronaut: bytes, hopper: bytes) -> None:
    picture = Image.open(BytesIO(hopper))
    exif = picture.getexif()
    exif[0x0110] = "CANARY-CAMERA-MODEL"
    exif[0x0112] = 6
    marked = BytesIO()
    picture.save(marked, "JPEG", exif=exif)
    assert b"CANARY" in marked.getvalue()
    sent: list[bytes] = []

    def look(request: Request) -> None:
        if request.method == "POST" and request.url.endswith("/v1/faces"):
            sent.append(request.post_data_buffer or b"")

    visit.page.on("request", look)
    visit.sign_in()
    with visit.page.expect_response("**/v1/faces") as answer:
        visit.choose("target", marked.getvalue())
    found = answer.value.json()
    # Rotated by the browser: wider than high now.
    assert found["width"] > found["height"]
    assert sent
    assert all(b"CANARY" not in body for body in sent)


def test_another_try_swaps_the_same_pair_with_the_next_seed(visit: Visit, astronaut: bytes, hopper: bytes) -> None:
    page = visit.page
    uploads: list[bytes] = []
    tickets: list[str] = []

    def begins_with_noise(route: Route) -> None:
        config = route.fetch().json()
        config["engine"]["seeded"] = config["engines"][0]["seeded"] = True
        route.fulfill(json=config)

    def listen(request: Request) -> None:
        if request.url.endswith("/swap"):
            uploads.append(request.post_data_buffer or b"")
            tickets.append(request.url.split("/")[-2])

    page.route("**/v1/config", begins_with_noise)
    page.on("request", listen)
    visit.open()
    visit.ready(astronaut, hopper)
    page.get_by_role("button", name="Swap", exact=True).click()
    for seed in range(3):
        another = page.get_by_role("button", name=f"Another try (seed {seed + 1})")
        expect(another).to_be_visible(timeout=60_000)
        expect(page.locator("#facts")).to_contain_text(f"seed {seed}")
        assert field(uploads[-1], "seed") == str(seed).encode()
        if seed < 2:
            another.click()
    assert len(set(tickets)) == 3
    assert [len(files(body)) for body in uploads] == [2] * 3
    assert len({tuple(files(body)) for body in uploads}) == 1
    assert min(map(len, files(uploads[0]))) > 10_000
    visit.axe()
    # Another pair begins anew.
    page.get_by_role("button", name="Swap another").click()
    page.get_by_role("button", name="Swap", exact=True).click()
    expect(page.locator("#facts")).to_contain_text("seed 0", timeout=60_000)
    assert visit.wrong == []


def test_engine_that_begins_with_no_noise_has_no_other_try(visit: Visit, astronaut: bytes, hopper: bytes) -> None:
    page = visit.page
    uploads: list[bytes] = []
    page.on("request", lambda one: uploads.append(one.post_data_buffer or b"") if one.url.endswith("/swap") else None)
    visit.ready(astronaut, hopper)
    page.get_by_role("button", name="Swap", exact=True).click()
    expect(page.locator("#done")).to_be_visible(timeout=60_000)
    expect(page.locator("#another")).to_be_hidden()
    expect(page.locator("#facts")).not_to_contain_text("seed")
    assert b'name="seed"' not in uploads[0]


def test_page_says_which_engine_swaps_clips(visit: Visit) -> None:
    def pictures_only(route: Route) -> None:
        config = route.fetch().json()
        first = config["engines"][0] | {"name": "flagship", "label": "Flagship", "clips": False}
        route.fulfill(json=config | {"engine": first, "engines": [first, *config["engines"]]})

    expect(visit.page.locator("#engine")).not_to_contain_text("for clips")
    visit.page.route("**/v1/config", pictures_only)
    visit.open()
    expect(visit.page.locator("#engine")).to_contain_text("Flagship, for clips Mesh")


def field(body: bytes, name: str) -> bytes | None:
    """A field of a browser's multipart body."""
    found = re.search(rb'name="%b"\r\n\r\n([^\r]*)\r\n' % name.encode(), body)
    return found and found[1]


def files(body: bytes) -> list[bytes]:
    """The files of a browser's multipart body."""
    return [part.partition(b"\r\n\r\n")[2] for part in body.split(body.split(b"\r\n", 1)[0]) if b"filename=" in part]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_accessible_and_never_wider_than_the_screen(
    browser: Browser, service: Service, astronaut: bytes, hopper: bytes, scheme: str, width: int
) -> None:
    person = Visit(browser, service, color_scheme=scheme, viewport={"width": width, "height": 800})
    try:
        person.axe()
        person.page.get_by_role("button", name="Sign in", exact=True).first.click()
        person.axe()
        person.page.screenshot(path=SHOTS / f"5-sign-in-{scheme}-{width}.png")
        person.page.keyboard.press("Escape")
        person.ready(astronaut, hopper)
        person.axe()
        person.page.get_by_role("button", name="Swap", exact=True).click()
        expect(person.page.locator("#done")).to_be_visible(timeout=60_000)
        person.axe()
        wide = person.page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
        person.page.screenshot(path=SHOTS / f"6-done-{scheme}-{width}.png", full_page=True)
        assert person.wrong == []
    finally:
        person.close()
