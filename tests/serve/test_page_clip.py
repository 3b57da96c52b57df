"""Clips on the page, in a real browser against the running service: chosen, cut, watched while they are made, kept."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.clips import Actor, Recipe, Scene, make, read, read_number, sway
from tests.corpus import hostile
from tests.serve.browser import SHOTS, Visit
from tests.serve.conftest import Service, jpeg

pytestmark = [pytest.mark.browser, pytest.mark.service]

TWO = Scene([Actor("hopper", sway(150, 140, 46)), Actor("astronaut", sway(340, 140, 40))])


@pytest.fixture(scope="module")
def party() -> bytes:
    """Two people, three seconds."""
    return make(Recipe(TWO, frames=72))


@pytest.fixture(scope="module")
def long_party() -> bytes:
    """Enough work that a preview can be watched: 720p, eight seconds."""
    return make(Recipe(Scene([Actor("hopper", sway(640, 330, 120))], 1280, 720), frames=200, rate=Fraction(25)))


class ClipVisit(Visit):
    def choose_clip(self, data: bytes, name: str = "party.mp4") -> None:
        self.page.set_input_files("#target-file", {"name": name, "mimeType": "video/mp4", "buffer": data})

    def ready_clip(self, source: bytes, clip: bytes) -> None:
        self.sign_in()
        self.choose("source", source)
        self.choose_clip(clip)
        self.page.locator("#target-drop .faces button").first.wait_for()
        self.page.get_by_role("checkbox").check()

    def set(self, name: str, seconds: float) -> None:
        """Move a slider as the keyboard would, let go of it, and wait until faces were looked for again."""
        with self.page.expect_response("**/image/v1/faces"):
            self._set(name, seconds)

    def _set(self, name: str, seconds: float) -> None:
        self.page.evaluate(
            "([id, value]) => { const one = document.getElementById(id); one.value = value;"
            " one.dispatchEvent(new Event('input')); one.dispatchEvent(new Event('change')); }",
            [f"clip-{name}", str(seconds)],
        )


@pytest.fixture
def visit(browser: Browser, service: Service) -> Iterator[ClipVisit]:
    person = ClipVisit(browser, service)
    yield person
    person.close()


def test_part_of_a_clip_and_one_of_two_people(visit: ClipVisit, astronaut: bytes, party: bytes, tmp_path: Path) -> None:
    page = visit.page
    visit.ready_clip(astronaut, party)
    expect(page.locator("#target-drop .faces button")).to_have_count(2)
    expect(page.locator("#clip-part")).to_have_text("The whole clip, 3.0 s, 72 frames.")
    visit.set("start", 0.5)
    visit.set("end", 2.0)
    expect(page.locator("#clip-part")).to_contain_text("1.5 of 3.0 s, 36 frames")
    expect(page.locator("#clip-at-value")).to_have_text("0.5 s")
    visit.set("at", 1.0)
    faces = page.locator("#target-drop .faces button")
    expect(faces).to_have_count(2)
    expect(page.locator("#picker-note")).to_contain_text("2 faces found")
    right = max(range(2), key=lambda index: faces.nth(index).bounding_box()["x"])  # type: ignore[index]
    faces.nth(right).click()
    expect(faces.nth(right)).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#code")).to_contain_text('"kind":"video"')
    expect(page.locator("#code")).to_contain_text("-F start=0.500 -F end=2.000")
    page.screenshot(path=SHOTS / "clip-chosen.png", full_page=True)
    page.get_by_role("button", name="Swap", exact=True).click()
    page.locator("#done").wait_for(timeout=60_000)
    expect(page.locator("#facts")).to_contain_text("36 frames")
    with page.expect_download() as started:
        page.get_by_role("link", name="Download").click()
    assert started.value.suggested_filename == "nanoswap.mp4"
    seen = read(Path(started.value.path()).read_bytes())
    assert [read_number(frame) for frame in seen.frames] == list(range(12, 48))
    before = read(party).frames[12:48]
    changed = [abs(a.astype(int) - b) for a, b in zip(before, seen.frames, strict=True)]
    assert min(one[90:200, 100:200].mean() for one in changed) > 2 * max(one[90:200, 290:390].mean() for one in changed)
    page.get_by_role("button", name="Show before").click()
    expect(page.locator("#clip-before")).to_be_visible()
    page.wait_for_function("() => document.getElementById('clip-before').currentTime >= 0.5")
    expect(page.get_by_role("button", name="Show before")).to_have_attribute("aria-pressed", "true")
    page.screenshot(path=SHOTS / "clip-done.png", full_page=True)
    assert visit.kept_ticket() is None
    assert visit.wrong == []


def test_preview_plays_before_the_last_frame_is_made(visit: ClipVisit, astronaut: bytes, long_party: bytes) -> None:
    page = visit.page
    visit.ready_clip(astronaut, long_party)
    # Every snapshot of the ticket is noted together with how far the preview has played by then.
    page.evaluate(
        """() => import('/web/progress.js').then(({ Progress }) => {
            const seen = window.seen = [];
            const old = Progress.prototype.clip;
            Progress.prototype.clip = function (progress) {
                const at = document.getElementById('preview').currentTime;
                if (progress) seen.push([progress.stage, progress.done, progress.total, at]);
                return old.call(this, progress);
            };
        })"""
    )
    page.get_by_role("button", name="Swap", exact=True).click()
    page.wait_for_function("() => document.getElementById('preview').currentTime > 0.2", timeout=60_000)
    expect(page.locator("#place")).to_have_text("Swapping")
    expect(page.locator("#eta")).to_contain_text("of 200.")
    page.screenshot(path=SHOTS / "clip-preview.png", full_page=True)
    page.locator("#done").wait_for(timeout=120_000)
    seen = page.evaluate("() => window.seen")
    playing = [(done, total) for stage, done, total, at in seen if stage == "swap" and at > 0.2]
    assert playing, "the preview did not play while frames were being made"
    assert playing[0][0] < playing[0][1] == 200
    stages = list(dict.fromkeys(stage for stage, *_ in seen))
    assert stages == [stage for stage in ("upload", "decode", "detect", "swap") if stage in stages]
    page.wait_for_function("() => document.getElementById('clip-after').readyState > 0")
    length = page.evaluate("() => document.getElementById('clip-after').duration")
    assert length == pytest.approx(8.0, abs=0.1)
    assert visit.wrong == []


def test_reload_in_the_middle_keeps_the_place(visit: ClipVisit, astronaut: bytes, long_party: bytes) -> None:
    page = visit.page
    visit.ready_clip(astronaut, long_party)
    page.get_by_role("button", name="Swap", exact=True).click()
    page.wait_for_function("() => document.getElementById('preview').currentTime > 0", timeout=60_000)
    ticket = visit.kept_ticket()
    assert ticket
    visit.open()
    page.locator("#waiting").wait_for()
    assert visit.kept_ticket() == ticket
    page.locator("#done").wait_for(timeout=120_000)
    expect(page.locator("#facts")).to_contain_text("200 frames")
    assert visit.kept_ticket() is None


def test_cancel_in_the_middle(visit: ClipVisit, astronaut: bytes, long_party: bytes) -> None:
    page = visit.page
    visit.ready_clip(astronaut, long_party)
    page.get_by_role("button", name="Swap", exact=True).click()
    page.wait_for_function("() => document.getElementById('preview').currentTime > 0", timeout=60_000)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#hint")).to_have_text("Canceled.")
    expect(page.locator("#preview")).to_be_hidden()
    assert visit.kept_ticket() is None


@pytest.mark.parametrize("name", ["noise", "wrong codec", "8k", "1000 fps", "a playlist that says it is an mp4"])
def test_what_can_not_be_swapped_is_said_when_it_is_chosen(visit: ClipVisit, party: bytes, name: str) -> None:
    data, _ = hostile(party)[name]
    visit.choose_clip(data)
    words = {"8k": "too many pixels", "1000 fps": "more than 120 frames a second"}.get(name, "can't be read|damaged")
    expect(visit.page.locator("#picker-note")).to_contain_text(re.compile(words))
    expect(visit.page.locator("#clip")).to_be_hidden()


def test_picture_after_a_clip_is_a_picture(visit: ClipVisit, astronaut: bytes, hopper: bytes, party: bytes) -> None:
    page = visit.page
    visit.ready_clip(astronaut, party)
    visit.choose("target", hopper)
    expect(page.locator("#clip")).to_be_hidden()
    expect(page.locator("#target-drop .faces button")).to_have_count(1)
    page.get_by_role("button", name="Swap", exact=True).click()
    page.locator("#done").wait_for(timeout=60_000)
    expect(page.locator("#compare")).to_be_visible()
    expect(page.locator("#compare-clip")).to_be_hidden()
    assert visit.wrong == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_clip_steps_are_accessible(
    browser: Browser,
    service: Service,
    astronaut: bytes,
    party: bytes,
    scheme: str,
    width: int,
) -> None:
    visit = ClipVisit(browser, service, color_scheme=scheme, viewport={"width": width, "height": 900})
    try:
        visit.ready_clip(astronaut, party)
        visit.axe()
        assert visit.page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")
        visit.page.get_by_role("button", name="Swap", exact=True).click()
        visit.page.locator("#waiting").wait_for()
        visit.axe()
        visit.page.locator("#done").wait_for(timeout=60_000)
        visit.axe()
        visit.page.screenshot(path=SHOTS / f"clip-{scheme}-{width}.png", full_page=True)
    finally:
        visit.close()


def test_portrait_is_still_a_picture(visit: ClipVisit, party: bytes, astronaut: bytes) -> None:
    visit.page.set_input_files(
        "#source-file", {"name": "a.jpg", "mimeType": "image/jpeg", "buffer": jpeg(read(party).frames[0])}
    )
    expect(visit.page.locator("#source-drop img")).to_be_visible()
