"""The commands as a user runs them: exit codes, one-line errors, output for scripts, names that mean harm."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine, delete

from core.images import ImageRef
from core.verdicts import Status
from db import schema
from db.queries import COLUMNS
from tests.integration.builders import Books, failed, refs, scored, write
from tests.integration.commands import HOSTILE, Site


@pytest.fixture
def site(tmp_path: Path, broker: str, monkeypatch: pytest.MonkeyPatch) -> Site:
    """An installation with a running broker and an SQLite file of its own."""
    monkeypatch.setenv("FACESIEVE_BROKER_URL", broker)
    return Site(tmp_path)


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A folder with three images, and another file."""
    folder = tmp_path / "faces"
    folder.mkdir()
    for name in ("a.jpg", "b.png", "c.webp", "notes.txt"):
        (folder / name).write_bytes(b"12345")
    return folder


@pytest.fixture
def scored_site(site: Site, books: Books, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Site:
    """An installation whose database, on each kind of server, holds three scores and a failure."""
    outcomes = [scored(ref, score) for ref, score in zip(refs(3), (0.1, 0.5, 0.9), strict=True)]
    books.save([*outcomes, failed(refs(4)[3], Status.TOO_LARGE)])
    books.store.finish_scan(books.scan_id, "listed", ignored=0)
    monkeypatch.setenv("FACESIEVE_DATABASE_URL", database_url)
    return site


def test_a_source_that_does_not_exist_ends_with_4(site: Site) -> None:
    assert "gone" in site.error(4, "producer", "enqueue", "gone")


def test_a_folder_without_images_ends_with_4(site: Site) -> None:
    (site.folder / "empty").mkdir()
    assert "no images in empty" in site.error(4, "producer", "enqueue", "empty")


@pytest.mark.parametrize("words", [("db", "list"), ("producer", "status"), ("db", "upgrade")])
def test_a_data_directory_that_cannot_be_written_ends_with_3(words: tuple[str, ...], site: Site) -> None:
    (site.folder / "file").touch()
    line = site.error(3, *words, data_dir=str(site.folder / "file" / "data"))
    assert "FACESIEVE_DATA_DIR" in line


@pytest.mark.parametrize("words", [("db", "list"), ("producer", "enqueue", "faces"), ("worker", "start")])
def test_a_setting_that_is_not_known_ends_with_3(words: tuple[str, ...], site: Site, faces: Path) -> None:
    assert "FACESIEVE_JOBSIZE" in site.error(3, *words, jobsize="5")


def test_a_setting_with_a_wrong_value_ends_with_3(site: Site, faces: Path) -> None:
    assert "FACESIEVE_JOB_SIZE is 'many'" in site.error(3, "producer", "enqueue", faces, job_size="many")


@pytest.mark.parametrize(
    "url", ["nonsense", "mysql://me:hush@host/db", "postgresql://me:hush@127.0.0.1:1/db", "sqlite:////no/where/x.db"]
)
def test_a_database_that_cannot_be_used_ends_with_6(url: str, site: Site, faces: Path) -> None:
    assert "hush" not in site.error(6, "db", "list", database_url=url)
    assert "hush" not in site.error(6, "producer", "--database", url, "enqueue", faces)


@pytest.mark.parametrize("url", ["redis://me:hush@127.0.0.1:1/0", "redis+socket:///no/where.sock"])
def test_a_broker_that_is_down_ends_with_5(url: str, site: Site, faces: Path) -> None:
    line = site.error(5, "producer", "enqueue", faces, broker_url=url)
    assert "is Redis running there" in line
    assert "hush" not in line


@pytest.mark.parametrize(
    "url", ["amqp://me:hush@host", "redis://me:hush@host:port/0", "redis://:hush/hush@host:6379/0", "localhost"]
)
def test_a_broker_url_that_cannot_be_read_ends_with_3(url: str, site: Site, faces: Path) -> None:
    line = site.error(3, "producer", "--broker", url, "enqueue", faces)
    assert "FACESIEVE_BROKER_URL" in line
    assert "hush" not in line


@pytest.mark.parametrize("words", [("producer", "enqueue", "faces"), ("producer", "run", "faces"), ("worker", "start")])
def test_a_model_path_that_leads_nowhere_ends_with_7(words: tuple[str, ...], site: Site, faces: Path) -> None:
    assert "./nowhere not found" in site.error(7, *words, "--model", "./nowhere")


@pytest.mark.parametrize("words", [("producer", "run", "faces"), ("worker", "start")])
def test_a_model_that_this_machine_lacks_ends_with_7(words: tuple[str, ...], site: Site, faces: Path) -> None:
    assert "model init" in site.error(7, *words, model="untrained")


@pytest.mark.parametrize(
    "words",
    [
        ("producer", "status", 99),
        ("producer", "retry", 99),
        ("producer", "cancel", 99),
        ("db", "verify", 99),
        ("db", "verify"),
        ("producer", "status"),
        ("db", "list", "--label", "purple"),
        ("db", "list", "--order", "size"),
    ],
    ids=str,
)
def test_what_does_not_exist_ends_with_2(words: tuple[object, ...], site: Site) -> None:
    assert site.error(2, *words)


def test_an_option_that_does_not_exist_ends_with_2(site: Site) -> None:
    done = site.run("db", "list", "--colour")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--colour" in done.stderr


def test_a_preview_says_what_would_be_sent_and_sends_nothing(site: Site, faces: Path, client: "redis.Redis") -> None:
    found = json.loads(site.ok("producer", "enqueue", faces, "--dry-run", "--json"))
    assert found == {"listed": 3, "skipped": 0, "to_send": 3, "bytes": 15}
    assert "3 to send" in site.ok("producer", "enqueue", faces, "--dry-run")
    assert client.dbsize() == 0
    site.error(2, "producer", "status")  # not even a scan


def test_an_enqueue_tells_what_it_sent_and_the_status_where_it_is(
    site: Site, faces: Path, client: "redis.Redis"
) -> None:
    sent = json.loads(site.ok("producer", "enqueue", faces, "--json", "--job-size", 2))
    assert sent == {"scan": 1, "listed": 3, "skipped": 0, "sent": 3, "ignored": 1, "unlistable": []}
    status = json.loads(site.ok("producer", "status", "--json"))
    assert status.items() >= {"scan_id": 1, "listed": 3, "queued": 3, "ok": 0, "is_complete": False}.items()
    assert "2 jobs with 3 images" not in site.ok("producer", "retry")
    client.flushall()
    assert "2 jobs with 3 images sent again" in site.ok("producer", "retry")
    assert "2 jobs cancelled" in site.ok("producer", "cancel", 1)
    assert json.loads(site.ok("producer", "status", "--json"))["cancelled"] == 3


def test_without_a_broker_of_its_own_the_embedded_one_is_used_and_stopped(site: Site, faces: Path) -> None:
    site.ok("producer", "enqueue", faces, broker_url="embedded")
    socket = site.folder / "data" / "valkey" / "valkey.sock"
    assert socket.parent.is_dir()
    assert not socket.exists()


def test_a_list_as_json_is_one_object_for_each_line(scored_site: Site) -> None:
    rows = [json.loads(line) for line in scored_site.ok("db", "list", "--json").splitlines()]
    assert [row["p_real"] for row in rows] == [0.1, 0.5, 0.9, None]
    assert [row["label"] for row in rows] == ["generated", "generated", "real", None]
    assert all(tuple(row) == COLUMNS for row in rows)


def test_a_list_as_csv_has_a_header_and_empty_cells_for_what_is_missing(scored_site: Site) -> None:
    rows = list(csv.DictReader(io.StringIO(scored_site.ok("db", "list", "--csv", "--order", "-score"))))
    assert [row["p_real"] for row in rows] == ["0.9", "0.5", "0.1", ""]
    assert tuple(rows[0]) == COLUMNS


def test_a_list_for_people_says_how_much_it_leaves_out(scored_site: Site) -> None:
    assert "2 of 4 verdicts: more with --limit" in scored_site.ok("db", "list", "--limit", 2)
    assert "4 of 4 verdicts\n" in scored_site.ok("db", "list", "--limit", 0)


def test_a_reader_that_goes_away_is_no_error(scored_site: Site, books: Books, engine: Engine) -> None:
    Books(engine, books.model).save([scored(ref) for ref in refs(5000)])
    command = f"{sys.executable} -m db list --json --limit 0 | head -n 1"
    done = subprocess.run(["sh", "-c", command], cwd=scored_site.folder, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["uri"] == refs(1)[0].uri
    assert done.stderr == ""


def test_statistics_count_labels_statuses_and_scores(scored_site: Site) -> None:
    found = json.loads(scored_site.ok("db", "stats", "--json"))
    assert found["labels"] == {"generated": 2, "real": 1}
    assert found["statuses"] == {"ok": 3, "too_large": 1}
    assert found["histogram"] == [0, 1, 0, 0, 0, 1, 0, 0, 0, 1]
    assert "too_large" in scored_site.ok("db", "stats")


def test_statistics_of_an_empty_database_are_printed(site: Site) -> None:
    assert json.loads(site.ok("db", "stats", "--json"))["labels"] == {}
    assert "p_real" in site.ok("db", "stats")


def test_verification_ends_with_0_if_the_books_balance(scored_site: Site) -> None:
    assert "4 listed = 0 skipped + 3 ok + 1 too_large failed" in scored_site.ok("db", "verify", "--complete")
    assert json.loads(scored_site.ok("db", "verify", "--json"))["balances"] is True


def test_verification_ends_with_1_if_a_verdict_is_missing(scored_site: Site, engine: Engine) -> None:
    write(engine, delete(schema.verdict).where(schema.verdict.c.status == "too_large"))
    done = scored_site.run("db", "verify", "--json")
    found = json.loads(done.stdout)
    assert (done.returncode, found["balances"], len(found["problems"])) == (1, False, 1)
    assert "1 of 4 images have no verdict" in found["problems"][0]


def test_a_scan_that_is_not_complete_passes_unless_that_is_asked_for(scored_site: Site, books: Books) -> None:
    books.store.start_scan(["/more"], "card", None)
    scored_site.ok("db", "verify")
    assert "not complete" in scored_site.run("db", "verify", "--complete").stdout


def test_an_upgrade_says_from_where_to_where(site: Site, empty_database_url: str) -> None:
    assert f"none -> {schema.HEAD}" in site.ok("db", "upgrade", database_url=empty_database_url)
    assert f"{schema.HEAD} -> {schema.HEAD}" in site.ok("db", "upgrade", database_url=empty_database_url)


def test_hostile_names_are_listed_and_do_nothing(site: Site, books: Books, database_url: str) -> None:
    names = {f"/{name}" for name in HOSTILE}
    books.save([scored(ImageRef(name, "1-1", 1)) for name in sorted(names)])
    shown = site.ok("db", "list", database_url=database_url)
    assert all(char.isprintable() or char == "\n" for char in shown)
    for name in names:
        assert escaped(name) in shown
    lines = site.ok("db", "list", "--json", database_url=database_url).split("\n")[:-1]
    assert {json.loads(line)["uri"] for line in lines} == names
    table = io.StringIO(site.ok("db", "list", "--csv", database_url=database_url), newline="")
    assert {row["uri"] for row in csv.DictReader(table)} == names


def test_a_hostile_name_in_an_error_is_one_plain_line(site: Site) -> None:
    for name in ("".join(HOSTILE[:6]), "".join(HOSTILE[6:])):
        line = site.error(4, "producer", "enqueue", f"./{name}")
        assert line.isprintable()
        assert escaped(name) in line


def test_files_with_hostile_names_are_sent(site: Site, client: "redis.Redis") -> None:
    folder = site.folder / "[red]\x1b[31m\nfolder"
    folder.mkdir()
    for name in HOSTILE:
        (folder / name.replace("/", "")).touch()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe.jpg")).touch()
    assert f"{len(HOSTILE) + 1} queued" in site.ok("producer", "enqueue", folder)


def escaped(name: str) -> str:
    """Return a name as it is shown: what cannot be printed in Python's escapes."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in name)
