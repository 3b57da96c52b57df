"""The development issuer as a process of its own, so that it is as far from the service as Supabase would be."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx

START_SECONDS = 20.0


@contextmanager
def issuer_process(origins: list[str]) -> Iterator[str]:
    """Run the issuer on a free loopback port for browsers on ``origins``; yields its base URL."""
    from nanoswap.serve.local import free_port

    port = free_port()
    command = [sys.executable, "-m", "nanoswap.queue.issuer", "--port", str(port)]
    for origin in origins:
        command += ["--origin", origin]
    # A Ctrl-C of the terminal is for us: whoever is served until the end still has a session.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}/auth/v1"
        _wait(f"{url}/health", process)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(httpx.HTTPError):
            if httpx.get(url, timeout=1.0).status_code == 200:
                return
        time.sleep(0.05)
    raise RuntimeError("the development issuer did not start")
