"""A watch that runs in a thread of a test."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from core.selection import Selection
from db.ledger import read_ledger, verify_scan
from db.queries import find_model
from producer import arrivals
from producer.enqueue import Target
from producer.watching import Pace, Watch
from tests.integration.producing import MODEL, WAIT_SECONDS, Producer, job_in, messages

SETTLE_SECONDS = 0.3
QUICK = Pace(settle=SETTLE_SECONDS, max_wait=0.2)
#: Full listings one after the other.
LISTING = Pace(settle=SETTLE_SECONDS, max_wait=0.2, interval=0.3)
#: The image of the fixture ``folder``; once it is queued, the kernel reports what appears.
FIRST = "00000.jpg"

#: Begin a watch of some folders, for the length of a block.
WatchFolders = Callable[..., Any]


def wait_for(condition: Callable[[], Any], what: str) -> Any:
    """Return the first truthy value of the condition; fail the test if it does not come in time."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {WAIT_SECONDS} s in vain for {what}")


def queued(client: "redis.Redis") -> Counter[str]:
    """Return the names of the images in all messages, and how often each is there."""
    return Counter(Path(ref.uri).name for message in messages(client) for ref in job_in(message).images)


def wait_for_queued(client: "redis.Redis", *names: str) -> None:
    """Wait until exactly these images are queued, each once."""

    def are_queued() -> bool:
        found = queued(client)
        assert found.keys() <= set(names), found
        return len(found) == len(names)

    wait_for(are_queued, f"{len(names)} images in the queue")
    assert set(queued(client).values()) <= {1}


@dataclass
class Watched:
    """A watch, and what came of it.

    Attributes:
        watch: what is tested.
        said: what it says to people.
        errors: what it ended with, if not in order.
        rounds: how often each source was listed in full, or begun to be.
    """

    watch: Watch
    said: list[str]
    errors: list[BaseException] = field(default_factory=list)
    rounds: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        """Watch until stopped."""
        try:
            self.watch.run(lambda _: None)
        except BaseException as error:
            self.errors.append(error)

    def wait_for_rounds(self, number: int) -> None:
        """Wait until all sources were listed so many times more."""
        before = self.rounds.copy()
        # The one that runs may have begun before now, and the last one has only begun.
        wait_for(lambda: all(self.rounds[name] > before[name] + number + 1 for name in before), "full listings")


@contextmanager
def watching(
    *sources: object, by: Producer, patch: pytest.MonkeyPatch, pace: Pace = QUICK, selection: Selection | None = None
) -> Iterator[Watched]:
    """Watch folders for the length of a block; if it ends in order, its books balance.

    Args:
        sources: what to watch.
        by: who sends.
        patch: the test's own.
        pace: how fast.
        selection: which images are wanted.
    """
    said: list[str] = []
    target = Target(MODEL, find_model(by.engine, MODEL))
    watch = Watch(
        by.session,
        [str(source) for source in sources],
        target,
        selection=selection or Selection(),
        pace=pace,
        say=said.append,
    )
    watched = Watched(watch, said)
    open_source = arrivals.open_source

    def count(source: str, *rest: Any) -> Any:
        watched.rounds[source] += 1
        return open_source(source, *rest)

    patch.setattr(arrivals, "open_source", count)
    patch.setattr(arrivals, "LEAST_REST_SECONDS", 0.3)
    thread = threading.Thread(target=watched.run)
    thread.start()
    try:
        yield watched
    finally:
        watch.stop()
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()
    if not watched.errors:
        ledger, tally = read_ledger(by.engine, watch.tally.scan_id), watch.tally
        assert verify_scan(by.engine, tally.scan_id) == []
        assert ledger.scan_status in ("listed", "cancelled")
        assert (ledger.listed, ledger.skipped) == (tally.skipped + tally.sent, tally.skipped)
