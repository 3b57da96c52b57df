"""Stopping a service while somebody is being served."""

import os
import signal
import threading

import pytest

from nanoswap.serve.process_memory import tree
from tests.clips import Actor, Recipe, Scene, make, read, sway
from tests.serve.api import Api
from tests.serve.conftest import start_service, stop_service

pytestmark = [pytest.mark.service, pytest.mark.apart]

FRAMES = 240


def test_a_clip_that_is_on_its_way_is_delivered_before_the_service_ends(
    astronaut: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    clip = make(Recipe(Scene([Actor("hopper", sway(640, 330, 120))], 1280, 720), frames=FRAMES))
    service = start_service(NANOSWAP_IMAGE_REPLICAS="1")
    person = Api(service.url, service.sign_in())
    try:
        joined = person.join(astronaut, clip, kind="video", width=1280, height=720, frames=FRAMES)
        ticket = person.granted(joined.json())
        files = {"source": ("a", astronaut), "target": ("b", clip)}
        headers = {"Authorization": f"Bearer {person.token}", "Grant": ticket["grant"]}
        path = service.url + ticket["links"]["swap"]
        with person.http.stream("POST", path, headers=headers, files=files) as answer:
            assert answer.status_code == 200
            parts = answer.iter_raw()
            got = next(parts)
            assert person.ticket(ticket)["state"] == "running", "the clip was done first: nothing was shown"
            # The gateway is still there for it, and says how it went. A terminal's Ctrl-C goes to all of its group.
            stopping = threading.Thread(target=os.killpg, args=(service.process.pid, signal.SIGINT))
            stopping.start()
            got += b"".join(parts)
            stopping.join()
        assert len(read(got).frames) == FRAMES
        assert service.process.wait(60) == 0
        assert tree(service.process.pid) == []
        assert "Traceback" not in capfd.readouterr().err
    finally:
        person.http.close()
        stop_service(service)
