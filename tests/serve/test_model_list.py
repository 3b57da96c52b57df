"""``/v1/models`` and the page ``/verify``: the manifest as it is published, and nothing about this machine."""

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, expect

from nanoswap.pipelines.manifest import Manifest
from nanoswap.queue.memory_room import MemoryRoom
from nanoswap.queue.room import Policy
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.model_list import models
from nanoswap.serve.model_settings import ModelSettings
from nanoswap.serve.settings import Settings
from tests.serve.browser import SHOTS, Visit
from tests.serve.conftest import Service

BUILT_IN = Manifest.read()


def test_says_of_every_engine_what_the_manifest_says() -> None:
    found = models(BUILT_IN, ("inswapper", "mesh"))
    assert [engine.name for engine in found.engines] == list(BUILT_IN.engines)
    assert {engine.name for engine in found.engines if engine.offered} == {"mesh", "inswapper"}
    by_name = {engine.name: engine for engine in found.engines}
    assert by_name["mesh"].models == []
    for name, entry in BUILT_IN.engines.items():
        listed = by_name[name].models
        assert [(one.name, one.required) for one in listed] == [
            *((model, True) for model in entry.needs),
            *((model, False) for model in entry.uses),
        ]
        assert (by_name[name].label, by_name[name].licence) == (entry.label, entry.licence)
    assert [one.name for one in found.gate] == list(BUILT_IN.gate) != []
    for one in (*found.gate, *(one for engine in found.engines for one in engine.models)):
        model = BUILT_IN.models[one.name]
        for field in ("role", "repository", "revision", "file", "sha256", "bytes", "use", "stand_in"):
            assert getattr(one, field) == getattr(model, field), field
        for field in ("name", "title", "commercial"):
            assert getattr(one.licence, field) == getattr(model.licence, field), field


async def ask(settings: Settings, path: str) -> httpx.Response:
    app = create_gateway(settings, MemoryRoom(Policy()), Nobody())  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        return await client.get(path)


class Nobody:
    """Sessions that are not needed: what is asked for here is public."""

    async def close(self) -> None: ...


def settings(**of: Any) -> Settings:
    return Settings(
        redis_url="unix:///none",
        auth_url="https://p.supabase.co/auth/v1",
        auth_issuer="https://p.supabase.co/auth/v1",
        secret=bytes(32),
        models=ModelSettings(**of),
    )


async def test_answer_is_public_kept_for_a_while_and_as_the_document_says(tmp_path: Path) -> None:
    answer = await ask(settings(engines=("mesh", "inswapper"), folder=tmp_path), "/v1/models")
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "public, max-age=300"
    document = json.loads(resources.files("nanoswap.serve").joinpath("openapi.json").read_text())
    operation = document["paths"]["/v1/models"]["get"]
    assert "security" not in operation
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    fits(answer.json(), schema, document["components"]["schemas"])


def fits(value: Any, schema: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Whether a value is what a schema of the document says: as much of JSON Schema as this answer takes."""
    if "$ref" in schema:
        schema = schemas[schema["$ref"].rpartition("/")[2]]
    kinds = {one["type"] for one in schema.get("anyOf", [schema])}
    kind = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", type(None): "null"}[
        type(value)
    ]
    assert kind in kinds, (value, schema)
    if isinstance(value, dict):
        assert set(value) == set(schema["properties"]) == set(schema["required"])
        for name, one in value.items():
            fits(one, schema["properties"][name], schemas)
    if isinstance(value, list):
        for one in value:
            fits(one, schema["items"], schemas)


async def test_nothing_in_it_is_about_this_machine(tmp_path: Path, models: Path) -> None:
    """The same answer wherever the files lie, whatever was recorded, and whichever licences were accepted."""
    (tmp_path / "models.lock").write_text(json.dumps({"xseg_1.onnx": {"sha256": "5" * 64, "bytes": 1}}))
    (tmp_path / "xseg_1.onnx").write_bytes(b"x")
    bare = await ask(settings(engines=("inswapper",), folder=tmp_path / "none"), "/v1/models")
    accepted = frozenset(BUILT_IN.licences)
    full = await ask(settings(engines=("inswapper",), folder=tmp_path, accepted=accepted), "/v1/models")
    assert full.text == bare.text
    moved = await ask(settings(engines=("inswapper",), folder=models, manifest=models / "models.toml"), "/v1/models")
    assert str(tmp_path) not in full.text
    assert str(models) not in moved.text
    listed = moved.json()["engines"]
    assert all(one["stand_in"] for engine in listed for one in engine["models"])
    assert all(one["stand_in"] for one in moved.json()["gate"])


async def test_manifest_is_read_once_when_the_gateway_is_made(models: Path, tmp_path: Path) -> None:
    path = tmp_path / "models.toml"
    path.write_bytes((models / "models.toml").read_bytes())
    app = create_gateway(settings(manifest=path), MemoryRoom(Policy()), Nobody())  # type: ignore[arg-type]
    path.unlink()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://t") as client:
        assert (await client.get("/v1/models")).status_code == 200


async def test_page_about_the_promise_has_the_same_policy_as_the_page() -> None:
    page, verify = await ask(settings(), "/"), await ask(settings(), "/verify")
    assert verify.status_code == 200
    assert verify.headers["content-type"] == "text/html; charset=utf-8"
    assert verify.headers["content-security-policy"] == page.headers["content-security-policy"]
    assert set(verify.headers) == set(page.headers)
    assert 'href="/verify"' in page.text
    assert "<style" not in verify.text
    assert "style=" not in verify.text


@pytest.mark.browser
@pytest.mark.service
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 320])
def test_page_shows_what_is_offered_here(browser: Browser, service: Service, scheme: str, width: int) -> None:
    there = replace(service, url=f"{service.url}/verify")
    person = Visit(browser, there, color_scheme=scheme, viewport={"width": width, "height": 800})
    page = person.page
    try:
        expect(page.locator("#models h3")).to_have_text([BUILT_IN.engines["mesh"].label])
        expect(page.locator("#models")).to_contain_text("This engine uses no weights.")
        expect(page.locator("#models-status")).to_have_text("One engine is offered here.")
        person.axe()
        # As a service with neural engines would answer; one name is hostile.
        hostile = "<img src=x onerror=alert(1)>"
        listed = models(BUILT_IN, ("inswapper", "hyperswap")).model_dump()
        listed["engines"][1]["label"] = hostile
        page.route("**/v1/models", lambda route: route.fulfill(json=listed))
        person.open()
        expect(page.locator("#models h3")).to_have_text([hostile, BUILT_IN.engines["hyperswap"].label])
        assert page.locator("#models img").count() == 0
        for engine in ("inswapper", "hyperswap"):
            table = page.get_by_role("table", name=f"Files of {engine}", exact=True)
            made_of = BUILT_IN.engines[engine].needs + BUILT_IN.engines[engine].uses
            expect(table.get_by_role("row")).to_have_count(1 + len(made_of))
            for model in (BUILT_IN.models[name] for name in made_of):
                row = table.get_by_role("row").filter(has=page.get_by_text(model.file, exact=True))
                expect(row).to_contain_text(model.sha256 or "Not published")
                expect(row).to_contain_text(model.licence.title)
        person.axe()
        wide = page.evaluate("() => document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0
        page.screenshot(path=SHOTS / f"7-verify-{scheme}-{width}.png", full_page=True)
        assert person.wrong == []
        page.route("**/v1/models", lambda route: route.abort())
        person.open()
        expect(page.locator("#models-status")).to_contain_text("can't be read now")
    finally:
        person.close()
