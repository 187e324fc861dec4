"""Progress of a watch: one line that stays up to date on a terminal, a plain line now and then elsewhere."""

import time
from typing import TYPE_CHECKING, Self

from rich.console import Console

if TYPE_CHECKING:
    from producer.watching import Watch

REFRESH_SECONDS = 0.5
PLAIN_SECONDS = 60.0


class WatchProgress:
    """Shows what a watch has done, as a context manager; call ``show`` as often as you like."""

    def __init__(self, console: Console, *, is_quiet: bool = False) -> None:
        self._console = console
        self._is_quiet = is_quiet
        self._interval = REFRESH_SECONDS if console.is_terminal else PLAIN_SECONDS
        self._last = -self._interval
        self._shown = ""
        self._line = console.status("") if console.is_terminal and not is_quiet else None

    def __enter__(self) -> Self:
        if self._line:
            self._line.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._line:
            self._line.stop()

    def show(self, watching: "Watch") -> None:
        """Show it, unless that was done a moment ago or nothing has changed."""
        now = time.monotonic()
        if self._is_quiet or now - self._last < self._interval:
            return
        self._last = now
        text = _describe(watching)
        if text != self._shown:
            if self._line:
                self._line.update(text)
            else:
                self._console.print(text)
        self._shown = text


def _describe(watching: "Watch") -> str:
    tally = watching.tally
    note = "; the queue is full, waiting for workers" if tally.is_waiting else ""
    return (
        f"watching: {tally.listed:,} images seen, {tally.skipped:,} already scored, {tally.sent:,} queued, "
        f"{len(watching.settling):,} not complete yet{note}"
    )
