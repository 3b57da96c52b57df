"""The committed OpenAPI document is the code's."""

import json
from importlib import resources

from nanoswap.serve.problems import CODES
from nanoswap.serve.schema import document


def test_committed_document_is_up_to_date() -> None:
    committed = json.loads(resources.files("nanoswap.serve").joinpath("openapi.json").read_text())
    assert committed == json.loads(json.dumps(document())), (
        "the API changed: look at the difference, then 'python -m nanoswap.serve.schema > serve/openapi.json'"
    )


def test_document_lists_every_code_and_protects_every_private_path() -> None:
    made = document()
    assert made["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == list(CODES)
    for path, item in made["paths"].items():
        public = path in ("/v1/config", "/v1/models", "/v1/queue", "/v1/verify", "/healthz", "/readyz")
        for operation in item.values():
            assert ("security" in operation) is not public, path
