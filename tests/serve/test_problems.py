"""Every error is a problem+json, and none repeats what came in."""

import asyncio

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel

from nanoswap.pipelines import errors as pixels
from nanoswap.serve import problems
from nanoswap.serve.problems import CODES, Problem


class Body(BaseModel):
    number: int


def application() -> FastAPI:
    app = FastAPI()
    problems.install(app)

    @app.post("/body")
    async def body(body: Body) -> int:
        return body.number

    @app.get("/quota")
    async def quota() -> None:
        raise Problem("quota", "Later.", retry_after=0.2)

    @app.get("/faces")
    async def faces() -> None:
        raise pixels.NoFace("target")

    return app


def call(method: str, path: str, **request: object) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(application(), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.request(method, path, **request)  # type: ignore[arg-type]

    return asyncio.run(run())


def test_retry_after_is_whole_seconds_and_never_zero() -> None:
    answer = call("GET", "/quota")
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert answer.json() == {
        "type": "/problems#quota",
        "title": CODES["quota"][1],
        "status": 429,
        "code": "quota",
        "detail": "Later.",
        "retry_after": 1,
    }
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(("seconds", "whole"), [(None, None), (0.0, 1), (1.0, 1), (1.001, 2), (59.5, 60)])
def test_waits_round_up(seconds: float | None, whole: int | None) -> None:
    assert Problem("quota", retry_after=seconds).wait == whole


def test_validation_names_the_field_and_not_the_value() -> None:
    answer = call("POST", "/body", json={"number": "secret-value"})
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_request")
    assert "number" in answer.json()["detail"]
    assert "secret-value" not in answer.text


def test_frameworks_own_errors_are_problems_too() -> None:
    assert call("GET", "/nowhere").json()["code"] == "not_found"
    assert call("GET", "/body").json()["code"] == "method_not_allowed"


def test_pipeline_errors_say_which_picture() -> None:
    answer = call("GET", "/faces").json()
    assert (answer["code"], answer["part"]) == ("no_face", "target")


def test_every_pipeline_error_has_a_code() -> None:
    def below(kind: type[Exception]) -> set[type[Exception]]:
        return {kind}.union(*(below(child) for child in kind.__subclasses__()))

    for kind in below(pixels.PipelineError) - {pixels.PipelineError}:
        assert kind.code in CODES  # type: ignore[attr-defined]
