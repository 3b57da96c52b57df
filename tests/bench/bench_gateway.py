"""The gateway under many people: ticket creation with a verified ES256 session, and open event streams.

One gateway process (uvicorn, the same ASGI application that the deployment serves) with a real Redis and the real
verifier against a local issuer; the load comes from this process, so both share the machine's cores.
Usage: ``python tests/bench/bench_gateway.py [streams]`` (default 5000).
"""

import asyncio
import os
import resource
import subprocess
import sys
import time
import uuid
from contextlib import suppress

import httpx

from nanoswap.queue.issuer import DEMO_EMAIL, DEMO_PASSWORD
from nanoswap.queue.redis_server import RedisServer
from nanoswap.serve.issuer_process import issuer_process
from nanoswap.serve.local import free_port
from nanoswap.serve.settings import new_secret

TICKETS = 400
SERVER = """
import asyncio, os, uvicorn
from nanoswap.queue.room import Policy
from nanoswap.queue.redis_room import RedisRoom
from nanoswap.serve.app import _sessions
from nanoswap.serve.gateway import create_gateway
from nanoswap.serve.settings import Settings
settings = Settings.from_environment(os.environ)
policy = Policy(max_tickets_per_account=10**9, horizon=1e12)
app = create_gateway(settings, RedisRoom(settings.redis_url, policy), _sessions(settings))
uvicorn.run(app, port=settings.port, log_level="error", loop="asyncio", http="httptools", backlog=8192)
"""


def resident(pid: int) -> int:
    """Resident memory of a process in bytes."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def join(client: httpx.AsyncClient) -> tuple[str, float]:
    body = {"kind": "image", "bytes": 2_000_000, "width": 4000, "height": 3000, "consent": "likeness-3"}
    started = time.perf_counter()
    answer = await client.post("/v1/tickets", json=body, headers={"Idempotency-Key": str(uuid.uuid4())})
    took = time.perf_counter() - started
    return str(answer.raise_for_status().json()["id"]), took


async def stream(port: int, token: str, ticket: str, opened: list[int]) -> None:
    """Open one event stream on a bare socket, count its first event, and keep it open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"GET /v1/tickets/{ticket}/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"
    writer.write(head.encode())
    await reader.readuntil(b"event: ticket")
    opened.append(1)
    try:
        while await reader.read(65536):
            pass
    finally:
        writer.close()


async def measure(port: int, auth_url: str, pid: int, streams: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        body = {"email": DEMO_EMAIL, "password": DEMO_PASSWORD}
        token = (await client.post(f"{auth_url}/token?grant_type=password", json=body)).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        tickets, times = [], []
        for _ in range(TICKETS):
            ticket, took = await join(client)
            tickets.append(ticket)
            times.append(took * 1000)
        bare = []
        for _ in range(TICKETS):
            started = time.perf_counter()
            await client.get("/healthz")
            bare.append((time.perf_counter() - started) * 1000)
        p50, p99 = quantile(times, 0.5), quantile(times, 0.99)
        print(f"ticket creation, one after the other: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
        print(
            f"  same client and server, empty answer: p50 {quantile(bare, 0.5):.1f} ms "
            f"-> {p50 / quantile(bare, 0.5):.1f}x"
        )
        before = resident(pid)
        opened: list[int] = []
        tasks = []
        for number in range(streams):
            tasks.append(asyncio.create_task(stream(port, token, tickets[number % len(tickets)], opened)))
            if number % 100 == 99:
                while len(opened) < number - 200:
                    await asyncio.sleep(0.01)
        deadline = time.monotonic() + 120
        while len(opened) < streams and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        await asyncio.sleep(3)
        grown = resident(pid) - before
        print(f"open event streams held: {len(opened)} of {streams}, {grown / max(1, len(opened)) / 1024:.1f} KiB each")
        started = time.perf_counter()
        await client.get("/v1/queue")
        print(f"  the queue answers in {(time.perf_counter() - started) * 1000:.0f} ms meanwhile")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def main() -> None:
    streams = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * streams + 200)), hard))
    port = free_port()
    with RedisServer() as redis, issuer_process([f"http://127.0.0.1:{port}"]) as auth_url:
        environment = os.environ | {
            "REDIS_URL": redis.url,
            "NANOSWAP_AUTH_URL": auth_url,
            "NANOSWAP_SECRET": new_secret(),
            "NANOSWAP_PORT": str(port),
        }
        server = subprocess.Popen([sys.executable, "-c", SERVER], env=environment)
        try:
            for _ in range(200):
                with suppress(httpx.HTTPError):
                    httpx.get(f"http://127.0.0.1:{port}/healthz")
                    break
                time.sleep(0.1)
            asyncio.run(measure(port, auth_url, server.pid, streams))
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
