"""Pictures beside clips on one processor, over HTTP against the running service: how long does a picture take?

One person sends a picture again and again; another has a clip made without end. Three times: no clip; a clip that lets
pictures by between two chunks of frames, as `./dev` runs it; and the same without that (`NANOSWAP_GPU_LOCK` empty).
Milliseconds from the first byte of the upload to the last of the result.
"""

import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.clips import Actor, Recipe, Scene, make, portrait, sway
from tests.serve.api import Api
from tests.serve.conftest import Service, jpeg, start_service, stop_service

PICTURES = 30
WARM = 3


@contextmanager
def running(**environment: str) -> Iterator[Service]:
    service = start_service(**environment)
    try:
        yield service
    finally:
        stop_service(service)


class Clips:
    """Somebody who has clips made, one after the other."""

    def __init__(self, service: Service, source: bytes, clip: bytes, frames: int) -> None:
        self._api, self._source, self._clip, self._frames = Api(service.url, service.sign_in()), source, clip, frames
        self.begun = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Clips":
        self._thread.start()
        self.begun.wait(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._api.close()

    def _run(self) -> None:
        while not self._stop.is_set():
            joined = self._api.join(self._source, self._clip, kind="video", width=1280, height=720, frames=self._frames)
            if joined.status_code == 429:  # the last clip's ticket is not settled yet, and an account has two
                time.sleep(0.1)
                continue
            ticket = self._api.granted(joined.json(), 120)
            headers = {"Authorization": f"Bearer {self._api.token}", "Grant": ticket["grant"]}
            files = {"source": ("a", self._source), "target": ("b", self._clip)}
            with self._api.http.stream(
                "POST", self._api.url + ticket["links"]["swap"], headers=headers, files=files
            ) as answer:
                for _ in answer.iter_raw():
                    self.begun.set()
                    if self._stop.is_set():
                        return


def pictures(service: Service, source: bytes, target: bytes) -> list[float]:
    """Milliseconds of each."""
    api = Api(service.url, service.sign_in())
    taken = []
    try:
        for _ in range(PICTURES + WARM):
            ticket = api.granted(api.join(source, target).json())
            started = time.perf_counter()
            api.swap(ticket, source, target).raise_for_status()
            taken.append((time.perf_counter() - started) * 1000)
            api.made.clear()
            time.sleep(0.2)
    finally:
        api.close()
    return taken[WARM:]


def main() -> None:
    source, target = jpeg(portrait("astronaut")), jpeg(portrait("hopper"))
    clip = make(Recipe(Scene([Actor("hopper", sway(640, 330, 120))], 1280, 720), frames=240))
    print(f"{'':<34}{'p50 ms':>9}{'p95 ms':>9}{'times alone':>13}")
    alone = 0.0
    for name, environment, busy in (
        ("no clip", {}, False),
        ("a clip that lets pictures by", {}, True),
        ("a clip that does not", {"NANOSWAP_GPU_LOCK": ""}, True),
    ):
        with ExitStack() as stack:
            service = stack.enter_context(running(**environment))
            if busy:
                stack.enter_context(Clips(service, source, clip, 240))
            taken = pictures(service, source, target)
        middle, high = statistics.median(taken), statistics.quantiles(taken, n=20)[18]
        alone = alone or middle
        print(f"{name:<34}{middle:>9.0f}{high:>9.0f}{middle / alone:>12.1f}x", flush=True)


if __name__ == "__main__":
    main()
