"""A service that runs networks, on stand-in files: pictures and clips, API and command line, engines side by side."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, Route, expect

from tests.clips import Actor, Recipe, Scene, make, read, read_number, sway
from tests.serve.api import Api
from tests.serve.browser import SHOTS, Visit
from tests.serve.conftest import Service, pixels, start_service, stop_service, wait_until
from tests.serve.test_video import begin, touched

pytestmark = pytest.mark.service

REFUSED = '{"type":"about:blank","title":"No face was found","status":422,"code":"no_face","detail":"In the target."}'
ACTOR = Actor("hopper", sway(240, 135, 46))


@pytest.fixture(scope="module")
def networks(models: Path) -> Iterator[Service]:
    words = ("--engine", "inswapper,hyperswap,mesh", "--models", str(models), "--manifest", str(models / "models.toml"))
    running = start_service(*words, NANOSWAP_THREADS="1")
    try:
        yield running
    finally:
        stop_service(running)


@pytest.fixture
def api(networks: Service) -> Iterator[Api]:
    person = Api(networks.url, networks.sign_in())
    yield person
    person.close()


def test_pictures_are_swapped_by_the_engine_that_is_asked_for(api: Api, astronaut: bytes, hopper: bytes) -> None:
    config = httpx.get(api.url + "/v1/config").json()
    assert [engine["name"] for engine in config["engines"]] == ["inswapper", "hyperswap", "mesh"]
    assert config["engine"]["name"] == "inswapper"
    before = pixels(astronaut)
    made = {}
    for engine in ("", "inswapper", "hyperswap", "mesh"):
        _, answer = api.whole(hopper, astronaut, format="png", **({"engine": engine} if engine else {}))
        assert answer.status_code == 200, answer.text
        made[engine] = pixels(answer.content)
        changed = np.abs(made[engine] - before).max(2) > 12
        rows, columns = np.where(changed)
        assert changed.sum() > 4000
        # The astronaut's head, and nothing else.
        assert rows.max() < 260
        assert columns.min() > 100
        assert columns.max() < 350
    assert np.array_equal(made[""], made["inswapper"])
    assert not np.array_equal(made["inswapper"], made["hyperswap"])
    assert not np.array_equal(made["inswapper"], made["mesh"])


def test_engine_that_is_not_there_is_a_clear_error(api: Api, astronaut: bytes, hopper: bytes) -> None:
    _, answer = api.whole(hopper, astronaut, engine="outswapper")
    assert (answer.status_code, answer.json()["code"], answer.json()["part"]) == (422, "bad_request", "engine")
    assert "inswapper, hyperswap, mesh" in answer.json()["detail"]


def test_clip_is_swapped_frame_by_frame(api: Api, astronaut: bytes) -> None:
    clip = make(Recipe(Scene([ACTOR]), frames=36))
    ticket = begin(api, astronaut, clip, 36)
    answer = api.swap(ticket, astronaut, clip)
    assert answer.status_code == 200, answer.text
    before, after = read(clip), read(answer.content)
    assert [read_number(frame) for frame in after.frames] == list(range(36))
    for index, (old, new) in enumerate(zip(before.frames, after.frames, strict=True)):
        assert touched(old, new, ACTOR, before.pts[index]) > 8, index


def test_command_line_asks_for_an_engine(networks: Service, tmp_path: Path, astronaut: bytes, hopper: bytes) -> None:
    source, target, out = tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "out.png"
    source.write_bytes(hopper)
    target.write_bytes(astronaut)
    words = ["swap", str(source), str(target), "-o", str(out), "--format", "png", "--demo", "--consent"]
    done = subprocess.run(
        [sys.executable, "-m", "nanoswap.serve.cli", *words, "--engine", "hyperswap", "--url", networks.url],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (np.abs(pixels(out.read_bytes()) - pixels(astronaut)).max(2) > 12).sum() > 4000


def swapped_visit(browser: Browser, service: Service, source: bytes, target: bytes) -> Visit:
    """Somebody who has swapped a picture and sees the result."""
    visit = Visit(browser, service)
    visit.ready(source, target)
    visit.page.get_by_role("button", name="Swap", exact=True).click()
    expect(visit.page.locator("#done")).to_be_visible(timeout=60_000)
    return visit


@pytest.mark.browser
def test_page_shows_the_engines_side_by_side(
    networks: Service, browser: Browser, astronaut: bytes, hopper: bytes
) -> None:
    visit = swapped_visit(browser, networks, hopper, astronaut)
    page = visit.page
    page.get_by_role("button", name="Compare the engines").click()
    expect(page.locator("#engines-status")).to_contain_text("only the engine differs", timeout=90_000)
    expect(page.get_by_role("button", name="Compare the engines")).to_be_visible()
    shown = page.locator("#engines-gallery img")
    expect(shown).to_have_count(3)
    drawn = shown.evaluate_all("images => images.map(image => [image.alt, image.naturalWidth, image.src])")
    assert all(width == 512 for _, width, _ in drawn)
    assert len({src for *_, src in drawn}) == 3
    assert [alt.split(":")[0] for alt, *_ in drawn] == [
        "The photo swapped by Inswapper 128",
        "The photo swapped by HyperSwap 256",
        "The photo swapped by Mesh",
    ]
    visit.axe()
    page.screenshot(path=SHOTS / "engines.png", full_page=True)
    page.get_by_role("button", name="Swap another").click()
    expect(shown).to_have_count(0)
    assert visit.wrong == []
    visit.close()


@pytest.mark.browser
def test_comparison_shows_failures_and_can_be_stopped(
    networks: Service, browser: Browser, astronaut: bytes, hopper: bytes
) -> None:
    visit = swapped_visit(browser, networks, hopper, astronaut)
    page = visit.page

    def refuse(route: Route) -> None:
        body = route.request.post_data_buffer or b""
        if b"hyperswap" in body:
            route.fulfill(status=422, content_type="application/problem+json", body=REFUSED)
        else:
            route.continue_()

    page.route("**/image/v1/tickets/*/swap", refuse)
    page.get_by_role("button", name="Compare the engines").click()
    expect(page.locator("#engines-gallery figure")).to_have_count(3, timeout=90_000)
    expect(page.locator("#engines-gallery img")).to_have_count(2)
    expect(page.locator("#engines-gallery figure").nth(1)).to_contain_text("No face")
    page.unroute("**/image/v1/tickets/*/swap")

    # Stopped while the second engine takes its place in line: the place is given up again.
    left: list[str] = []
    page.on("request", lambda request: left.append(request.url) if request.method == "DELETE" else None)
    page.route(
        "**/v1/tickets", lambda route: (page.get_by_role("button", name="Stop comparing").click(), route.continue_())
    )
    page.get_by_role("button", name="Compare the engines").click()
    expect(page.locator("#engines-status")).to_have_text("Stopped.", timeout=30_000)
    wait_until(lambda: page.wait_for_timeout(50) or len(left) == 1)
    expect(page.locator("#engines-gallery figure")).to_have_count(1)
    visit.close()


def start(**environment: str) -> subprocess.CompletedProcess[str]:
    """What `nanoswap serve` says when it can't."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("NANOSWAP_")}
    return subprocess.run(
        [sys.executable, "-m", "nanoswap.serve.cli", "serve"],
        env=inherited | environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_service_that_lacks_its_files_says_so_at_once(models: Path, tmp_path: Path) -> None:
    missing = start(
        NANOSWAP_ENGINE="inswapper", NANOSWAP_MODELS=str(tmp_path), NANOSWAP_MANIFEST=str(models / "models.toml")
    )
    assert missing.returncode == 2
    assert "nanoswap models pull det_10g" in missing.stderr
    refused = start(NANOSWAP_ENGINE="inswapper", NANOSWAP_MODELS=str(models))
    assert refused.returncode == 2
    assert "--accept insightface-non-commercial" in refused.stderr
    unknown = start(NANOSWAP_ENGINE="outswapper")
    assert unknown.returncode == 2
    assert "there is no engine 'outswapper'" in unknown.stderr
    none = start(
        NANOSWAP_ENGINE="inswapper",
        NANOSWAP_MODELS=str(models),
        NANOSWAP_MANIFEST=str(models / "models.toml"),
        NANOSWAP_DEVICE="cuda",
    )
    assert none.returncode == 2
    assert "can't use 'cuda'" in none.stderr
    for said in (missing, refused, unknown, none):
        assert len(said.stderr.strip().splitlines()) == 1
