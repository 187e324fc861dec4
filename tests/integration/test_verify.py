"""All books at once: a line for each scan, and a failure if one does not balance."""

import json
from collections.abc import Callable

import pytest
from sqlalchemy import Engine, delete

from db import schema
from tests.integration.builders import Books, failed, refs, scored, write
from tests.integration.invoking import Db


@pytest.fixture
def cli(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Db:
    """The command line."""
    return Db(engine, monkeypatch)


@pytest.fixture
def scans(new_books: Callable[..., Books]) -> list[Books]:
    """Three scans that are over; the second has failures."""
    found = [new_books(), new_books(), new_books("other")]
    for books in found:
        books.save([scored(ref) for ref in refs(5)])
        books.store.finish_scan(books.scan_id, "listed")
        if books is found[0]:
            found[1].save([failed(ref) for ref in refs(3, "/failed/")])
    return found


def test_every_scan_is_verified_in_a_line_each(scans: list[Books], cli: Db) -> None:
    cli.ok("prune", "--failed", "--yes")
    lines = cli.ok("verify", "--all", "--complete").splitlines()
    assert [line.split(":")[0] for line in lines] == [f"scan {books.scan_id}" for books in scans]
    assert all(line.endswith("; passes") for line in lines)
    assert "3 truncated failed" in lines[1]
    assert "3 verdicts of these were pruned" in lines[1]
    rows = [json.loads(line) for line in cli.ok("verify", "--all", "--json").splitlines()]
    assert [row["scan"] for row in rows] == [books.scan_id for books in scans]
    assert [row["pruned"] for row in rows] == [0, 3, 0]


def test_one_scan_that_does_not_balance_fails_them_all(scans: list[Books], engine: Engine, cli: Db) -> None:
    write(engine, delete(schema.verdict).where(schema.verdict.c.scan_id == scans[2].scan_id))
    assert cli.error(1, "verify", "--all") == "1 of 3 scans do not pass: see `db verify SCAN`"
    done = cli.run("verify", "--all", "--json")
    assert [json.loads(line)["balances"] for line in done.stdout.splitlines()] == [True, True, False]
    assert "1 problem: job" in cli.run("verify", "--all").stdout.splitlines()[2]


def test_what_is_still_to_do_fails_them_all_if_that_is_asked_for(scans: list[Books], cli: Db) -> None:
    Books(cli.engine, scans[0].model).queue(refs(2))
    assert cli.ok("verify", "--all").splitlines()[3].endswith("passes")
    assert "1 of 4 scans" in cli.error(1, "verify", "--all", "--complete")


def test_all_and_one_do_not_go_together(scans: list[Books], cli: Db) -> None:
    assert "leave out 1" in cli.error(2, "verify", 1, "--all")


def test_no_scan_at_all_is_no_problem(cli: Db) -> None:
    assert cli.ok("verify", "--all") == ""
