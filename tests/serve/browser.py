"""A real Chromium for the page's tests, and a person who visits with it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.serve.conftest import Service

NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
MISSING = "no Chromium on PATH: apt-get install chromium-headless-shell, or brew install chromium"
ARGUMENTS = [
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]

SHOTS = Path(__file__).parents[2] / ".artifacts"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A running browser. Skips the test where there is none, unless NANOSWAP_REQUIRE_BROWSER is 1."""
    found = os.environ.get("CHROMIUM") or next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        if os.environ.get("NANOSWAP_REQUIRE_BROWSER") == "1":
            pytest.fail(MISSING)
        pytest.skip(MISSING)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, chromium_sandbox=False, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Visit:
    """One person's page, with everything that went wrong in its console."""

    def __init__(self, browser: Browser, service: Service, **context: object) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | context)  # type: ignore[arg-type]
        self.page: Page = self.context.new_page()
        self.wrong: list[str] = []
        self.page.on("console", lambda message: self.wrong.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.url = service.url
        self.open()

    def open(self) -> None:
        self.page.goto(self.url)
        self.page.wait_for_selector("html[data-ready]")

    def sign_in(self) -> None:
        self.page.get_by_role("button", name="Sign in", exact=True).first.click()
        self.page.get_by_role("button", name="Sign in with the demo account").click()
        expect(self.page.get_by_role("button", name="Sign out")).to_be_visible()

    def choose(self, part: str, data: bytes) -> None:
        self.page.set_input_files(f"#{part}-file", {"name": f"{part}.jpg", "mimeType": "image/jpeg", "buffer": data})

    def ready(self, source: bytes, target: bytes) -> None:
        self.sign_in()
        self.choose("source", source)
        self.choose("target", target)
        self.page.locator("#target-drop .faces button").first.wait_for()
        self.page.get_by_role("checkbox").check()

    def kept_ticket(self) -> str | None:
        """Id of the ticket that a reload would go on with."""
        script = "() => import('/web/keep.js').then(keep => keep.kept()).then(job => job?.ticket?.id ?? null)"
        return self.page.evaluate(script)  # type: ignore[no-any-return]

    def axe(self) -> None:
        found = Axe().run(self.page, options={"runOnly": RULES}).response["violations"]
        assert found == [], [(item["id"], item["nodes"][0]["html"]) for item in found]

    def close(self) -> None:
        self.context.close()
