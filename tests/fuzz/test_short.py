"""The short version of ``./dev fuzz``: the same parts with fixed seeds, and proof that each would find something."""

import random

import pytest

from nanoswap.pipelines import container as pictures
from nanoswap.pipelines.errors import Undecodable
from tests.fuzz import media as hostile
from tests.fuzz.api import api
from tests.fuzz.run import Row, stages
from tests.fuzz.tally import Tally


def test_changed_media_give_a_result_or_an_error_of_ours() -> None:
    budget = Tally(executions=400)
    hostile.media(budget, 11)
    assert budget.failures == {}
    assert budget.done == 400


def test_a_foreign_exception_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise IndexError

    monkeypatch.setitem(hostile.corpus(), "png", (hostile.corpus()["png"][0], broken))
    budget = Tally(executions=100)
    hostile.media(budget, 11)
    assert any("png" in name and "IndexError" in name for name in budget.failures)


@pytest.mark.parametrize("name", ["container", "upload", "boundary", "options", "token", "address"])
def test_our_parsers_raise_only_what_they_say(name: str) -> None:
    parsers = pytest.importorskip("tests.fuzz.parsers", exc_type=ImportError)
    draw = random.Random(7)
    for _ in range(300):
        parsers.TARGETS[name](draw.randbytes(draw.randrange(200)))


def test_a_parser_that_raises_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    parsers = pytest.importorskip("tests.fuzz.parsers", exc_type=ImportError)

    def broken(*_: object) -> None:
        raise KeyError

    monkeypatch.setattr(parsers, "survey", broken)
    with pytest.raises(KeyError):
        parsers.container(b"\0" * 64)
    with pytest.raises(Undecodable):
        pictures.survey(b"\xff\xd8\xff", "jpeg")


def test_the_api_keeps_to_its_document() -> None:
    budget = Tally(executions=250)
    api(budget, 3)
    assert budget.failures == {}
    assert budget.done == 250


@pytest.mark.parametrize(
    ("sizes", "bad"),
    [
        ([100.0 + each for each in range(40)] + [140.0] * 60, False),  # loads, collects, and stays
        ([100.0] * 20 + [100.0 + each for each in range(180)], True),  # goes on growing
        ([100.0] * 100, False),
        ([100.0] * 60 + [200.0] * 40, True),
    ],
    ids=["a plateau", "a leak", "even", "a late jump"],
)
def test_growth_is_judged_in_the_second_half(sizes: list[float], bad: bool) -> None:
    row = Row("media", 1, executions=1)
    row.start, row.half, row.end = stages(sizes)
    assert row.bad == bad


def test_a_part_that_did_nothing_or_broke_is_bad() -> None:
    assert Row("media", 1, executions=0).bad
    assert Row("media", 1, executions=1, crashes=["ended with -11"]).bad
    assert not Row("media", 1, executions=1).bad
