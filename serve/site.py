"""The pages: a handful of files from ``web/``, read once, served with an entity tag and no build step."""

import hashlib
from importlib import resources
from importlib.resources.abc import Traversable

from fastapi import FastAPI, Request, Response

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}


def install(app: FastAPI) -> None:
    """Serve the page at ``/``, the one about the promise at ``/verify``, and their files below ``/web/``."""
    files = _read(resources.files("nanoswap.serve").joinpath("web"), "/web/")
    files["/"] = files["/web/index.html"]
    files["/verify"] = files["/web/verify.html"]
    for path, (media_type, content) in files.items():
        app.add_api_route(path, _endpoint(media_type, content), methods=["GET"], include_in_schema=False)


def _read(folder: Traversable, prefix: str) -> dict[str, tuple[str, bytes]]:
    """Path -> (media type, content) of every file that a browser may ask for."""
    found: dict[str, tuple[str, bytes]] = {}
    for item in folder.iterdir():
        if item.is_dir():
            found |= _read(item, f"{prefix}{item.name}/")
        elif (media_type := _TYPES.get(item.name[item.name.rfind(".") :])) is not None:
            found[prefix + item.name] = (media_type, item.read_bytes())
    return found


def _endpoint(media_type: str, content: bytes):  # type: ignore[no-untyped-def]
    tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}

    async def endpoint(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return endpoint
