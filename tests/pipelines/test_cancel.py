"""The flag and the budget of seconds."""

from types import SimpleNamespace

import pytest

from nanoswap.pipelines import cancel
from nanoswap.pipelines.cancel import CancelToken
from nanoswap.pipelines.errors import Cancelled, TimedOut


def test_budget_ends_the_work_and_can_be_taken_away() -> None:
    token = CancelToken(0.0)
    with pytest.raises(TimedOut):
        token.check()
    token.allow(None)
    token.check()
    token.allow(60.0)
    token.check()


def test_whoever_left_is_told_so_even_late() -> None:
    token = CancelToken(0.0)
    token.cancel()
    with pytest.raises(Cancelled):
        token.check()


def test_time_is_counted_from_when_it_was_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(cancel, "time", SimpleNamespace(monotonic=lambda: now[0]))
    token = CancelToken(0.05)
    now[0] += 0.04
    token.check()
    now[0] += 0.02
    with pytest.raises(TimedOut):
        token.check()
    token.allow(0.05)
    now[0] += 0.04
    token.check()
