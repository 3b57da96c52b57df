"""The pages: a handful of files from ``web/``, read once, served with an entity tag and no build step."""

import hashlib
from collections.abc import Callable, Coroutine, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from string import Template
from typing import Any

from fastapi import FastAPI, Request, Response

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
}
#: Address -> the page there.
PAGES = {
    "/": "index.html",
    "/verify": "verify.html",
    "/privacy": "privacy.html",
    "/abuse": "abuse.html",
    "/security": "security.html",
}


def install(app: FastAPI, words: Mapping[str, str]) -> None:
    """Serve the pages at their addresses and their files below ``/web/``. ``words``: HTML of the ``$names`` in pages.

    Raises KeyError for a name in a page that ``words`` doesn't have.
    """
    files = _read(resources.files("nanoswap.serve").joinpath("web"), "/web/")
    for path in [path for path in files if path.endswith(".html")]:
        media_type, content = files.pop(path)
        filled = Template(content.decode()).substitute(words).encode()
        files |= {address: (media_type, filled) for address, name in PAGES.items() if path == f"/web/{name}"}
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


def _endpoint(media_type: str, content: bytes) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}

    async def endpoint(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=media_type, headers=headers)

    return endpoint
