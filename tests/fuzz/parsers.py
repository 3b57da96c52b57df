"""The parsers that were written here, under atheris (libFuzzer with Python's branches as coverage).

``python -m tests.fuzz.parsers TARGET SECONDS SEED``: ends with 0, or where libFuzzer stops at a crash, with its code.
Each target takes any bytes and may raise what its own docstring says and nothing else.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import suppress

import atheris

with atheris.instrument_imports(include=["nanoswap"]):
    from nanoswap.pipelines.clip_container import check_whole, sniff_clip
    from nanoswap.pipelines.container import sniff, survey
    from nanoswap.pipelines.errors import PipelineError
    from nanoswap.queue.seal import Seal, SealError
    from nanoswap.queue.session import InvalidSession, _read
    from nanoswap.serve.client_address import PEER_HEADER, client_address
    from nanoswap.serve.options import clip_options, swap_options
    from nanoswap.serve.problems import Problem
    from nanoswap.serve.upload import check_head, read_upload
from starlette.requests import Request

_MAGIC = (
    b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"RIFF\x40\0\0\0WEBPVP8X", b"\0\0\0\x18ftypavif\0\0\0\0avif",
    b"\0\0\0\x18ftypheic\0\0\0\0heic", b"\0\0\0\x18ftypisom\0\0\0\0isom", b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67",
)  # fmt: skip


def container(data: bytes) -> None:
    """Pictures and clips by their outside."""
    whole = _MAGIC[data[0] % len(_MAGIC)] + data[1:] if data and data[0] < 0xE0 else data
    try:
        if (form := sniff(whole)) is not None:
            survey(whole, form)
        if (clip := sniff_clip(whole)) is not None:
            check_whole(whole, clip)
    except PipelineError:
        return


def upload(data: bytes) -> None:
    """A multipart body in chunks."""
    step, body = 1 + (data[0] if data else 0), b"--b\r\n" + data[1:]
    chunks = [body[at : at + step] for at in range(0, len(body), step)] or [b""]

    async def receive() -> dict[str, object]:
        part = chunks.pop(0)
        return {"type": "http.request", "body": part, "more_body": bool(chunks)}

    headers = [(b"content-type", b"multipart/form-data; boundary=b"), (b"content-length", str(len(body)).encode())]
    request = Request({"type": "http", "method": "POST", "headers": headers}, receive)  # type: ignore[arg-type]

    async def read() -> None:
        check_head(request)
        files = {"source": 4096, "target": 4096}
        (await read_upload(request, files=files, fields=("faces",), declared_bytes=9000, seconds=5.0)).wipe()

    try:
        asyncio.run(read())
    except Problem:
        return


def boundary(data: bytes) -> None:
    """The headers of a body."""
    kind, _, length = data.partition(b"\n")
    request = Request({"type": "http", "headers": [(b"content-type", kind), (b"content-length", length)]})
    try:
        check_head(request)
    except Problem:
        return


def options(data: bytes) -> None:
    """The fields of a form, as ``name=value`` lines."""
    lines = [line.partition(b"=") for line in data.split(b"\n")]
    fields = {name.decode("utf-8", "replace"): value.decode("utf-8", "replace") for name, _, value in lines}
    for read in (swap_options, clip_options):
        try:
            read(fields)  # type: ignore[operator]
        except Problem:
            continue


def token(data: bytes) -> None:
    """A session's token before its signature is looked at, and a sealed ticket."""
    text = data.decode("latin-1")
    with suppress(InvalidSession):
        _read(text)
    try:
        Seal(bytes(32)).unseal(text)
    except SealError:
        return


def address(data: bytes) -> None:
    """The headers that say where a request comes from."""
    peer, _, passed = data.partition(b"\n")
    scope = {"type": "http", "client": None, "headers": [(PEER_HEADER.encode(), peer), (b"x-forwarded-for", passed)]}
    assert client_address(scope, data[0] % 3 if data else 0)


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (container, upload, boundary, options, token, address)
}


def main() -> None:
    name, seconds, number = sys.argv[1:]
    words = [sys.argv[0], f"-max_total_time={seconds}", f"-seed={number}", "-max_len=4096", "-timeout=60"]
    # An artefact of a crash goes nowhere: libFuzzer prints it as base64.
    atheris.Setup(
        [*words, "-print_final_stats=1", "-rss_limit_mb=2048", "-exact_artifact_path=/dev/null"], TARGETS[name]
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
