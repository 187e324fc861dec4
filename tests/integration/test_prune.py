"""What is pruned is gone, what is not stays, and the books of every scan still balance."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, Table, delete, func, insert, select, update

import db.doomed
import db.prune
from core.errors import UsageError
from core.images import ImageRef
from core.verdicts import Status
from db import schema
from db.doomed import Wanted
from db.ledger import every_scan, latest_scan, read_ledger, verify_scan
from db.prune import Pruned, count_pruned, open_pruning
from tests.integration.builders import Books, failed, refs, scored, write
from tests.integration.commands import HOSTILE
from tests.integration.invoking import Db


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (db.doomed, db.prune):
        monkeypatch.setattr(module, "BATCH", 3)
    monkeypatch.setattr(db.prune, "JOBS_IN_BATCH", 2)


@pytest.fixture
def cli(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Db:
    """The command line."""
    return Db(engine, monkeypatch)


def ignore(_done: int) -> None:
    """Report to nobody."""


def prune(engine: Engine, **wanted: object) -> Pruned:
    """Prune without asking."""
    with open_pruning(engine, Wanted(**wanted), ignore) as pruning:  # type: ignore[arg-type]
        pruning.book(ignore)
        return pruning.delete(ignore)


def number(engine: Engine, table: Table = schema.verdict, **values: object) -> int:
    """Count the rows of a table that have these values."""
    tests = (table.c[name] == value for name, value in values.items())
    with engine.connect() as connection:
        return connection.execute(select(func.count()).select_from(table).where(*tests)).scalar_one()


def balance(engine: Engine) -> bool:
    """Tell whether all books balance."""
    return all(verify_scan(engine, scan) == [] for scan in every_scan(engine))


def end(*scans: Books) -> None:
    """Close listings."""
    for scan in scans:
        scan.store.finish_scan(scan.scan_id, "listed")


@pytest.fixture
def three(new_books: Callable[..., Books]) -> list[Books]:
    """Three scans by one model and one by another: the second scores half of the first's again, the third all."""
    one, two, three, other = new_books(), new_books(), new_books(), new_books("other")
    for images in (refs(8), refs(4, start=8)):
        one.save([scored(ref) for ref in images])
    two.save([*(scored(ref, 0.1) for ref in refs(6)), *(failed(ref) for ref in refs(3, "/two/"))])
    three.save([scored(ref, 0.2) for ref in refs(12)])
    other.save([scored(ref, 0.3) for ref in refs(5)])
    end(one, two, three, other)
    return [one, two, three, other]


@pytest.mark.parametrize("which", range(4))
def test_a_pruned_scan_is_forgotten_and_all_other_books_balance(
    which: int, three: list[Books], engine: Engine, cli: Db
) -> None:
    scan = three[which].scan_id
    its, others = number(engine, scan_id=scan), number(engine) - number(engine, scan_id=scan)
    assert prune(engine, scan_id=scan).verdicts == its
    assert number(engine) == others
    assert number(engine, scan_id=scan) == 0
    assert every_scan(engine) == [books.scan_id for books in three if books.scan_id != scan]
    assert balance(engine)
    for ask in (read_ledger, verify_scan):
        with pytest.raises(UsageError, match=f"there is no scan {scan}"):
            ask(engine, scan)
    with engine.connect() as connection:
        rows = connection.execute(select(schema.job.c.payload).where(schema.job.c.scan_id == scan)).scalars()
        assert set(map(bytes, rows)) == {b""}, "names of images are left"
        assert connection.execute(select(schema.scan.c.sources).where(schema.scan.c.id == scan)).scalar_one() == "[]"


def test_every_scan_can_be_forgotten_in_any_order(three: list[Books], engine: Engine) -> None:
    for which in (2, 0, 3, 1):
        prune(engine, scan_id=three[which].scan_id)
        assert balance(engine)
    assert number(engine) == number(engine, schema.image) == 0
    with pytest.raises(UsageError, match="there is no scan yet"):
        latest_scan(engine)


def test_the_number_of_a_forgotten_scan_is_not_used_again_and_its_messages_mean_nothing(
    books: Books, new_books: Callable[..., Books], engine: Engine
) -> None:
    job = books.save([scored(ref) for ref in refs(3)])
    end(books)
    prune(engine, scan_id=books.scan_id)
    assert new_books().scan_id > books.scan_id
    assert books.store.begin_job(job.id, "late@host").is_over
    assert books.store.requeue(job.id) is None
    books.store.fail_job(job.id, "late")
    assert number(engine, schema.job, status="forgotten") == 1


@pytest.mark.parametrize(
    ("wanted", "gone"),
    [
        ({"failed": True}, 3),
        ({"before": datetime(9000, 1, 1, tzinfo=UTC)}, 20),
        ({"before": datetime(2020, 1, 1, tzinfo=UTC)}, 0),
        ({"failed": True, "before": datetime(2020, 1, 1, tzinfo=UTC)}, 0),
        ({"missing": True}, 20),
    ],
    ids=str,
)
def test_pruned_verdicts_leave_books_that_balance(
    wanted: dict[str, object], gone: int, three: list[Books], engine: Engine
) -> None:
    before = number(engine)
    assert prune(engine, **wanted).verdicts == gone
    assert number(engine) == before - gone
    assert balance(engine)
    assert every_scan(engine) == [books.scan_id for books in three]
    assert prune(engine, **wanted) == Pruned(0, 0)


def test_the_verdicts_of_a_model_go_and_those_of_others_stay(three: list[Books], engine: Engine, cli: Db) -> None:
    cli.ok("prune", "--model", "card", "--yes")
    assert number(engine) == number(engine, model_id=three[3].model.id) == 5
    assert number(engine, schema.image) == 5
    assert balance(engine)
    assert [count_pruned(engine, books.scan_id) for books in three] == [12, 9, 12, 0]


def test_only_what_is_older_than_the_day_goes(three: list[Books], engine: Engine, cli: Db) -> None:
    old = datetime.now().astimezone() - timedelta(days=5)
    write(engine, update(schema.verdict).where(schema.verdict.c.scan_id == three[2].scan_id).values(scored_at=old))
    day = (old + timedelta(days=2)).strftime("%Y-%m-%d")
    assert cli.read("prune", "--before", day, "--yes") == {"verdicts": 12, "images": 7, "scan": None}
    assert number(engine, scan_id=three[2].scan_id) == 0
    assert balance(engine)


def test_options_mean_what_all_of_them_are_true_of(three: list[Books], engine: Engine, cli: Db) -> None:
    assert cli.read("prune", "--failed", "--model", "other", "--yes")["verdicts"] == 0
    assert cli.read("prune", "--failed", "--missing", "--model", "card", "--yes")["verdicts"] == 3


def test_a_verdict_that_is_truly_lost_is_still_found_after_pruning(
    three: list[Books], new_books: Callable[..., Books], engine: Engine
) -> None:
    prune(engine, failed=True)
    prune(engine, scan_id=three[2].scan_id)
    lost = refs(1)[0]
    new_books().save([scored(lost)])
    assert balance(engine)
    write(engine, delete(schema.verdict).where(schema.verdict.c.image_id == lost.id))
    problems = [problem for scan in every_scan(engine) for problem in verify_scan(engine, scan)]
    assert any("1 of 1 images have no verdict" in problem for problem in problems)


def test_pruned_images_can_be_scored_and_pruned_again(books: Books, engine: Engine) -> None:
    for _ in range(3):
        books.save([failed(ref) for ref in refs(5)])
        assert balance(engine)
        assert prune(engine, failed=True) == Pruned(5, 5)
        assert balance(engine)
    assert count_pruned(engine, books.scan_id) == 15


def test_pruning_that_was_cut_short_can_be_done_again(three: list[Books], engine: Engine) -> None:
    with open_pruning(engine, Wanted(failed=True), ignore) as pruning:
        pruning.book(ignore)
        assert balance(engine)
    assert number(engine, status="truncated") == 3
    assert prune(engine, failed=True).verdicts == 3
    assert count_pruned(engine, three[1].scan_id) == 3
    assert balance(engine)


def test_a_verdict_that_a_worker_replaces_meanwhile_stays(books: Books, engine: Engine) -> None:
    books.save([failed(ref) for ref in refs(6)])
    with open_pruning(engine, Wanted(failed=True), ignore) as pruning:
        books.save([failed(ref, Status.UNREADABLE) for ref in refs(2)])
        pruning.book(ignore)
        books.save([failed(ref, Status.UNREADABLE) for ref in refs(2, start=2)])
        assert pruning.delete(ignore) == Pruned(2, 2)
    assert number(engine, status="unreadable") == number(engine) == 4
    assert balance(engine)


def test_a_worker_goes_on_while_its_images_are_pruned_again_and_again(books: Books, engine: Engine) -> None:
    with ThreadPoolExecutor(1) as thread:
        worker = thread.submit(lambda: [books.save([failed(ref) for ref in refs(7)]) for _ in range(25)])
        while not worker.done():
            prune(engine, failed=True)
        worker.result()
    assert balance(engine)
    prune(engine, failed=True)
    assert number(engine) == number(engine, schema.image) == 0
    assert balance(engine)


def test_an_image_that_was_reviewed_stays_with_its_review(books: Books, engine: Engine) -> None:
    kept, *_ = images = refs(3)
    books.save([scored(ref) for ref in images])
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    values = {"label": "real", "note": "", "reviewer": "me", "reviewed_at": moment}
    write(engine, insert(schema.review).values(image_id=kept.id, **values))
    end(books)
    assert prune(engine, scan_id=books.scan_id) == Pruned(3, 2)
    assert number(engine, schema.image, id=kept.id) == number(engine, schema.review) == 1


def test_a_scan_that_is_not_over_is_refused(books: Books, engine: Engine, cli: Db) -> None:
    assert "it is being listed: wait" in cli.error(2, "prune", "--scan", books.scan_id, "--yes")
    job = books.queue(refs(4))
    end(books)
    assert "4 images are pending" in cli.error(2, "prune", "--scan", books.scan_id, "--yes")
    books.store.begin_job(job.id, "worker@host")
    assert f"producer cancel {books.scan_id}" in cli.error(2, "prune", "--scan", books.scan_id, "--yes")
    books.run(job)
    assert "pruned 4 verdicts, and 4 images" in cli.ok("prune", "--scan", books.scan_id, "--yes")
    assert "there is no scan" in cli.error(2, "prune", "--scan", books.scan_id, "--yes")


def test_images_whose_file_is_gone_go_and_others_stay(books: Books, engine: Engine, cli: Db, tmp_path: Path) -> None:
    names = [*HOSTILE, "a.jpg"]
    for name in names:
        (tmp_path / name.replace("/", "")).touch()
    there = [ImageRef(f"{tmp_path}/{name.replace('/', '')}", "1-1", 1) for name in names]
    gone = [ImageRef(f"{tmp_path}/gone.jpg", "1-1", 1), ImageRef("file:///no%FFwhere/x.jpg", "1-1", 1)]
    elsewhere = [ImageRef("s3://bucket/x.jpg", "1-1", 1), ImageRef(f"{tmp_path}/{'x' * 300}", "1-1", 1)]
    books.save([scored(ref) for ref in (*there, *gone, *elsewhere)])
    assert "pruned 2 verdicts, and 2 images" in cli.ok("prune", "--missing", "--yes")
    assert cli.notes[0] == "note: 2 verdicts of 2 images are to go"
    assert cli.notes[1].startswith(
        "note: 1 files are gone with their whole folder, such as /no\\udcffwhere: is it a disk"
    )
    with engine.connect() as connection:
        left = set(connection.execute(select(schema.image.c.uri)).scalars())
    assert left == {ref.uri for ref in (*there, *elsewhere)}
    assert balance(engine)


@pytest.mark.parametrize(
    ("answer", "code", "expected"),
    [("n\n", 1, "nothing was pruned"), ("\n", 1, "nothing was pruned"), ("", 2, "give --yes")],
)
def test_nothing_goes_before_somebody_agrees(
    answer: str, code: int, expected: str, three: list[Books], engine: Engine, cli: Db
) -> None:
    before = number(engine)
    assert expected in cli.error(code, "prune", "--scan", three[0].scan_id, typed=answer)
    assert number(engine) == before
    assert count_pruned(engine, three[0].scan_id) == 0
    assert "pruned" in cli.ok("prune", "--scan", three[0].scan_id, typed="y\n")


def test_what_is_about_to_go_is_said(three: list[Books], cli: Db) -> None:
    cli.ok("prune", "--scan", three[3].scan_id, "--yes")
    assert cli.notes == [f"note: 5 verdicts of 5 images are to go, and scan {three[3].scan_id} with its jobs"]
    cli.ok("prune", "--model", "other")
    assert cli.notes == ["note: 0 verdicts of 0 images are to go", "note: nothing to prune"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "say what to prune"),
        (("--scan", 1, "--failed"), "--scan and --failed do not go together"),
        (("--model", "nobody"), "no model nobody"),
        (("--scan", 99), "there is no scan 99"),
    ],
    ids=str,
)
def test_what_cannot_be_pruned_is_refused(words: tuple[object, ...], expected: str, books: Books, cli: Db) -> None:
    assert expected in cli.error(2, "prune", *words, "--yes")
