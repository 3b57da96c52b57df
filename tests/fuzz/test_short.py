"""The short version of ``./dev fuzz``: the same parts with fixed seeds, and proof that each would find something."""

import random

import pytest

from nanoswap.pipelines import container as pictures
from nanoswap.pipelines.errors import Undecodable
from tests.fuzz import media as hostile
from tests.fuzz.api import api
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
