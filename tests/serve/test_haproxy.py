"""The edge's configuration: what Ray writes, with the doors closed."""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from ray.serve._private.haproxy import BackendConfig, HAProxyApi, HAProxyConfig, ServerConfig
from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE
from ray.serve.config import HTTPOptions

from nanoswap.serve.client_address import PEER_HEADER
from nanoswap.serve.haproxy import (
    AWAY_SECONDS,
    EDGE,
    STRIPPED_HEADERS,
    TemplateChanged,
    edge_environment,
    find_binary,
    harden,
)
from nanoswap.serve.headers import STATIC
from nanoswap.serve.local import free_port, ray_environment
from nanoswap.serve.problems import MEDIA_TYPE, Problem
from nanoswap.serve.volatility import FREED_MEMORY
from tests.serve.conftest import wait_until

GENERATED = """frontend prometheus
    bind :9101
    mode http
frontend http_frontend
    bind 127.0.0.1:8000
    log global
listen stats
  bind *:8404
  stats enable
"""


def test_inner_listeners_move_to_loopback() -> None:
    hardened = harden(GENERATED)
    assert "bind 127.0.0.1:9101" in hardened
    assert "bind 127.0.0.1:8404" in hardened
    assert "*:" not in hardened
    assert "bind :" not in hardened


def test_outer_listener_stays_and_strips_control_headers() -> None:
    lines = harden(GENERATED).splitlines()
    start = lines.index("    bind 127.0.0.1:8000")
    assert lines[start + 1 : start + 3] == [f"    http-request del-header {name}" for name in STRIPPED_HEADERS]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("frontend http_frontend", "frontend http_front", "0 frontends"),
        ("    bind 127.0.0.1:8000", "    mode http\n    bind 127.0.0.1:8000", "0 frontends"),
        ("listen stats", "frontend http_frontend\n    bind 127.0.0.1:8001\nlisten stats", "2 frontends"),
        ("bind *:8404", "bind 0.0.0.0:8404", "a listener"),
        ("bind :9101", "bind [::]:9101", "a listener"),
        ("stats enable", "option  httplog", "logged"),
        ("stats enable", "log stdout format raw local0 info", "logged"),
        ("stats enable", "default-server backup", "Ray's proxy"),
    ],
)
def test_a_template_that_is_not_known_is_not_served(before: str, after: str, said: str) -> None:
    with pytest.raises(TemplateChanged, match=said):
        harden(GENERATED.replace(before, after))


def test_an_edge_that_could_not_be_closed_does_not_start(tmp_path: Path) -> None:
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text("frontend other\n")
    environment = os.environ | edge_environment() | {"NANOSWAP_EDGE_BINARY": "/bin/true"}
    made = subprocess.run([EDGE, "-f", configuration], env=environment, capture_output=True, text=True)
    assert made.returncode == 1
    assert made.stderr == "the edge doesn't start: 0 frontends of the expected form, where there must be one\n"


def test_a_chosen_public_address_is_not_touched() -> None:
    assert "bind 0.0.0.0:8000" in harden(GENERATED.replace("127.0.0.1:8000", "0.0.0.0:8000"))


def test_template_of_the_installed_ray_has_no_other_open_bind() -> None:
    # A later Ray that adds a listener must be looked at before it is served.
    binds = {line.strip() for line in HAPROXY_CONFIG_TEMPLATE.splitlines() if line.strip().startswith("bind ")}
    assert binds == {
        "bind :{{ config.metrics_port }}",
        "bind {{ config.frontend_host }}:{{ config.frontend_port }}",
        "bind {{ config.grpc_frontend_host }}:{{ config.grpc_frontend_port }} proto h2",
        "bind *:{{ config.stats_port }}",
    }


def test_what_ray_starts_hardens_the_configuration_and_becomes_the_real_binary(tmp_path: Path) -> None:
    configuration = tmp_path / "haproxy.cfg"
    configuration.write_text(GENERATED)
    binary = tmp_path / "binary"
    binary.write_text('#!/bin/sh\necho "$@"\ngrep core /proc/self/limits\nenv\n')
    binary.chmod(0o700)
    told = edge_environment()
    assert told["NANOSWAP_EDGE_BINARY"] == find_binary()
    # As inside Ray, where the variable is set: a look-up would find the stand-in again.
    environment = os.environ | told | {"NANOSWAP_EDGE_BINARY": str(binary)}
    command = [told["RAY_SERVE_HAPROXY_BINARY_PATH"], "-f", str(configuration), "-db"]
    said = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()
    assert said[0] == f"-dMno-cache -f {configuration} -db"
    if sys.platform == "linux":
        assert said[1].split()[4:6] == ["1", "1"]
    for name, value in FREED_MEMORY.items():
        assert f"{name}={value}" in said
    assert configuration.read_text() == harden(GENERATED)


def test_nothing_in_the_scratch_has_to_be_executed(tmp_path: Path) -> None:
    # Docker mounts /dev/shm noexec.
    told = ray_environment(tmp_path, 1000.0, 22_000)
    assert not [path for path in tmp_path.rglob("*") if path.stat().st_mode & 0o111]
    assert not Path(told["RAY_SERVE_HAPROXY_BINARY_PATH"]).is_relative_to(tmp_path)


def test_answers_of_the_edge_itself_have_the_security_headers(tmp_path: Path) -> None:
    port = free_port()
    timeouts = "".join(f"    timeout {name} 5s\n" for name in ("client", "connect", "server"))
    plain = f"defaults\n    mode http\n{timeouts}frontend http_frontend\n    bind 127.0.0.1:{port}\n"
    path = tmp_path / "haproxy.cfg"
    path.write_text(harden(plain))
    with _edge(path):
        for _ in range(200):
            with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), 5) as line:
                line.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
                answer = b""
                while part := line.recv(65536):
                    answer += part
                    if b"</html>" in answer:
                        break
                break
            time.sleep(0.05)
    head, _, _ = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first.split()[1] == "503", "there is no replica behind it"
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    for name, value in STATIC.items():
        assert headers[name.lower()] == value
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"


def test_no_request_is_logged_and_the_edge_says_who_asks() -> None:
    written = HAPROXY_CONFIG_TEMPLATE.replace("{{ config.log_target }}", "127.0.0.1:514")
    written = written.replace("{{ config.frontend_host }}:{{ config.frontend_port }}", "127.0.0.1:8000")
    # Not asked for, so not written; it would be refused.
    written = written.replace("bind {{ config.grpc_frontend_host }}:", "bind 127.0.0.1:")
    hardened = harden(re.sub(r"\{\{ config\.\w+_port }}", "9000", written))
    assert "local0" not in hardened
    assert "httplog" not in hardened
    # A later Ray that logs in another place must be looked at.
    assert {line.strip() for line in hardened.splitlines() if line.strip().startswith(("log ", "log-format"))} == {
        "log global",
        'log-format "%ST"',
        "log {{ metrics_socket_path }} len 8192 format rfc5424 local1 debug",
    } | {line.strip() for line in HAPROXY_CONFIG_TEMPLATE.splitlines() if line.strip().startswith("log-format-sd")}
    assert f"    http-request set-header {PEER_HEADER} %[src]" in hardened.splitlines()


def test_a_real_edge_overwrites_what_a_client_says_of_itself(tmp_path: Path) -> None:
    """What the application behind it is told, for a client that sends the header and another's address."""
    port, behind = free_port(), free_port()
    seen: list[list[str]] = []
    text = f"""global
    log 127.0.0.1:514 local0 info
    stats socket {tmp_path}/s
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    log global
    option httplog
frontend http_frontend
    bind 127.0.0.1:{port}
    default_backend one
backend one
    server one 127.0.0.1:{behind}
"""
    file = tmp_path / "haproxy.cfg"
    file.write_text(harden(text))
    with _behind(behind, seen), _edge(file):
        forged = {PEER_HEADER: "1.2.3.4", "X-Forwarded-For": "5.6.7.8"}
        wait_until(lambda: _answer(f"http://127.0.0.1:{port}/", headers=forged).status_code == 204)
    assert seen == [["127.0.0.1", "5.6.7.8"]]


def test_a_body_never_goes_through_rays_own_proxy(tmp_path: Path) -> None:
    """No replica is up: what Ray writes for that sends the body to a proxy that puts it into the object store."""
    port, proxy, none = free_port(), free_port(), free_port()
    backend = BackendConfig(
        name="http-image",
        app_name="image",
        path_prefix="/image",
        servers=[ServerConfig("replica", "127.0.0.1", none)],
        fallback_server=ServerConfig("proxy", "127.0.0.1", proxy),
    )
    settings = HAProxyConfig(
        socket_path=str(tmp_path / "s"),
        metrics_port=free_port(),
        stats_port=free_port(),
        http_options=HTTPOptions(host="127.0.0.1", port=port),
        has_received_routes=True,
        has_received_servers=True,
    )
    file = tmp_path / "haproxy.cfg"
    HAProxyApi(settings, {backend.name: backend}, str(file))._generate_config_file_internal()
    assert f"server proxy 127.0.0.1:{proxy}" in file.read_text()
    file.write_text(harden(file.read_text()))
    seen: list[list[str]] = []
    with _behind(proxy, seen), _edge(file):
        url = f"http://127.0.0.1:{port}/image/v1/swaps/1"
        wait_until(lambda: _answer(url, method="POST", content=b"a face").status_code == 503)
        # Long enough for a health check to find the proxy.
        time.sleep(1.5)
        answer = _answer(url, method="POST", content=b"a face")
    assert seen == []
    assert answer.status_code == 503
    assert answer.json() == Problem("unavailable", retry_after=AWAY_SECONDS).body()
    assert answer.headers["Content-Type"] == MEDIA_TYPE
    assert answer.headers["Retry-After"] == str(AWAY_SECONDS)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@contextmanager
def _behind(port: int, seen: list[list[str]]) -> Iterator[None]:
    class Behind(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append([*(self.headers.get_all(PEER_HEADER) or []), *(self.headers.get_all("X-Forwarded-For") or [])])
            self.send_response(204)
            self.end_headers()

        do_POST = do_GET

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", port), Behind) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _edge(file: Path) -> Iterator[None]:
    edge = subprocess.Popen([find_binary(), "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        edge.terminate()
        edge.wait(10)


def _answer(url: str, method: str = "GET", **request: Any) -> httpx.Response:
    with suppress(httpx.HTTPError):
        return httpx.request(method, url, timeout=20.0, **request)
    return httpx.Response(0)
