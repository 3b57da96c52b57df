"""The edge's configuration: what Ray writes, with the doors closed."""

import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from nanoswap.serve.haproxy import STRIPPED_HEADERS, find_binary, harden, write_wrapper
from nanoswap.serve.headers import STATIC
from nanoswap.serve.local import free_port

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


def test_wrapper_is_executable_and_names_the_real_binary(tmp_path: Path) -> None:
    wrapper = write_wrapper(tmp_path)
    assert wrapper.stat().st_mode & 0o100
    assert "/haproxy" in wrapper.read_text()
    assert str(wrapper) not in wrapper.read_text()


def test_answers_of_the_edge_itself_have_the_security_headers(tmp_path: Path) -> None:
    port = free_port()
    timeouts = "".join(f"    timeout {name} 5s\n" for name in ("client", "connect", "server"))
    plain = f"defaults\n    mode http\n{timeouts}frontend http_frontend\n    bind 127.0.0.1:{port}\n"
    path = tmp_path / "haproxy.cfg"
    path.write_text(harden(plain))
    edge = subprocess.Popen([find_binary(), "-f", path, "-db"], stderr=subprocess.DEVNULL)
    try:
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
    finally:
        edge.terminate()
        edge.wait(10)
    head, _, _ = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    assert first.split()[1] == "503", "there is no replica behind it"
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    for name, value in STATIC.items():
        assert headers[name.lower()] == value
    assert headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
