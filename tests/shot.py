"""``./dev shot``: take the README's screenshot from a running service, without anybody's picture in it."""

from pathlib import Path

from playwright.sync_api import expect

from tests.serve.browser import chromium
from tests.serve.conftest import start_service, stop_service

OUT = Path(__file__).parents[1] / "docs" / "page.png"


def main() -> None:
    service = start_service()
    try:
        with chromium() as browser:
            page = browser.new_page(viewport={"width": 1280, "height": 860})
            page.goto(service.url)
            page.wait_for_selector("html[data-ready]")
            expect(page.locator("#queue")).to_contain_text("GPU process ready")
            page.screenshot(path=OUT)
    finally:
        stop_service(service)


if __name__ == "__main__":
    main()
