"""Who waits for a scan outlasts a database that restarts, and gives up in the end."""

from types import SimpleNamespace
from typing import Any

import pytest

import producer.waiting
from core.errors import DatabaseBusyError
from producer.enqueue import Tally
from producer.waiting import Waiter


@pytest.fixture
def waiter(monkeypatch: pytest.MonkeyPatch) -> Waiter:
    monkeypatch.setattr(producer.waiting, "POLL_SECONDS", 0.0)
    session: Any = SimpleNamespace(engine=None)
    return Waiter(session, Tally(1), "model")


def test_a_database_that_comes_back_ends_no_wait(monkeypatch: pytest.MonkeyPatch, waiter: Waiter) -> None:
    answers = [True, DatabaseBusyError("restarting"), DatabaseBusyError("restarting"), True, False]

    def pending(*_: object) -> bool:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(producer.waiting, "has_pending_jobs", pending)
    ticks: list[Tally] = []
    waiter.wait(ticks.append)
    assert not answers
    assert len(ticks) == 2


def test_a_database_that_stays_away_ends_the_wait(monkeypatch: pytest.MonkeyPatch, waiter: Waiter) -> None:
    def pending(*_: object) -> bool:
        raise DatabaseBusyError("no answer")

    monkeypatch.setattr(producer.waiting, "has_pending_jobs", pending)
    monkeypatch.setattr(producer.waiting, "GIVE_UP_SECONDS", 0.01)
    with pytest.raises(DatabaseBusyError):
        waiter.wait(lambda _: None)
