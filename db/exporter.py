"""The exporter: answers scrapers from the ledger, however many ask, and whether or not the database is there."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import generate_latest, start_http_server
from prometheus_client.registry import Collector
from sqlalchemy import Engine

from core.errors import DatabaseError, UsageError
from db.exposed import EDGES, PLAIN, SECONDS, UP, Metric
from db.metrics import LedgerReader, Reading, Samples

#: So long an answer is good for: two scrapers do not double the load.
FRESH_SECONDS = 5.0
#: So long a scraper waits for the database; Prometheus itself gives up after 10.
PATIENCE_SECONDS = 8.0


class LedgerCollector(Collector):
    """Reads the ledger when it is asked, one reading at a time.

    A reading that takes too long goes on; meanwhile, scrapers are told that the ledger cannot be read.
    """

    def __init__(
        self, open_ledger: Callable[[], Engine], notice: Callable[[str], None], *, patience: float = PATIENCE_SECONDS
    ) -> None:
        """Nothing is connected yet.

        Args:
            open_ledger: returns an engine, or raises DatabaseError; it is called again after it did.
            notice: told in a line when the database goes away and comes back.
            patience: seconds that a scraper waits at most.
        """
        self._open_ledger = open_ledger
        self._notice = notice
        self._patience = patience
        self._reader: LedgerReader | None = None
        self._lock = threading.Lock()
        self._reading: threading.Thread | None = None
        self._answer: Reading | None = None
        self._answered_at: float | None = None
        self._trouble: str | None = None

    def collect(self) -> Iterator[Family]:
        """Tell what the ledger says, or that it cannot be read."""
        return _families(self._latest())

    def describe(self) -> Iterable[Family]:
        """Tell nothing: a registry need not read the ledger to know what it is given."""
        return ()

    def _latest(self) -> Reading | None:
        with self._lock:
            if self._is_fresh():
                return self._answer
            if self._reading is None or not self._reading.is_alive():
                # A daemon, so that a database that does not answer keeps nobody from leaving.
                self._reading = threading.Thread(target=self._read, daemon=True)
                self._reading.start()
            current = self._reading
        current.join(self._patience)
        with self._lock:
            return None if current.is_alive() else self._answer

    def _is_fresh(self) -> bool:
        return self._answered_at is not None and time.monotonic() - self._answered_at < FRESH_SECONDS

    def _read(self) -> None:
        answer: Reading | None = None
        trouble: str | None = "reading the ledger met a fault: see the traceback"
        try:
            if self._reader is None:
                self._reader = LedgerReader(self._open_ledger())
            answer, trouble = self._reader.read(), None
        except DatabaseError as error:
            trouble = str(error)
        finally:  # whatever it was, an old answer must not pass for a new one
            if (trouble is None) != (self._trouble is None):
                self._notice("note: the ledger can be read again" if trouble is None else f"note: {trouble}")
            with self._lock:
                self._answer, self._answered_at, self._trouble = answer, time.monotonic(), trouble


def serve(collector: LedgerCollector, address: str, port: int) -> WSGIServer:
    """Answer scrapers, in threads of their own, until the server's ``shutdown`` is called.

    Args:
        collector: what they are told.
        address: to listen on.
        port: likewise; 0 means a free one.

    Raises:
        UsageError: the address or the port cannot be used.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        return start_http_server(port, address, registry)[0]
    except OSError as error:
        raise UsageError(f"cannot listen on {address} port {port}: {error.strerror}") from error


def exposition(found: Reading) -> str:
    """Return a reading as a scraper would get it."""
    return generate_latest(_Once(found)).decode()


class _Once(Collector):
    def __init__(self, found: Reading) -> None:
        self._found = found

    def collect(self) -> Iterator[Family]:
        return _families(self._found)


def _families(found: Reading | None) -> Iterator[Family]:
    yield _family(UP, {(): float(found is not None)})
    if found is not None:
        yield from (_family(metric, found.plain[metric.name]) for metric in PLAIN)
        yield _histogram(found)


def _family(metric: Metric, samples: Samples) -> Family:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = kind(metric.name, metric.text, labels=metric.labels)
    for labels, value in sorted(samples.items()):
        family.add_metric(labels, value)
    return family


def _histogram(found: Reading) -> Family:
    family = HistogramMetricFamily(SECONDS.name, SECONDS.text, labels=SECONDS.labels)
    names = [*map(str, EDGES), "+Inf"]
    for labels, durations in sorted(found.durations.items()):
        counts = list(zip(names, accumulate(durations.counts), strict=True))
        family.add_metric(labels, counts, durations.total)
    return family
