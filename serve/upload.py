"""A multipart body, streamed part by part into memory that one object owns and wipes.

``UploadFile`` and ``request.form()`` write parts above 1 MiB to a temporary file, so neither is used.
python-multipart's push parser calls back with slices of each chunk; they go straight into one ``bytearray`` per part,
sized by the part as it arrives. Limits hold while reading: a body is refused at the byte that breaks one.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from types import TracebackType
from typing import Self

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from nanoswap.serve.problems import Problem

#: A form field (not a file) may be this long; the longest is a list of face ids.
MAX_FIELD_BYTES = 4096
MAX_PARTS = 8
MAX_HEADER_BYTES = 4096
#: A body of a petabyte is a lie, and Python refuses to read a number of thousands of digits.
MAX_LENGTH_DIGITS = 15
#: What boundaries and part headers may add to the declared bytes of the files.
ENVELOPE_BYTES = 8192


class Upload:
    """The parts of one multipart body. Leaving the ``with`` block overwrites every byte of them with zeros."""

    def __init__(self) -> None:
        self.files: dict[str, bytearray] = {}
        self.fields: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def wipe(self) -> None:
        """Zero and release every file. A buffer that something still views is zeroed and left to its last holder."""
        for data in self.files.values():
            wipe(data)
        self.files.clear()
        self.fields.clear()

    def file(self, name: str) -> bytearray:
        """The file part called ``name``; raises Problem ``bad_request`` when it is missing or empty."""
        data = self.files.get(name)
        if data is None:
            raise Problem("bad_request", f"The part '{name}' is missing.", part=name)
        return data


def wipe(data: bytearray) -> None:
    """Overwrite a buffer with zeros, then give its memory back where nothing views it any more."""
    data[:] = bytes(len(data))
    try:
        data.clear()
    except BufferError:
        return


class _Parts:
    """The parser's callbacks: collects the part at hand and files it when it ends."""

    def __init__(self, upload: Upload, files: Mapping[str, int], fields: Collection[str]) -> None:
        self._upload = upload
        self._files = files
        self._fields = fields
        self._header = self._value = b""
        self._disposition: bytes = b""
        self._name = ""
        self._is_file = False
        self._data = bytearray()
        self._count = 0
        self.finished = False

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header,
            "on_headers_finished": self._open,
            "on_part_data": self._extend,
            "on_part_end": self._close,
            "on_end": self._end,
        }

    def _begin(self) -> None:
        self._count += 1
        if self._count > MAX_PARTS:
            raise Problem("bad_request", f"A body may have at most {MAX_PARTS} parts.")
        self._disposition = b""

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        if len(self._value) > MAX_HEADER_BYTES:
            raise Problem("bad_request", "A part's header is too long.")

    def _on_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value
        self._header = self._value = b""

    def _open(self) -> None:
        kind, options = parse_options_header(self._disposition)
        name = options.get(b"name", b"").decode("ascii", "replace")
        if kind != b"form-data" or (name not in self._files and name not in self._fields):
            raise Problem("bad_request", "The body has a part that this address doesn't take.")
        if name in self._upload.files or name in self._upload.fields:
            raise Problem("bad_request", "The body has the same part twice.", part=name)
        self._name = name
        # The file name itself is never kept: nothing needs it and it can identify a person.
        self._is_file = name in self._files
        self._data = bytearray()
        if self._is_file:
            self._upload.files[name] = self._data

    def _extend(self, data: bytes, start: int, end: int) -> None:
        limit = self._files[self._name] if self._is_file else MAX_FIELD_BYTES
        if len(self._data) + end - start > limit:
            raise Problem("too_large" if self._is_file else "bad_request", f"At most {limit} bytes.", part=self._name)
        self._data += memoryview(data)[start:end]

    def _close(self) -> None:
        if not self._is_file:
            self._upload.fields[self._name] = self._data.decode("utf-8", "replace")

    def _end(self) -> None:
        self.finished = True


def check_head(request: Request) -> None:
    """Refuse by its headers a body that can't be read at all, before a turn is spent on it.

    Raises Problem: ``unsupported`` (not multipart), ``length_required``.
    """
    _boundary(request.headers)
    stated = request.headers.get("content-length", "")
    if not stated.isdecimal() or len(stated) > MAX_LENGTH_DIGITS:
        # The server under us reads a body as fast as it comes; only a stated length bounds what it may hold.
        raise Problem("length_required")


async def read_upload(
    request: Request,
    *,
    files: Mapping[str, int],
    fields: Collection[str] = (),
    declared_bytes: int,
    seconds: float,
    arrived: Callable[[int, int], None] = lambda _, __: None,
) -> Upload:
    """Read a multipart body into memory.

    ``files``: the file parts that the address takes, each with its limit in bytes. ``fields``: the other parts.
    ``declared_bytes``: sum of the files as the ticket said. ``seconds``: time for the whole body. ``arrived`` is told
    how many bytes of how many have come.

    Call ``check_head`` first. Raises Problem: ``larger_than_declared``, ``too_large``, ``too_slow``, ``incomplete``,
    ``bad_request``. Nothing of the body outlives a raised error.
    """
    boundary = _boundary(request.headers)
    total, received = int(request.headers["content-length"]), 0
    if total > declared_bytes + ENVELOPE_BYTES:
        raise Problem("larger_than_declared", f"{declared_bytes} bytes were declared.")
    upload = Upload()
    parts = _Parts(upload, files, fields)
    try:
        parser = MultipartParser(boundary, parts.callbacks())  # type: ignore[arg-type]
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                parser.write(chunk)
                received += len(chunk)
                arrived(received, total)
        if not parts.finished:
            raise Problem("incomplete")
        if sum(map(len, upload.files.values())) > declared_bytes:
            raise Problem("larger_than_declared", f"{declared_bytes} bytes were declared.")
    except BaseException as error:
        upload.wipe()
        if isinstance(error, TimeoutError):
            raise Problem("too_slow", f"A body must arrive within {seconds:g} s.") from None
        if isinstance(error, ClientDisconnect):
            raise Problem("incomplete") from None
        if isinstance(error, MultipartParseError):
            raise Problem("bad_request", "The multipart body is malformed.") from None
        raise
    return upload


def _boundary(headers: Mapping[str, str]) -> bytes:
    kind, options = parse_options_header(headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise Problem("unsupported", "The body must be multipart/form-data.")
    return boundary
