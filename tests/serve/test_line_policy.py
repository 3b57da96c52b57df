"""The policy as Ray's controller calls it: what it asks for with and without a line to see, and how it gets there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nanoswap.queue.eta import Load, line
from nanoswap.queue.redis_server import RedisServer
from nanoswap.queue.room import Line, Spread
from nanoswap.queue.ticket import Kind
from nanoswap.serve import autoscaling
from nanoswap.serve.autoscaling import LinePolicy
from nanoswap.serve.environment import SettingsError
from nanoswap.serve.settings import Settings
from tests.queue.test_scaling import utc
from tests.serve.test_settings import GOOD

SCALED = GOOD | {
    "NANOSWAP_IMAGE_MAX_REPLICAS": "5",
    "NANOSWAP_IMAGE_FLOOR": "mon-fri 13:45-22:00 3",
    "NANOSWAP_COLD_START_SECONDS": "60",
    "NANOSWAP_STEP_DOWN_SECONDS": "600",
}
NIGHT = utc(23, 3, 0)
QUIET = line(
    Load(
        kind=Kind.IMAGE, now=0, waiting=0, work=0.0, granted=0, running=0, slots=1, workers=1,
        jobs=1, turns=(), ended={}, waits=(), told=(), services=(),
    )
)  # fmt: skip


class Shown:
    """A watch that sees what the test shows it."""

    seen: Line | None = QUIET
    closed = 0

    def __init__(self, room: object, kind: Kind) -> None:
        assert kind is Kind.IMAGE

    def line(self) -> Line | None:
        return type(self).seen

    def close(self) -> None:
        type(self).closed += 1


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Shown]]:
    class Mine(Shown):
        pass

    monkeypatch.setattr(autoscaling, "LineWatch", Mine)
    for name, value in SCALED.items():
        monkeypatch.setenv(name, value)
    return Mine


def asked(policy: LinePolicy, now: float, target: int, ready: int | None = None) -> int:
    context: Any = SimpleNamespace(
        current_time=now, target_num_replicas=target, current_num_replicas=target if ready is None else ready
    )
    wanted, state = policy(context)
    assert state == {}
    return wanted


def test_what_waits_inside_a_replica_counts_as_work(shown: type[Shown]) -> None:
    policy = LinePolicy("image")
    # One runs, three wait in the same replica: three times five minutes for one that is there.
    shown.seen = replace(QUIET, granted=1, running=3, service=Spread(300.0, 300.0))
    assert asked(policy, NIGHT, 1) == 5
    shown.seen = replace(QUIET, running=1, service=Spread(300.0, 300.0))
    assert asked(policy, NIGHT, 1) == 1
    shown.seen = replace(QUIET, granted=1, running=3, service=None)
    assert asked(policy, NIGHT, 1) == 1


def test_follows_the_line(shown: type[Shown]) -> None:
    policy = LinePolicy("image")
    assert asked(policy, NIGHT, 1) == 1
    shown.seen = replace(QUIET, waiting=50, work_seconds=200.0, oldest_seconds=5.0, granted=1, running=1)
    assert asked(policy, NIGHT + 1, 1) == 3
    shown.seen = replace(QUIET, waiting=1, work_seconds=2.0, oldest_seconds=5.0, granted=1, running=1)
    assert [asked(policy, NIGHT + 2, 3), asked(policy, NIGHT + 63, 3)] == [3, 4], "long waits alone do, too"
    shown.seen = replace(shown.seen, wait=Spread(1.0, 2.9))
    assert asked(policy, NIGHT + 64, 3) == 3, "unless nineteen of twenty people didn't have them"


def test_lets_replicas_go_slowly_and_none_that_turns_need(shown: type[Shown]) -> None:
    policy = LinePolicy("image")
    shown.seen = QUIET
    assert [asked(policy, NIGHT + second, 3) for second in (0, 300, 599, 600)] == [3, 3, 3, 2]
    shown.seen = replace(QUIET, running=1, granted=2)
    assert asked(policy, NIGHT + 601, 3) == 3


def test_blind_it_holds_and_follows_only_the_clock_up(shown: type[Shown]) -> None:
    policy = LinePolicy("image")
    shown.seen = QUIET
    asked(policy, NIGHT, 2)
    shown.seen = None
    assert asked(policy, NIGHT + 700, 2) == 2
    assert asked(policy, utc(23, 13, 44), 2) == 3
    assert asked(policy, utc(23, 23, 0), 3) == 3


def test_what_nobody_saw_was_not_calm(shown: type[Shown]) -> None:
    policy, asks = LinePolicy("image"), []
    for second, seen in ((0, QUIET), (300, None), (601, QUIET), (1200, QUIET), (1201, QUIET)):
        shown.seen = seen
        asks.append(asked(policy, NIGHT + second, 3))
    assert asks == [3, 3, 3, 3, 2]


def test_a_policy_that_is_dropped_stops_watching(shown: type[Shown]) -> None:
    policy = LinePolicy("image")
    assert shown.closed == 0
    del policy
    assert shown.closed == 1


def test_needs_the_environment_of_the_replicas(shown: type[Shown], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NANOSWAP_IMAGE_MAX_REPLICAS")
    monkeypatch.delenv("NANOSWAP_IMAGE_FLOOR")
    with pytest.raises(SettingsError, match="NANOSWAP_IMAGE_MAX_REPLICAS"):
        LinePolicy("image")


SEND = """
import json, os, sys
from nanoswap.serve.app import applications
from nanoswap.serve.settings import Settings
sizes = {}
for name, (_, bound) in applications(Settings.from_environment(os.environ)).items():
    deployment = bound._bound_deployment
    config = deployment._deployment_config.autoscaling_config
    sizes[name] = [
        deployment.num_replicas if config is None else [config.min_replicas, config.max_replicas],
        deployment._deployment_config.graceful_shutdown_timeout_s,
    ]
    if name == "image":
        policy = config.policy
        open(sys.argv[1], "wb").write(policy.get_serialized_policy_def())
        written = policy.model_dump_json()
print(json.dumps([sizes, written]))
"""
#: What the controller does with it, without a controller.
CALL = """
import sys, time
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve._private.autoscaling_state import _resolve_policy_callable
sent = {"policy_function": "nanoswap.serve.autoscaling.LinePolicy", "policy_kwargs": {"kind": "image"}}
policy = AutoscalingPolicy.from_serialized_policy_def(sent, open(sys.argv[1], "rb").read())
config = AutoscalingConfig(min_replicas=1, max_replicas=5, upscale_delay_s=0, downscale_delay_s=0)
call = _apply_autoscaling_config(_resolve_policy_callable(policy))
for _ in range(200):
    time.sleep(0.05)
    wanted, _ = call(AutoscalingContext(
        deployment_id=None, deployment_name="", app_name="", current_num_replicas=1, target_num_replicas=1,
        running_replicas=[], total_num_requests=0, total_queued_requests=0, aggregated_metrics={}, raw_metrics={},
        capacity_adjusted_min_replicas=1, capacity_adjusted_max_replicas=5, policy_state={}, last_scale_up_time=None,
        last_scale_down_time=None, current_time=float(sys.argv[2]), config=config,
    ))
    if wanted != 1:
        break
print(wanted)
"""


def run(code: str, *words: str, **environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "NANOSWAP_"))}
    command = [sys.executable, "-c", code, *words]
    return subprocess.run(command, env=inherited | environment, check=True, capture_output=True, text=True).stdout


async def test_travels_to_a_controller_without_a_secret_and_sees_the_line_there(tmp_path: Path) -> None:
    from nanoswap.queue.redis_room import RedisRoom
    from nanoswap.queue.room import Policy
    from tests.queue.test_room import declaration

    sent = tmp_path / "policy"
    secrets = {"REDIS_URL": "redis://user:a-password@127.0.0.1:1/0"}
    sizes, written = json.loads(run(SEND, str(sent), **(SCALED | secrets)))
    for said in (written, sent.read_bytes().decode("latin-1")):
        assert "a-password" not in said
        assert SCALED["NANOSWAP_SECRET"] not in said
    assert json.loads(written)["policy_kwargs"] == {"kind": "image"}
    assert [size for size, _ in sizes.values()] == [[1, 5], 1, 1]
    settings = Settings.from_environment(SCALED)
    longest = settings.upload_video_seconds + settings.swap_video_seconds + settings.deliver_seconds
    assert sizes["image"][1] > settings.upload_seconds + 3 * settings.swap_seconds
    assert sizes["video"][1] > longest
    with RedisServer(parent=tmp_path) as server:
        room = RedisRoom(server.url, Policy())
        await room.join("ann", declaration(), 150.0, idempotency_key=None)
        await room.close()
        there = SCALED | {"REDIS_URL": server.url}
        assert run(CALL, str(sent), str(NIGHT), **there).split() == ["2"]
