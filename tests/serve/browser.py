"""A real Chromium for the page's tests."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
MISSING = "no Chromium on PATH: apt-get install chromium-headless-shell, or brew install chromium"
ARGUMENTS = [
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]


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
