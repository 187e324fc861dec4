"""What becomes of a message that a worker cannot do now, and of its job in the ledger."""

from types import SimpleNamespace
from typing import Any

import pytest
from celery import Celery

from core.broker import TASK_NAME
from core.errors import DatabaseBusyError, NewerMessageError
from worker import tasks


@pytest.mark.parametrize(
    ("error", "released"),
    [(DatabaseBusyError("it is away"), ["some-job"]), (NewerMessageError("it is of version 9"), [])],
    ids=["begun-here", "never-begun-here"],
)
def test_only_a_job_that_was_begun_here_is_released(
    error: Exception, released: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise error

    found: list[str] = []
    holder: Any = SimpleNamespace(process=SimpleNamespace(run=fail, release=found.append))
    monkeypatch.setattr(tasks, "REQUEUE_SECONDS", 0.0)
    app = Celery()
    tasks.register(app, holder)

    result = app.tasks[TASK_NAME].apply(args=[{}], task_id="some-job")

    assert (result.state, found) == ("REJECTED", released)
