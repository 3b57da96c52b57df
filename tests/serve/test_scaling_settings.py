"""How many replicas a line may have, as an operator says it."""

import pytest

from nanoswap.queue.scaling import Window
from nanoswap.queue.ticket import Kind
from nanoswap.serve.environment import SettingsError
from nanoswap.serve.scaling_settings import parse_windows
from nanoswap.serve.settings import Settings
from tests.serve.test_settings import GOOD

SCALED = GOOD | {"NANOSWAP_IMAGE_MAX_REPLICAS": "4", "NANOSWAP_VIDEO_MAX_REPLICAS": "2"}


def test_unless_a_maximum_is_set_the_number_is_fixed() -> None:
    settings = Settings.from_environment(GOOD | {"NANOSWAP_IMAGE_REPLICAS": "3", "NANOSWAP_VIDEO_MAX_REPLICAS": "1"})
    assert [settings.rules(kind) for kind in Kind] == [None, None]


def test_each_line_has_rules_of_its_own() -> None:
    changes = {
        "NANOSWAP_IMAGE_REPLICAS": "2",
        "NANOSWAP_IMAGE_SLOTS": "3",
        "NANOSWAP_VIDEO_SLOTS": "5",
        "NANOSWAP_VIDEO_JOBS": "2",
        "NANOSWAP_IMAGE_FLOOR": "mon-fri 13:45-22:00 4",
        "NANOSWAP_VIDEO_TARGET_WAIT": "90",
        "NANOSWAP_COLD_START_SECONDS": "45",
        "NANOSWAP_STEP_DOWN_SECONDS": "300",
    }
    settings = Settings.from_environment(SCALED | changes)
    image, video = (settings.rules(kind) for kind in Kind)
    assert image is not None
    assert video is not None
    assert (image.minimum, image.maximum, image.slots, image.target_wait) == (2, 4, 3, 3.0)
    assert (video.minimum, video.maximum, video.slots, video.target_wait) == (1, 2, 2, 90.0)
    assert image.windows == (Window(days=frozenset(range(5)), begin=825, end=1320, replicas=4),)
    assert video.windows == ()
    assert {(one.cold_start, one.step_down) for one in (image, video)} == {(45.0, 300.0)}


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("mon-fri", {0, 1, 2, 3, 4}),
        ("sat-sun", {5, 6}),
        ("Sun", {6}),
        ("sat-mon", {5, 6, 0}),
        ("mon-sun", set(range(7))),
    ],
)
def test_days(text: str, days: set[int]) -> None:
    (window,) = parse_windows("NAME", f"{text} 23:30-02:00 4")
    assert (window.days, window.begin, window.end, window.replicas) == (days, 1410, 120, 4)


def test_several_windows() -> None:
    assert [one.replicas for one in parse_windows("NAME", "mon-fri 13:45-22:00 4, sat-sun 11:00-23:30 6")] == [4, 6]
    assert parse_windows("NAME", " ") == ()


@pytest.mark.parametrize(
    "text",
    [
        *("4", "mon-fri 4", "mon-fri 13:45-22:00", "mon-xyz 13:45-22:00 4", ","),
        *("mon 24:00-01:00 1", "mon 10:60-11:00 1", "mon 1:00-2:00 1"),
    ],
)
def test_wrong_windows_name_their_variable(text: str) -> None:
    with pytest.raises(SettingsError, match="NAME must"):
        parse_windows("NAME", text)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"NANOSWAP_IMAGE_REPLICAS": "5"}, "NANOSWAP_IMAGE_MAX_REPLICAS must be a number from 5"),
        ({"NANOSWAP_IMAGE_FLOOR": "mon 13:45-22:00 5"}, "NANOSWAP_IMAGE_FLOOR asks for more"),
        ({"NANOSWAP_VIDEO_FLOOR": "peak"}, "NANOSWAP_VIDEO_FLOOR"),
        ({"NANOSWAP_VIDEO_REPLICAS": "0"}, "NANOSWAP_VIDEO_MAX_REPLICAS is set, but"),
        ({"NANOSWAP_IMAGE_TARGET_WAIT": "0"}, "NANOSWAP_IMAGE_TARGET_WAIT"),
        ({"NANOSWAP_COLD_START_SECONDS": "0"}, "NANOSWAP_COLD_START_SECONDS"),
        ({"NANOSWAP_STEP_DOWN_SECONDS": "0"}, "NANOSWAP_STEP_DOWN_SECONDS"),
    ],
)
def test_wrong_settings_are_refused_by_name(changes: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        Settings.from_environment(SCALED | changes)
