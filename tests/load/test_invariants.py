"""The fault bench's own judgement: it must see what it is there to see."""

from dataclasses import replace
from typing import Any

import pytest

from tests.clips import Recipe, Scene, make
from tests.load import media
from tests.load.invariants import BIN, SLACK, judge, overtaken, recovered
from tests.load.journey import Journey

STRUCK = 100.0


def person(began: float, wait: float | None = 0.5, **changes: Any) -> Journey:
    """Somebody who came, joined at once and got what is theirs."""
    grants = [] if wait is None else [began + wait]
    mine = Journey(number=7, kind="image", began=began, ticket=f"t{began}", joined=began, grants=grants)
    return replace(mine, **({"owner": 7, "settled": True, "ended": began + (wait or 60.0) + 0.2} | changes))


def test_all_is_well_when_all_is_well() -> None:
    found = judge([person(second) for second in range(90, 130)], STRUCK)
    assert found.results == 40
    assert not found.others
    assert not found.unsettled
    assert not found.lost
    assert not found.overtaken
    assert not found.turned_away


def test_somebody_elses_result_is_seen() -> None:
    assert judge([person(101.0, owner=8)], STRUCK).others == ["t101.0"]


def test_a_result_that_the_service_knows_nothing_of_is_seen() -> None:
    assert judge([person(101.0, settled=False)], STRUCK).unsettled == ["t101.0"]


def test_a_lost_place_is_seen_and_no_place_is_none_lost() -> None:
    lost = person(95.0, owner=None, problem="not_found")
    away = replace(person(101.0, None, owner=None, problem="unreachable"), ticket="")
    refused = replace(away, problem="internal")
    found = judge([lost, away, refused], STRUCK)
    assert found.lost == ["t95.0 not_found", "no ticket internal"]
    assert found.turned_away == 1
    assert found.results == 0


def test_who_was_in_line_and_is_overtaken_is_seen() -> None:
    first = person(99.0, 1.0 + SLACK + 3.0)
    later = person(101.0, 1.0)
    assert overtaken([first, later], STRUCK) == ["t99.0"]
    assert overtaken([person(99.0, 1.0 + SLACK), later], STRUCK) == []
    assert overtaken([first, replace(later, kind="video")], STRUCK) == []
    # Never granted at all, while others were.
    assert overtaken([person(99.0, None, problem="timeout"), later], STRUCK) == ["t99.0"]
    # Whose turn went on, or was over, was overtaken by nobody.
    assert overtaken([person(90.0, 9.0, ended=140.0), person(80.0), later], STRUCK) == []


def test_whose_turn_broke_must_have_the_next_one() -> None:
    later = person(101.0, 1.0)
    broken = person(90.0, 9.0, ended=140.0)
    assert overtaken([replace(broken, grants=[99.0, 102.0 + SLACK]), later], STRUCK) == []
    assert overtaken([replace(broken, grants=[99.0, 103.0 + SLACK]), later], STRUCK) == ["t90.0"]
    assert judge([replace(broken, grants=[99.0, 102.0]), later, person(80.0)], STRUCK).in_line == 1


def test_recovery_counts_from_the_blow_to_the_last_slow_bin() -> None:
    calm = [person(80.0 + number) for number in range(20)]
    slow = [person(STRUCK + number, 20.0) for number in range(15)]
    after = [person(STRUCK + 20 + number) for number in range(20)]
    assert recovered(calm + after, STRUCK) == 0.0
    assert recovered(calm + slow + after, STRUCK) == 2 * BIN
    assert recovered(calm + slow, STRUCK) is None
    # One who waits long among many who don't is chance.
    assert recovered([*calm, *after, person(STRUCK + 25, 30.0)], STRUCK) == 0.0


@pytest.mark.parametrize("number", [0, 5, 130, media.NUMBERS - 1])
def test_numbers_survive_encoding(number: int) -> None:
    assert media.owner(media.picture(number, 2.0), "image/jpeg") == number
    assert media.owner(media.clip(number, 3), "video/mp4") == number


def test_frames_of_two_people_are_nobodys() -> None:
    # Frames that carry their own numbers: 0, 1, 2.
    mixed = make(Recipe(Scene([]), frames=3))
    with pytest.raises(ValueError, match="frames of"):
        media.owner(mixed, "video/mp4")
