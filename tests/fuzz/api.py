"""Requests made from the OpenAPI document, good ones and bad ones, against everything that answers HTTP.

Schemathesis draws them and holds each answer against the document: no server error, a documented status, the documented
content type and body, and nothing accepted that the document forbids. Ids of real tickets are mixed in: an invented one
is never found, and would test only that.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.clips import make, portrait
from tests.corpus import CORPUS
from tests.fuzz.service import Running, running
from tests.fuzz.tally import Tally
from tests.serve.conftest import jpeg

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
#: Deletes what is kept of the account, and with it the worth of every token that it has.
ERASING = "/v1/account"
TICKET = {"bytes": 400_000, "width": 512, "height": 600, "consent": "likeness-3"}
_FACE = jpeg(portrait("hopper"))
MEDIA = {
    "image": {"source": _FACE, "target": _FACE},
    "video": {"source": _FACE, "target": make(replace(CORPUS["constant rate"], frames=1))},
}


def api(budget: Tally, number: int) -> None:
    """Draw from each operation in turn, good and bad, until the budget is spent. ``number`` seeds the draw."""
    document = json.loads(resources.files("nanoswap.serve").joinpath("openapi.json").read_bytes())
    schema = schemathesis.openapi.from_dict(document)
    with running() as service, requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {service.sign_in()}"
        operations = [result.ok() for result in schema.get_all_operations()]
        while not budget.spent:
            for operation in operations:
                for mode in GenerationMode:
                    if not budget.spent:
                        number += 1
                        _draw(operation, mode, service, session, budget, number)


def _draw(operation: Any, mode: Any, service: Running, session: requests.Session, budget: Tally, number: int) -> None:
    positive, swap = mode == GenerationMode.POSITIVE, operation.path.endswith("/swap")
    kind = "video" if operation.path.startswith("/video") else "image"
    person = Person(service, session)

    @seed(number)
    @settings(
        max_examples=5 if swap else 10, deadline=None, database=None, phases=[Phase.generate], print_blob=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode), whole=st.booleans())
    def one(case: Any, whole: bool) -> None:
        if budget.spent:
            return
        with person.ticket(kind, granted=swap and positive, ended=operation.path.endswith("/events")) as ticket:
            if positive and "ticket_id" in case.path_parameters:
                case.path_parameters["ticket_id"] = ticket["id"]
            if positive and swap:
                case.headers["grant"] = ticket["grant"]
            if positive and whole and isinstance(case.body, dict):
                case.body |= {name: MEDIA[kind][name] for name in ("source", "target") if name in case.body}
            with budget.execution(f"{operation.label} {mode.value}"):
                response = case.call(base_url=service.url, session=session, timeout=40)
                try:
                    case.validate_response(response, checks=CHECKS)
                except (Failure, FailureGroup) as failure:
                    raise Unexpected(_words(failure, response)) from None
                finally:
                    if operation.path == ERASING:
                        # Its own token is refused from now on, as it should be, and any other of this second.
                        time.sleep(1.0 - time.time() % 1.0)
                        session.headers["Authorization"] = f"Bearer {service.sign_in()}"

    # An operation without parameters has no bad ones.
    with suppress(Unsatisfiable):
        one()


class Unexpected(AssertionError):
    """An answer that the document doesn't promise."""


def _words(failure: Failure | FailureGroup, response: Any) -> str:
    found = failure.exceptions if isinstance(failure, FailureGroup) else [failure]
    reasons = "; ".join(f"{type(one).__name__}: {one.message}"[:300] for one in found)
    return f"{response.status_code} {reasons}"


@dataclass(frozen=True, slots=True)
class Person:
    """The demo account, which takes places in line."""

    service: Running
    session: requests.Session

    @contextmanager
    def ticket(self, kind: str, *, granted: bool, ended: bool) -> Iterator[dict[str, Any]]:
        """A place that is waiting, granted or has ended; given up behind the block."""
        with httpx.Client(base_url=self.service.url) as http:
            made = self._joined(http, kind)
            path = f"/v1/tickets/{made['id']}"
            try:
                while granted and made["grant"] is None:
                    time.sleep(0.05)
                    made = http.get(path).raise_for_status().json()
                if ended:
                    http.delete(path)
                yield made
            finally:
                http.delete(path)

    def _joined(self, http: httpx.Client, kind: str) -> dict[str, Any]:
        """A ticket. One of the operations erases the account, and with it every session until then."""
        for _ in range(5):
            http.headers["Authorization"] = str(self.session.headers["Authorization"])
            answer = http.post("/v1/tickets", json=TICKET | {"kind": kind})
            if answer.status_code != 401:
                break
            # Times of issue are whole seconds.
            time.sleep(1.0)
            self.session.headers["Authorization"] = f"Bearer {self.service.sign_in()}"
        return dict(answer.raise_for_status().json())
