"""The edge's configuration: what Ray writes, with the doors closed."""

from pathlib import Path

from ray.serve._private.haproxy_templates import HAPROXY_CONFIG_TEMPLATE

from nanoswap.serve.haproxy import STRIPPED_HEADERS, harden, write_wrapper

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
