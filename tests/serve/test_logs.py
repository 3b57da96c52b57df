"""Canaries in everything that a person sends, and none of them in any record of any logger."""

import io
import logging
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from PIL import Image

from nanoswap.pipelines.mesh import MeshEngine
from nanoswap.queue.account import Accounts
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.queue.session import Sessions
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.image_swap import create_image_swap
from nanoswap.serve.log_records import keep_logs_clean, place
from tests.serve.test_gateway import SETTINGS, Anyone

CANARY = "CANARY-c2f1"
EMAIL = f"{CANARY}@person.example"


class Written(logging.Handler):
    """Everything that any logger has said, as a formatter would print it, and the record's own attributes."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + repr(vars(record)) + "\n"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[Written]:
    root, factory, level = logging.getLogger(), logging.getLogRecordFactory(), logging.getLogger().level
    hooks = threading.excepthook, sys.unraisablehook
    handler = Written()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    keep_logs_clean()
    for name in ("uvicorn", "ray", "ray.serve"):
        # Whoever configured them in this process before cut them off.
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        monkeypatch.setattr(logging.getLogger(name), "disabled", False)
        monkeypatch.setattr(logging.getLogger(name), "level", logging.DEBUG)
        logging.getLogger(name).manager._clear_cache()  # type: ignore[attr-defined]
    yield handler
    logging.setLogRecordFactory(factory)
    threading.excepthook, sys.unraisablehook = hooks
    root.removeHandler(handler)
    root.setLevel(level)


class Broken(MemoryRoom):
    async def quota(self, account: str) -> None:  # type: ignore[override]
        raise RuntimeError(f"{account} {EMAIL}")


def raises() -> Exception:
    try:
        raise ValueError(EMAIL)
    except ValueError as error:
        return error


@pytest.mark.parametrize(
    "name", ["httpx", "redis.asyncio", "PIL.PngImagePlugin", "python_multipart", "libav", "uvicorn"]
)
def test_a_message_of_somebody_else_is_not_kept(written: Written, name: str) -> None:
    logging.getLogger(name).warning("HTTP Request: GET %s", f"https://x/?token={CANARY}")
    logging.getLogger(name).warning(f"straight {CANARY}")
    logging.getLogger(name).warning("with %(who)s", {"who": CANARY})
    logging.getLogger(name).error("failed", exc_info=raises())
    logging.getLogger(name).error("failed", stack_info=True)
    assert CANARY not in written.text
    assert written.text.count("a message of test_logs.py:") >= 5
    assert "ValueError at test_logs.py:" in written.text


def test_rays_one_line_is_kept_and_its_exceptions_are_not(written: Written) -> None:
    log = logging.getLogger("ray.serve")
    log.info("Started replica %s", "r1")
    log.error("Request failed:\n%s", CANARY)
    log.error("Request failed: %s", f"Traceback:\n{CANARY}")
    log.error("Request failed: %s", raises())
    log.exception("Request failed", exc_info=raises())
    assert "Started replica r1" in written.text
    assert CANARY not in written.text


def test_ours_keeps_its_message_and_no_exceptions_text(written: Written) -> None:
    logging.getLogger("nanoswap.serve.turn").warning("turn not settled: %s", "RoomUnavailable")
    logging.getLogger("nanoswap.serve.turn").warning("turn not settled: %s", raises())
    logging.getLogger("nanoswap.serve.turn").exception("broken", exc_info=raises())
    assert "turn not settled: RoomUnavailable" in written.text
    assert "turn not settled: ValueError at test_logs.py:" in written.text
    assert "broken: ValueError at test_logs.py:" in written.text
    assert CANARY not in written.text
    assert "Traceback" not in written.text


def test_what_nobody_can_catch_is_printed_by_class_and_place(
    written: Written, capfd: pytest.CaptureFixture[str]
) -> None:
    class Finalised:
        def __del__(self) -> None:
            raise raises()

    thread = threading.Thread(target=lambda: int(CANARY))
    thread.start()
    thread.join()
    one = Finalised()
    del one
    said = capfd.readouterr()
    assert said.out == ""
    first, second = said.err.splitlines()
    assert first.startswith("a thread ended: ValueError at test_logs.py:")
    assert second.startswith("ignored: ValueError at test_logs.py:")
    assert CANARY not in said.err


def test_an_exception_that_was_never_raised_has_no_place() -> None:
    assert place(ValueError(EMAIL)) == "ValueError"


async def test_nothing_that_a_person_sends_is_logged(written: Written) -> None:
    """Body, header, query, path, e-mail, token: good, bad and fatal, through the real applications."""
    settings = replace(SETTINGS, auth_url="http://127.0.0.1:9/auth/v1", auth_issuer="http://127.0.0.1:9/auth/v1")
    real = Sessions(settings.auth_url, settings.auth_issuer, Accounts(settings.secret))
    engines = {"mesh": MeshEngine()}
    apps = [
        create_gateway(settings, Broken(Policy()), Anyone()),  # type: ignore[arg-type]
        create_gateway(settings, Broken(Policy()), real),
        create_image_swap(settings, Broken(Policy()), Anyone(), engines, gate=None),  # type: ignore[arg-type]
    ]
    picture = io.BytesIO()
    Image.new("RGB", (64, 64)).save(picture, "PNG")
    token = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImEifQ.eyJlbWFpbCI6IkNBTkFSWSJ9.CANARY-c2f1"
    for app in apps:
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # raises what an application lets through
        async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
            for bearer in (CANARY, token):
                headers = {"Authorization": f"Bearer {bearer}", "X-Note": CANARY, "Ticket": CANARY, "Grant": CANARY}
                for method, path in (
                    ("GET", "/v1/quota"), ("GET", f"/v1/tickets/{CANARY}"), ("GET", f"/{CANARY}"),
                    ("DELETE", f"/v1/tickets/{CANARY}"), ("POST", f"/v1/tickets/{CANARY}/swap"),
                ):  # fmt: skip
                    answer = await client.request(method, f"{path}?email={EMAIL}", headers=headers)
                    assert CANARY not in answer.text
                await client.post("/v1/tickets", json={"consent": EMAIL, "kind": CANARY}, headers=headers)
                for data in (picture.getvalue(), picture.getvalue()[:50] + CANARY.encode(), CANARY.encode()):
                    files = {"target": (f"{CANARY}.png", data, f"image/{CANARY}")}
                    answer = await client.post("/v1/faces", files=files, headers=headers, data={"engine": CANARY})
                    assert CANARY not in answer.text
    await real.close()
    assert "unforeseen RuntimeError at test_logs.py:" in written.text
    assert CANARY not in written.text


async def test_an_unforeseen_exception_goes_no_further_than_the_application() -> None:
    app = create_gateway(SETTINGS, Broken(Policy()), Anyone())  # type: ignore[arg-type]
    transport = httpx.ASGITransport(app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://t") as client:
        answer = await client.get("/v1/quota", headers={"Authorization": "Bearer ann"})
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert answer.headers["content-security-policy"]
