"""Progress of a long command on stderr: a bar on a terminal, a plain line now and then elsewhere."""

import time
from typing import Self

from rich.console import Console

from core.cli import image_bar

PLAIN_SECONDS = 10.0


class ImageProgress:
    """Shows how many images are done, as a context manager; call it as often as you like."""

    def __init__(self, doing: str) -> None:
        """Prepare the bar.

        Args:
            doing: what is being done, for people.
        """
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._doing = doing
        # A command that takes no longer than a plain line's interval needs none.
        self._started = self._last = time.monotonic()
        self._bar = image_bar(self._console)
        self._task = self._bar.add_task(doing, total=None, rate="-")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bar.stop()

    def __call__(self, done: int, total: int | None = None) -> None:
        """Show how far it is, unless that was done a moment ago.

        Args:
            done: number of images that are done.
            total: number of all; None if not known.
        """
        now = time.monotonic()
        rate = done / max(now - self._started, 1e-9)
        if self._console.is_terminal:
            self._bar.update(self._task, completed=done, total=total, rate=f"{rate:,.0f}")
        elif done and now - self._last >= PLAIN_SECONDS:
            self._last = now
            share = f"{done:,}" if total is None else f"{done:,} of {total:,}"
            left = "" if total is None else f", {(total - done) / rate:,.0f} s left"
            self._console.print(f"{self._doing}: {share} images, {rate:,.0f} images/s{left}")
