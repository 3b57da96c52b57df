"""Multipart into memory: limits hold while reading, nothing is left behind, nothing goes to a file."""

import asyncio
import io
import tempfile
from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import FastAPI, Request

from nanoswap.serve import problems
from nanoswap.serve.upload import MAX_PARTS, Upload, check_head, read_upload, wipe

FILES = {"source": 600, "target": 600}


def application(seen: list[Upload], *, declared: int = 1000, seconds: float = 5.0) -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.post("/")
    async def receive(request: Request) -> dict[str, object]:
        check_head(request)
        upload = await read_upload(request, files=FILES, fields=("faces",), declared_bytes=declared, seconds=seconds)
        seen.append(upload)
        sizes = {name: len(data) for name, data in upload.files.items()}
        return {"files": sizes, "fields": dict(upload.fields)}

    return app


def client(app: FastAPI) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test")


async def post(app: FastAPI, **request: object) -> httpx.Response:
    async with client(app) as session:
        return await session.post("/", **request)  # type: ignore[arg-type]


async def test_parts_arrive_whole() -> None:
    seen: list[Upload] = []
    files = {"source": ("a.jpg", b"s" * 300), "target": ("b.jpg", bytes(range(256)) * 2)}
    answer = await post(application(seen), files=files, data={"faces": "all"})
    assert answer.json() == {"files": {"source": 300, "target": 512}, "fields": {"faces": "all"}}
    assert bytes(seen[0].files["target"]) == bytes(range(256)) * 2


@pytest.mark.parametrize("size", [1, 7, 64])
async def test_parts_arrive_whole_in_small_pieces(size: int) -> None:
    request = httpx.Request("POST", "http://test/", files={"source": ("x", b"\r\n--boundary" * 20)})
    body = request.read()

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(body), size):
            yield body[start : start + size]

    headers = {"content-type": request.headers["content-type"], "content-length": str(len(body))}
    answer = await post(application([]), content=pieces(), headers=headers)
    assert answer.json()["files"] == {"source": 240}


def test_leaving_the_block_wipes_every_file() -> None:
    upload = Upload()
    data = upload.files["source"] = bytearray(b"face" * 100)
    with memoryview(data) as view, upload:
        assert bytes(view[:4]) == b"face"
    # Still viewed when wiped: zeroed in place.
    assert not any(data)
    assert upload.files == {}


def test_wipe_gives_memory_back() -> None:
    data = bytearray(b"x" * 10)
    wipe(data)
    assert len(data) == 0


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"source": ("a", b"x" * 601)}, "too_large"),
        ({"source": ("a", b"x" * 600), "target": ("b", b"x" * 500)}, "larger_than_declared"),
        ({"other": ("a", b"x")}, "bad_request"),
        ([("source", ("a", b"x")), ("source", ("b", b"y"))], "bad_request"),
        ([(f"p{n}", ("a", b"x")) for n in range(MAX_PARTS + 1)], "bad_request"),
    ],
)
async def test_limits(files: object, code: str) -> None:
    seen: list[Upload] = []
    answer = await post(application(seen), files=files)
    assert answer.json()["code"] == code
    assert answer.headers["content-type"] == "application/problem+json"
    assert seen == []


async def test_content_length_above_declared_is_refused_before_reading() -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"x"

    headers = {"content-type": "multipart/form-data; boundary=b", "content-length": "999999"}
    answer = await post(application([]), content=body(), headers=headers)
    assert answer.status_code == 413
    assert answer.json()["code"] == "larger_than_declared"


async def test_other_bodies_are_unsupported_and_lengthless_ones_refused() -> None:
    assert (await post(application([]), json={})).json()["code"] == "unsupported"

    async def body() -> AsyncIterator[bytes]:
        yield b"--b--"

    answer = await post(application([]), content=body(), headers={"content-type": "multipart/form-data; boundary=b"})
    assert answer.json()["code"] == "length_required"


async def test_malformed_and_cut_bodies() -> None:
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = await post(application([]), content=b"no boundary here", headers=headers)
    assert answer.json()["code"] == "bad_request"
    cut = b'--b\r\nContent-Disposition: form-data; name="source"; filename="x"\r\n\r\nabc'
    assert (await post(application([]), content=cut, headers=headers)).json()["code"] == "incomplete"


async def test_slow_body_is_refused() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"--b\r\n"
        await asyncio.sleep(5)

    headers = {"content-type": "multipart/form-data; boundary=b", "content-length": "100"}
    answer = await post(application([], seconds=0.1), content=body(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (408, "too_slow")


async def test_no_temporary_file_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> io.BytesIO:
        raise AssertionError("a temporary file was made")

    for name in ("SpooledTemporaryFile", "NamedTemporaryFile", "TemporaryFile", "mkstemp"):
        monkeypatch.setattr(tempfile, name, refuse)
    answer = await post(application([], declared=3_000_000), files={"source": ("a", b"x" * 600)})
    assert answer.status_code == 200
