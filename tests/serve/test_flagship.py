"""The flagship through a running service, on tiny random weights in the published files' layout: real page, real API,
real Ray replica, real loaders; what a face comes out as means nothing, what must hold for real weights is held here."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect

if os.environ.get("NANOSWAP_REQUIRE_TORCH") != "1":
    pytest.importorskip("torch", reason="torch isn't installed, and engines of diffusion are optional")

from tests.clips import portrait
from tests.serve.api import Api
from tests.serve.browser import Visit
from tests.serve.conftest import Service, jpeg, pixels, start_service, stop_service

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def flagship(models: Path) -> Iterator[Service]:
    words = ("--engine", "instantid,instantid-quality,mesh", "--models", str(models))
    running = start_service(
        *words, "--manifest", str(models / "models.toml"), NANOSWAP_THREADS="1", NANOSWAP_IMAGE_SLOTS="4"
    )  # fmt: skip
    try:
        yield running
    finally:
        stop_service(running)


@pytest.fixture
def api(flagship: Service) -> Iterator[Api]:
    person = Api(flagship.url, flagship.sign_in())
    yield person
    person.close()


def png(rgb: np.ndarray) -> bytes:
    stream = BytesIO()
    Image.fromarray(rgb.astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def swapped(api: Api, source: bytes, target: bytes, **fields: str) -> np.ndarray:
    _, answer = api.whole(source, target, format="png", **fields)
    assert answer.status_code == 200, answer.text
    return pixels(answer.content)


def apart(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.asarray(np.abs(a - b).max(2) > 6)


@pytest.mark.parametrize("engine", ["instantid", "instantid-quality"])
def test_identity_place_and_seed_decide_and_nothing_else_changes(api: Api, hopper: bytes, engine: str) -> None:
    before = portrait("astronaut")
    target = png(before)
    base = swapped(api, hopper, target, engine=engine)
    assert np.array_equal(swapped(api, hopper, target, engine=engine), base)
    assert apart(swapped(api, jpeg(before), target, engine=engine), base).sum() > 60
    assert apart(swapped(api, hopper, target, engine=engine, seed="1"), base).sum() > 3000
    # The crop is the head and a margin; outside, every bit is the person's own.
    rows, columns = np.where(apart(base, before))
    assert apart(base, before).sum() > 3000
    assert rows.max() < 260
    assert columns.min() > 90
    assert columns.max() < 360
    outside = np.ones(before.shape[:2], bool)
    outside[:260, 90:360] = False
    assert np.array_equal(base[outside], before[outside])
    # The points elsewhere: the face is made there.
    moved = np.roll(before, 96, axis=1)
    away = swapped(api, hopper, png(moved), engine=engine)
    shifted = np.where(apart(away, moved))[1]
    assert abs(int(shifted.min()) - int(columns.min()) - 96) < 8
    assert abs(int(shifted.max()) - int(columns.max()) - 96) < 8


def test_config_says_what_the_engines_are(api: Api) -> None:
    engines = httpx.get(api.url + "/v1/config").json()["engines"]
    assert [(one["name"], one["seeded"], one["clips"]) for one in engines] == [
        ("instantid", True, False), ("instantid-quality", True, False), ("mesh", False, True)
    ]  # fmt: skip
    offered = [one for one in httpx.get(api.url + "/v1/models").json()["engines"] if one["offered"]]
    assert [one["name"] for one in offered] == ["mesh", "instantid", "instantid-quality"]
    assert {"unet", "identity_net", "face_adapter"} <= {model["role"] for model in offered[1]["models"]}


def test_swaps_that_run_together_are_those_that_run_alone(flagship: Service, hopper: bytes) -> None:
    target = png(portrait("astronaut"))
    sources = [hopper, jpeg(portrait("astronaut"))]  # two places in line are an account's number
    people = [Api(flagship.url, flagship.sign_in()) for _ in sources]

    def one(index: int) -> np.ndarray:
        return swapped(people[index], sources[index], target, seed=str(index), engine="instantid-quality")

    try:
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(one, range(2)))
        for index, made in enumerate(together):
            assert np.abs(made - one(index)).max() <= 1
    finally:
        for person in people:
            person.close()


def test_seed_that_is_none_is_a_clear_error(api: Api, hopper: bytes) -> None:
    _, answer = api.whole(hopper, png(portrait("astronaut")), seed="-1")
    assert (answer.status_code, answer.json()["code"], answer.json()["part"]) == (422, "bad_request", "seed")


@pytest.mark.browser
def test_page_offers_another_try(flagship: Service, browser: Browser, astronaut: bytes, hopper: bytes) -> None:
    visit = Visit(browser, flagship)
    visit.ready(hopper, astronaut)
    visit.page.get_by_role("button", name="Swap", exact=True).click()
    expect(visit.page.locator("#facts")).to_contain_text("seed 0", timeout=60_000)
    visit.page.get_by_role("button", name="Another try (seed 1)").click()
    expect(visit.page.locator("#facts")).to_contain_text("seed 1", timeout=60_000)
    expect(visit.page.get_by_role("button", name="Another try (seed 2)")).to_be_visible()
