"""Progress from the ledger: a bar on a terminal, a plain line now and then elsewhere, nothing for scripts."""

import time
from typing import Self

from rich.console import Console
from sqlalchemy import Engine

from core.cli import image_bar
from db.ledger import read_ledger
from producer.enqueue import Tally

REFRESH_SECONDS = 0.5
PLAIN_SECONDS = 10.0


class ScanProgress:
    """Shows how far a scan is, as a context manager; call ``show`` as often as you like."""

    def __init__(self, engine: Engine, console: Console, *, is_quiet: bool = False) -> None:
        self._engine = engine
        self._console = console
        self._is_quiet = is_quiet
        # A job that takes no longer than a plain line's interval needs none.
        self._last = 0.0 if console.is_terminal else time.monotonic()
        self._first_scored: tuple[float, int] | None = None
        self._bar = image_bar(console, is_quiet=is_quiet)
        self._task = self._bar.add_task("listing", total=None, rate="-")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def show(self, tally: Tally) -> None:
        """Read the ledger and show it, unless that was done a moment ago."""
        now = time.monotonic()
        if self._is_quiet or now - self._last < (REFRESH_SECONDS if self._console.is_terminal else PLAIN_SECONDS):
            return
        self._last = now
        ledger = read_ledger(self._engine, tally.scan_id)
        total = ledger.listed - ledger.skipped
        rate = self._rate(now, ledger.scored)
        note = "listing" if tally.is_listing else "scoring"
        if tally.is_waiting:
            note = "queue is full, waiting for workers"
        elif not ledger.scored and not tally.is_listing:
            note = "waiting for a worker"
        if self._console.is_terminal:
            self._bar.update(
                self._task,
                description=note,
                completed=ledger.scored,
                total=None if tally.is_listing else total,
                rate=f"{rate:,.0f}" if rate else "-",
            )
        else:
            left = f", {(total - ledger.scored) / rate:,.0f} s left" if rate and not tally.is_listing else ""
            self._console.print(f"{note}: {ledger.scored:,} of {total:,} images, {rate:,.0f} images/s{left}")

    def _rate(self, now: float, scored: int) -> float:
        """Images per second since the first result was seen; the model's loading does not count."""
        if scored and self._first_scored is None:
            self._first_scored = (now, scored)
        if self._first_scored is None or now == self._first_scored[0]:
            return 0.0
        return (scored - self._first_scored[1]) / (now - self._first_scored[0])
