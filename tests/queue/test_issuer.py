"""The development issuer: the real verifier believes it, and it exists nowhere but on loopback."""

import asyncio
import os
import signal
import subprocess
import sys
import time

import httpx
import pytest

from nanoswap.queue.account import Accounts
from nanoswap.queue.issuer import DEMO_EMAIL, DEMO_PASSWORD, IssuerRefused, create_issuer, refuse_outside_development
from nanoswap.queue.session import Sessions

URL = "http://127.0.0.1:1/auth/v1"


def client() -> httpx.AsyncClient:
    app = create_issuer(URL, origins=["http://127.0.0.1:8000"])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=URL)


async def sign_in(http: httpx.AsyncClient, password: str = DEMO_PASSWORD) -> httpx.Response:
    return await http.post("/token?grant_type=password", json={"email": DEMO_EMAIL, "password": password})


async def test_sign_in_refresh_user_and_sign_out() -> None:
    async with client() as http:
        first = (await sign_in(http)).json()
        signed = {"Authorization": f"Bearer {first['access_token']}"}
        assert (await http.get("/user", headers=signed)).json()["email"] == DEMO_EMAIL
        second = await http.post("/token?grant_type=refresh_token", json={"refresh_token": first["refresh_token"]})
        assert second.status_code == 200
        reused = await http.post("/token?grant_type=refresh_token", json={"refresh_token": first["refresh_token"]})
        assert reused.status_code == 400
        assert (await http.post("/logout", headers=signed)).status_code == 204
        assert (await http.get("/user", headers=signed)).status_code == 403


@pytest.mark.parametrize("body", [b"", b"[]", b'{"email": 5}', b"\xff"])
async def test_wrong_password_and_bad_bodies_are_refused(body: bytes) -> None:
    async with client() as http:
        assert (await sign_in(http, "wrong")).status_code == 400
        assert (await http.post("/token?grant_type=password", content=body)).status_code == 400
        assert (await http.post("/signup", json={})).status_code == 422


async def test_only_the_page_may_call_it_from_a_browser() -> None:
    async with client() as http:
        page = await http.get("/health", headers={"Origin": "http://127.0.0.1:8000"})
        other = await http.get("/health", headers={"Origin": "https://evil.example"})
    assert page.headers["access-control-allow-origin"] == "http://127.0.0.1:8000"
    assert "access-control-allow-origin" not in other.headers


def test_refuses_beside_a_project_and_outside_loopback() -> None:
    refuse_outside_development("127.0.0.1", {})
    with pytest.raises(IssuerRefused):
        refuse_outside_development("0.0.0.0", {})
    with pytest.raises(IssuerRefused):
        refuse_outside_development("127.0.0.1", {"SUPABASE_URL": "https://p.supabase.co"})


def test_process_serves_the_real_verifier_and_dies_with_its_parent() -> None:
    code = (
        "import sys, time\nfrom nanoswap.serve.issuer_process import issuer_process\n"
        "with issuer_process([]) as url: print(url, flush=True); time.sleep(60)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "SUPABASE_URL"}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        answer = httpx.post(f"{url}/token?grant_type=password", json={"email": DEMO_EMAIL, "password": DEMO_PASSWORD})
        asyncio.run(believed(url, answer.json()["access_token"]))
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/health", timeout=1)
        except httpx.HTTPError:
            return
        time.sleep(0.1)
    raise AssertionError("the issuer outlived its parent")


async def believed(url: str, token: str) -> None:
    sessions = Sessions(url, url, Accounts(b"k" * 32))
    await sessions.confirm(token, await sessions.verify(token))
    await sessions.close()
