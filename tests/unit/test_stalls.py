"""When a consumer that takes nothing is judged to be stuck, and when the broker was merely away."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from celery import bootsteps
from celery.exceptions import WorkerTerminate

from core.settings import load_settings
from worker import vigil as module
from worker.alive import BEAT_SECONDS, MAX_RESTARTS, STALL_SECONDS
from worker.process import Plan
from worker.vigil import StalledError, Vigil


class Bench:
    """A vigil whose clock is set by hand, and a consumer whose queue has a job that it does not take."""

    def __init__(self, folder: Path) -> None:
        self.now = 1000.0
        self._vigil = Vigil(Plan(load_settings(data_dir=folder), Path(), "none", "none", ("-1",), "n@h"), "q", 3600)
        self._consumer: Any = SimpleNamespace(
            blueprint=SimpleNamespace(state=bootsteps.RUN),
            connection=SimpleNamespace(default_channel=SimpleNamespace(conn_or_acquire=self._connect)),
        )

    @contextmanager
    def _connect(self) -> Iterator[Any]:
        yield SimpleNamespace(llen=lambda _: 1)

    def connect(self) -> None:
        """Begin the event loop of a new connection."""
        hub = SimpleNamespace(call_repeatedly=lambda *_: None)
        self._vigil.step()(None).register_with_event_loop(self._consumer, hub)

    def turn(self, seconds: float) -> None:
        """Let the loop turn for a while."""
        end = self.now + seconds
        while self.now < end:
            self.now += BEAT_SECONDS
            self._vigil.turn(self._consumer)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: made.now))
    made.connect()
    return made


@pytest.mark.parametrize("seconds_away", [0, 600])
def test_a_consumer_has_time_to_take_something_after_each_connection_however_long_the_broker_was_away(
    seconds_away: int, bench: Bench
) -> None:
    for end in [StalledError] * MAX_RESTARTS + [WorkerTerminate]:
        bench.turn(STALL_SECONDS - BEAT_SECONDS)
        with pytest.raises(end):
            bench.turn(2 * BEAT_SECONDS)
        bench.now += seconds_away
        bench.connect()
