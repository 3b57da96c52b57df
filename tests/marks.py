"""A certificate of the development service, and the signing library's own reader: a stranger's look at a result."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from io import BytesIO
from typing import Any

from c2pa import Context, Reader, Settings

from nanoswap.pipelines.provenance import Signer
from nanoswap.serve.development_certificate import development_certificate

CHAIN, KEY = development_certificate(datetime.now(UTC) - timedelta(minutes=1))
#: The authority, as a reader that trusts it would be given it.
ANCHOR = CHAIN[CHAIN.index(b"-----BEGIN", 1) :]


@cache
def signer() -> Signer:
    return Signer(CHAIN, KEY)


@dataclass(frozen=True, slots=True)
class Seen:
    """state: Trusted, Valid or Invalid; codes: of what was found, good and bad; store: everything that it can say."""

    state: str
    codes: frozenset[str]
    store: dict[str, Any]

    @property
    def manifest(self) -> dict[str, Any]:
        return self.store["manifests"][self.store["active_manifest"]]


def seen(media_type: str, data: bytes | bytearray, *, trusting: bool = True) -> Seen:
    """Raises `C2paError` where there is no manifest."""
    settings: dict[str, Any] = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}
    if trusting:
        settings["trust"] = {"trust_anchors": ANCHOR.decode()}
    with Context(Settings.from_dict(settings)) as context, Reader(media_type, BytesIO(data), context=context) as reader:
        store = json.loads(reader.detailed_json())
        state = str(reader.get_validation_state())
    found = store["validation_results"]["activeManifest"]
    codes = frozenset(one["code"] for kind in ("success", "informational", "failure") for one in found[kind])
    return Seen(state, codes, store)
