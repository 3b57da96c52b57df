"""The OpenAPI document: the three applications under one roof, written to ``openapi.json`` and compared by a test.

``python -m nanoswap.serve.schema > serve/openapi.json`` writes it anew. It is committed because it is a contract: a
change of the API shows as a diff that somebody has to agree to.
"""

import json
from typing import Any, cast

from nanoswap.pipelines.mp4 import Encoder
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.queue.session import Sessions
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.image_swap import create_image_swap
from nanoswap.serve.problems import CODES, MEDIA_TYPE
from nanoswap.serve.settings import Settings
from nanoswap.serve.video_swap import create_video_swap
from nanoswap.serve.wire import ProblemOut

_DESCRIPTION = (
    "Take a ticket, wait for its grant, upload the portrait and the picture or clip, get the result in the same "
    "response. Both live in volatile memory from the first byte of that request to the last byte of its response."
)
_PUBLIC = {"public", "operators"}
_UPLOADS = {
    "/image/v1/faces": {"target": "The picture, at most as large as /v1/config says."},
    "/image/v1/tickets/{ticket_id}/swap": {
        "source": "The picture with the face to use.",
        "target": "The picture whose faces change.",
        "faces": "all (default), largest, or face ids with commas between.",
        "source_face": "Face id, needed when the source shows several.",
        "engine": "One of the engines that /v1/config lists; default its first.",
        "format": "same (default), jpeg, png, webp or avif.",
        "quality": "1 to 100, default 92.",
        "seed": "0 (default) to 4294967295, for engines that /v1/config calls seeded: the same one, the same picture.",
    },
    "/video/v1/tickets/{ticket_id}/swap": {
        "source": "The picture with the face to use.",
        "target": "The clip whose faces change.",
        "faces": "all (default), largest, or ids of faces of the frame at 'at', with commas between.",
        "at": "Seconds of the clip's own time of the frame that the ids are from; default 'start'.",
        "source_face": "Face id, needed when the source shows several.",
        "engine": "One of the engines of /v1/config that swap clips; default the first of them.",
        "start": "Seconds of the clip's own time at which the result begins, default 0.",
        "end": "Seconds of the clip's own time before which it ends; default its end.",
    },
}


_RESULTS = {
    "/image": ("image/*", "The swapped picture."),
    "/video": (
        "video/mp4",
        "The swapped clip, fragmented MP4, sent while it is made. A response that is cut has failed; length and "
        "SHA-256 of a whole one are in the ticket's result.",
    ),
}


def document() -> dict[str, Any]:
    """The OpenAPI 3.1 document of the whole service."""
    settings = Settings(
        redis_url="unix:///none", auth_url="https://project.supabase.co/auth/v1",
        auth_issuer="https://project.supabase.co/auth/v1", secret=bytes(32),
    )  # fmt: skip
    room = MemoryRoom(Policy())
    sessions = cast("Sessions", None)
    gateway = create_gateway(settings, room, sessions).openapi()
    replicas = {
        "image": create_image_swap(settings, room, sessions, {}, gate=None).openapi(),
        "video": create_video_swap(settings, room, sessions, {}, Encoder(), gate=None).openapi(),
    }
    paths, schemas = dict(gateway["paths"]), dict(gateway["components"]["schemas"])
    for name, replica in replicas.items():
        paths |= {f"/{name}{path}": item for path, item in replica["paths"].items()}
        schemas |= replica["components"]["schemas"]
    problem = ProblemOut.model_json_schema()
    problem["properties"]["code"]["enum"] = list(CODES)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path, item in paths.items():
        for operation in item.values():
            _complete(path, operation)
    return {
        "openapi": "3.1.0",
        "info": gateway["info"] | {"description": _DESCRIPTION},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": dict(sorted((schemas | {"Problem": problem}).items())),
            "securitySchemes": {
                "session": {"type": "http", "scheme": "bearer", "description": "A Supabase access token."}
            },
        },
    }


def _complete(path: str, operation: dict[str, Any]) -> None:
    """Add what FastAPI can't see: the session, the error type, the multipart body and the picture that comes back."""
    operation["responses"].pop("422", None)
    operation["responses"]["default"] = {
        "description": "A problem (RFC 9457); its code is one of the listed ones.",
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if not _PUBLIC & set(operation.get("tags", [])):
        operation["security"] = [{"session": []}]
    if path.endswith("/events"):
        operation["responses"]["200"] = {
            "description": "Snapshots of the ticket.",
            "content": {"text/event-stream": {}},
        }
    if parts := _UPLOADS.get(path):
        files = {"source", "target"}
        fields = {
            name: {"type": "string", "description": text} | ({"format": "binary"} if name in files else {})
            for name, text in parts.items()
        }
        schema = {"type": "object", "properties": fields, "required": sorted(files & set(parts))}
        operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    if result := _RESULTS.get(path.partition("/v1/")[0]) if path.endswith("/swap") else None:
        media, text = result
        operation["responses"]["200"] = {
            "description": text,
            "content": {media: {"schema": {"type": "string", "format": "binary"}}},
        }


def main() -> None:
    print(json.dumps(document(), indent=1, sort_keys=False))


if __name__ == "__main__":
    main()
