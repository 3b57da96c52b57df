"""Days of arrivals: what comes is what the profile says, and a log is read or refused by line."""

import math
import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from nanoswap.queue.simulation import BURST, HOUR, IMAGE, VIDEO
from nanoswap.queue.workload import LogError, Profile, Work, read_log

PROFILE = Profile(
    jobs=20_000,
    hours=(0.0,) * 12 + (1.0,) * 6 + (3.0,) * 6,
    video_share=0.2,
    burst_share=0.01,
    burst_jobs=5,
    image=Work(median=2.0, spread=0.3, least=1.0, most=3.0),
    video=Work(median=60.0, spread=0.4, least=25.0, most=150.0),
    image_estimate=2.5,
    video_error=0.15,
)


def test_day_has_the_jobs_at_the_hours_of_its_profile() -> None:
    day = list(PROFILE.arrivals(2, 5))
    assert [arrival[0] for arrival in day] == sorted(arrival[0] for arrival in day)
    assert day[-1][0] < 48 * HOUR
    came = [arrival for arrival in day if arrival[2] != BURST]
    bursts = [arrival for arrival in day if arrival[2] == BURST]
    # 20 000 come a day, one in a hundred of them with five clips. Five standard deviations.
    assert len(came) == pytest.approx(39_600, abs=5 * math.sqrt(39_600))
    assert len(bursts) / 5 == pytest.approx(400, abs=5 * math.sqrt(400))
    assert sum(arrival[2] == VIDEO for arrival in came) / len(came) == pytest.approx(0.2, abs=0.01)
    by_hour = [sum(arrival[0] // HOUR % 24 == hour for arrival in came) for hour in range(24)]
    assert by_hour[:12] == [0] * 12
    assert sum(by_hour[18:]) / sum(by_hour) == pytest.approx(0.75, abs=0.012)


def test_everybody_is_an_account_and_a_burst_is_one() -> None:
    day = list(PROFILE.arrivals(1, 5))
    by_account: dict[int, int] = {}
    for _, account, group, _, _ in day:
        by_account[account] = by_account.get(account, 0) + 1
        assert group == BURST or by_account[account] == 1
    assert set(by_account.values()) == {1, 5}


def test_work_has_its_median_and_its_ends() -> None:
    day = list(PROFILE.arrivals(2, 5))
    images = [arrival[4] / 1000 for arrival in day if arrival[2] == IMAGE]
    clips = [arrival[4] / 1000 for arrival in day if arrival[2] == VIDEO]
    assert statistics.median(images) == pytest.approx(2.0, rel=0.02)
    assert (min(images), max(images)) == (1.0, 3.0)
    assert statistics.median(clips) == pytest.approx(60.0, rel=0.03)
    middle = [math.log(one / 60) for one in clips if 25 < one < 150]
    assert statistics.stdev(middle) == pytest.approx(0.36, abs=0.03)
    misses = [math.log(arrival[3] / (arrival[4] / 1000)) for arrival in day if arrival[2] == VIDEO]
    assert statistics.mean(misses) == pytest.approx(0, abs=0.02)
    assert statistics.stdev(misses) == pytest.approx(0.15, abs=0.01)
    assert {arrival[3] for arrival in day if arrival[2] == IMAGE} == {2.5}


def test_same_seed_same_day() -> None:
    assert list(PROFILE.arrivals(1, 5)) == list(PROFILE.arrivals(1, 5))
    assert list(PROFILE.arrivals(1, 5)) != list(PROFILE.arrivals(1, 6))


def test_no_bursts_and_no_spread() -> None:
    plain = replace(PROFILE, burst_share=0.0, image=Work(median=2.0, spread=0.0, least=1.0, most=3.0), video_share=0.0)
    assert {arrival[2:] for arrival in plain.arrivals(1, 1)} == {(IMAGE, 2.5, 2000)}


def log(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(text)
    return path


def test_log_is_read_in_order_of_time(tmp_path: Path) -> None:
    path = log(
        tmp_path,
        "kind,at,gpu_seconds,estimate,account\nvideo,20,61.5,55,x\nimage,10.5,2,,\nimage,11,2,3,x\nimage,12,2,,\n",
    )
    first, second, third, fourth = read_log(path)
    assert first[0] == 10_500
    assert first[2:] == (IMAGE, 2.0, 2000)
    assert second[3] == 3.0
    assert fourth[2:] == (VIDEO, 55.0, 61_500)
    # The word is one account; without one everybody is another.
    assert second[1] == fourth[1]
    assert len({first[1], second[1], third[1]}) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("at,kind\n1,image\n", "no column gpu_seconds"),
        ("", "no column at"),
        ("at,kind,gpu_seconds\n", "no arrivals"),
        ("at,kind,gpu_seconds\n1,image,2\n2,audio,2\n", "line 3"),
        ("at,kind,gpu_seconds\n1,image\n", "line 2"),
        ("at,kind,gpu_seconds\nnan,image,2\n", "line 2"),
        ("at,kind,gpu_seconds\n-1,image,2\n", "line 2"),
        ("at,kind,gpu_seconds\n1,image,0\n", "line 2"),
        ("at,kind,gpu_seconds,estimate\n1,image,0,2\n", "line 2"),
        ("at,kind,gpu_seconds\n1,image,inf\n", "line 2"),
        ("at,kind,gpu_seconds,estimate\n1,image,2,soon\n", "line 2"),
    ],
)
def test_log_that_is_none_is_refused_by_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(LogError, match=says):
        read_log(log(tmp_path, text))
