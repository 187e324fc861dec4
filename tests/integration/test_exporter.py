"""The exporter: what a scraper gets, also while the database is away or slow, and how it ends."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, update
from sqlalchemy.engine import make_url

import db.exporter
from core.errors import DatabaseBusyError, UsageError
from db import schema
from db.exporter import LedgerCollector, exposition, serve
from db.exposed import METRICS
from db.metrics import LedgerReader
from tests.integration.builders import Books, refs, scored, write
from tests.integration.invoking import Db

DEADLINE = 60.0
get = build_opener(ProxyHandler({})).open


@pytest.fixture(autouse=True)
def _nothing_stays_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db.exporter, "FRESH_SECONDS", 0.0)


@contextmanager
def serving(collector: LedgerCollector) -> Iterator[Callable[[], dict[str, float]]]:
    """Serve for the length of a block, and give what scrapes it."""
    server = serve(collector, "127.0.0.1", 0)
    try:
        yield lambda: scrape(f"http://127.0.0.1:{server.server_port}/metrics")
    finally:
        server.shutdown()
        server.server_close()


def scrape(url: str) -> dict[str, float]:
    """Return the sum of each metric's samples."""
    with get(url, timeout=DEADLINE) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {family.name: sum(sample.value for sample in family.samples) for family in families if family.samples}


def until(is_true: Callable[[], bool]) -> None:
    """Wait for something that takes its time."""
    deadline = time.monotonic() + DEADLINE
    while not is_true():
        assert time.monotonic() < deadline, "it never came true"


def test_a_scraper_gets_every_metric_of_the_list_and_no_other(books: Books, engine: Engine) -> None:
    books.save([scored(ref) for ref in refs(3)])
    families = {
        family.name: family for family in text_string_to_metric_families(exposition(LedgerReader(engine).read()))
    }
    assert set(families) == {metric.name.removesuffix("_total") for metric in METRICS}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.text)
        for sample in family.samples:
            assert tuple(sorted({*sample.labels} - {"le"})) == tuple(sorted(metric.labels)), sample


def test_hostile_names_arrive_as_they_are_shown(books: Books, engine: Engine) -> None:
    write(engine, update(schema.model).values(name='a"b\\n\n}{<script>\u202e'))
    text = exposition(LedgerReader(engine).read())
    (info,) = next(f for f in text_string_to_metric_families(text) if f.name == "facesieve_model_info").samples
    assert info.labels["model"] == 'a"b\\n\\n}{<script>\\u202e'


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: it is in Debian's prometheus")
def test_promtool_has_nothing_to_say_against_the_metrics(books: Books, engine: Engine) -> None:
    books.save([scored(ref) for ref in refs(3)])
    text = exposition(LedgerReader(engine).read())
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_database_that_goes_away_is_told_and_comes_back(books: Books, engine: Engine, database_url: str) -> None:
    notices: list[str] = []
    with serving(LedgerCollector(lambda: engine, notices.append)) as scraped:
        assert scraped()["facesieve_up"] == 1
        with taken_away(database_url):
            assert scraped() == scraped() == {"facesieve_up": 0}
        books.save([scored(ref) for ref in refs(3)])
        assert (scraped()["facesieve_up"], scraped()["facesieve_images"]) == (1, 3)
    first, second = notices
    assert first.startswith("note: database ")
    assert second == "note: the ledger can be read again"


@contextmanager
def taken_away(url: str) -> Iterator[None]:
    """Let nobody into a database for the length of a block."""
    parsed = make_url(url)
    if parsed.drivername == "sqlite":
        tables = ("model", "scan", "job")  # a file that is open can be read even when it is gone
        _rename(url, [(name, f"{name}_away") for name in tables])
        yield
        _rename(url, [(f"{name}_away", name) for name in tables])
        return
    server = parsed.set(drivername="postgresql", database="postgres").render_as_string(hide_password=False)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {parsed.database} ALLOW_CONNECTIONS false")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [parsed.database]
        )
        yield
        connection.execute(f"ALTER DATABASE {parsed.database} ALLOW_CONNECTIONS true")


def _rename(url: str, names: list[tuple[str, str]]) -> None:
    import sqlite3

    with sqlite3.connect(make_url(url).database or "") as connection:
        for old, new in names:
            connection.execute(f"ALTER TABLE {old} RENAME TO {new}")
    connection.close()


def test_an_exporter_may_be_there_before_the_database(engine: Engine, books: Books) -> None:
    engines: list[Engine] = []

    def open_ledger() -> Engine:
        if not engines:
            raise DatabaseBusyError("database x failed: no route")
        return engines[0]

    notices: list[str] = []
    with serving(LedgerCollector(open_ledger, notices.append)) as scraped:
        assert scraped() == {"facesieve_up": 0}
        engines.append(engine)
        assert scraped()["facesieve_up"] == 1
    assert notices == ["note: database x failed: no route", "note: the ledger can be read again"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # that it ends so is the test
def test_a_fault_of_ours_is_told_and_no_old_answer_passes_for_a_new_one(engine: Engine, books: Books) -> None:
    def open_ledger() -> Engine:
        raise ValueError("a fault")

    notices: list[str] = []
    with serving(LedgerCollector(open_ledger, notices.append)) as scraped:
        assert scraped() == {"facesieve_up": 0}
    assert notices == ["note: reading the ledger met a fault: see the traceback"]


def test_a_scraper_does_not_wait_for_a_database_that_says_nothing(engine: Engine, books: Books) -> None:
    speaks = threading.Event()

    def open_ledger() -> Engine:
        assert speaks.wait(DEADLINE)
        return engine

    with serving(LedgerCollector(open_ledger, print, patience=0.05)) as scraped:
        assert scraped() == scraped() == {"facesieve_up": 0}
        speaks.set()
        until(lambda: scraped()["facesieve_up"] == 1)


def test_scrapers_that_ask_at_once_share_one_reading(
    engine: Engine, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db.exporter, "FRESH_SECONDS", DEADLINE)
    all_ask = threading.Barrier(5)
    readings: list[None] = []

    class Counting(LedgerReader):
        def read(self) -> object:
            readings.append(None)
            return super().read()

    monkeypatch.setattr(db.exporter, "LedgerReader", Counting)
    collector = LedgerCollector(lambda: engine, print, patience=DEADLINE)
    ups: list[float] = []

    def ask() -> None:
        all_ask.wait(DEADLINE)
        ups.append(next(iter(collector.collect())).samples[0].value)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert (ups, len(readings)) == ([1.0] * 5, 1)


def test_a_port_that_is_taken_is_named(engine: Engine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen on 127.0.0.1 port {port}: "):
            serve(LedgerCollector(lambda: engine, print), "127.0.0.1", port)


def test_once_prints_the_metrics(books: Books, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    books.save([scored(ref) for ref in refs(3)])
    printed = Db(engine, monkeypatch).ok("metrics", "--once")
    assert 'facesieve_images_total{model="card",outcome="ok"} 3.0\n' in printed


def test_the_command_serves_until_it_is_stopped_even_if_scrapers_hang_up(books: Books, database_url: str) -> None:
    command = [sys.executable, "-m", "db", "--database", database_url, "metrics", "--port", "0"]
    books.save([scored(ref) for ref in refs(3)])
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        note = process.stderr.readline()
        url = note.split()[4].rstrip(";")
        assert note == f"note: metrics are at {url}; Ctrl+C ends it\n"
        port = int(url.split(":")[2].partition("/")[0])
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as rude:
                rude.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert scrape(url)["facesieve_up"] == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    finally:
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
        process.communicate()


def test_a_url_that_is_wrong_ends_the_command(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "db", "--database", "mysql://me:hush@host/db", "metrics"],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert done.returncode == 6
    assert done.stderr.startswith("error: database URL")
    assert "hush" not in done.stderr
