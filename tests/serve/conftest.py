"""The whole service, as a person would start it: one process tree on a real Ray, Redis and edge, once per test run."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from nanoswap.queue.issuer import DEMO_EMAIL, DEMO_PASSWORD
from nanoswap.serve.local import free_port

START_SECONDS = 120.0
UNCOUNTED = ("NANOSWAP_RATE_ADDRESS", "NANOSWAP_RATE_ACCOUNT", "NANOSWAP_RATE_TICKETS", "NANOSWAP_RATE_FACES")


@dataclass(frozen=True, slots=True)
class Service:
    """A running service."""

    url: str
    process: "subprocess.Popen[str]"
    demo_email: str = DEMO_EMAIL
    demo_password: str = DEMO_PASSWORD

    @property
    def auth_url(self) -> str:
        return str(httpx.get(f"{self.url}/v1/config").json()["auth"]["url"])

    def sign_in(self) -> str:
        """A fresh access token of the demo account."""
        body = {"email": self.demo_email, "password": self.demo_password}
        answer = httpx.post(f"{self.auth_url}/token?grant_type=password", json=body)
        return str(answer.raise_for_status().json()["access_token"])


def start_service(*words: str, inside: Sequence[str] = (), **environment: str) -> Service:
    """Start ``nanoswap serve`` with these words on a free port and wait until it says that it is ready. ``inside``: a
    command that becomes the one that follows it."""
    port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "NANOSWAP_"))}
    process = subprocess.Popen(
        [*inside, sys.executable, "-m", "nanoswap.serve.cli", "serve", *words],
        # The tests are one account at one address, and ask as fast as they can.
        env=inherited | {"NANOSWAP_PORT": str(port)} | dict.fromkeys(UNCOUNTED, "0") | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "is ready" in line:
            return Service(f"http://127.0.0.1:{port}", process)
    process.wait(10)
    raise AssertionError(f"the service ended with {process.returncode} before it was ready: {''.join(said)}")


def stop_service(service: Service) -> None:
    """Ctrl-C, as a person would; kill what is left of its session if that doesn't end it."""
    service.process.send_signal(signal.SIGINT)
    assert service.process.stdout is not None
    try:
        service.process.stdout.read()
        service.process.wait(60)
    finally:
        service.process.stdout.close()
        with suppress(ProcessLookupError):
            os.killpg(service.process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    running = start_service()
    try:
        yield running
    finally:
        stop_service(running)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from tests.serve.browser import SHOTS, chromium

    SHOTS.mkdir(exist_ok=True)
    with chromium() as running:
        yield running


@pytest.fixture(scope="session")
def astronaut() -> bytes:
    """Portrait of Eileen Collins, NASA, public domain; 512 × 512 JPEG."""
    from skimage import data

    return jpeg(data.astronaut())


@pytest.fixture(scope="session")
def hopper() -> bytes:
    """Portrait of Grace Hopper, US Navy, public domain; 512 × 600 JPEG."""
    from matplotlib import cbook

    with cbook.get_sample_data("grace_hopper.jpg") as file:
        return bytes(file.read())


def jpeg(rgb: np.ndarray, quality: int = 92) -> bytes:
    """Encode RGB pixels."""
    out = BytesIO()
    Image.fromarray(rgb).save(out, "JPEG", quality=quality)
    return out.getvalue()


def pixels(data: bytes) -> np.ndarray:
    """RGB of an encoded picture, int64 (H, W, 3), so that differences have a sign."""
    return np.asarray(Image.open(BytesIO(data)).convert("RGB")).astype(int)


def wait_until(condition: object, seconds: float = 20.0) -> None:
    """Poll until ``condition()`` is true; fails when it isn't in time."""
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true in time"
        time.sleep(0.05)
