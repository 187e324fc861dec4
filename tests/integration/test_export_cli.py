"""`db export` as a user runs it: what is written, replaced, printed and refused."""

import csv
import io
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyarrow import parquet
from sqlalchemy import Engine, insert

from core.images import ImageRef
from db import schema
from tests.integration.builders import Books, failed, refs, scored, write
from tests.integration.commands import HOSTILE, Site


@pytest.fixture
def site(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """An installation whose commands use the test's database."""
    monkeypatch.setenv("FACESIEVE_DATABASE_URL", database_url)
    return Site(tmp_path)


def test_moments_are_in_utc_whatever_the_databases_time_zone(
    books: Books, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    books.save([scored(ref) for ref in refs(2)])
    moments = {json.loads(line)["scored_at"] for line in site.ok("db", "export", "-", "--format", "jsonl").splitlines()}
    site.ok("db", "export", "out.parquet")
    read = parquet.read_table(site.folder / "out.parquet")["scored_at"].to_pylist()
    assert {moment.isoformat() for moment in read} == moments
    assert all(moment.endswith("+00:00") for moment in moments)


def test_nothing_is_left_of_an_export_that_fails_and_what_was_there_stays(books: Books, site: Site) -> None:
    books.save([scored(ref) for ref in refs(3)])
    (site.folder / "out.csv").write_text("precious")
    before = sorted(site.folder.iterdir())
    site.error(2, "db", "export", "out.csv", "--where", "1 /", "--overwrite")
    site.error(2, "db", "export", "new.parquet", "--where", "1 /")
    assert (site.folder / "out.csv").read_text() == "precious"
    assert sorted(site.folder.iterdir()) == before


def test_what_exists_is_replaced_only_if_that_is_asked_for(books: Books, site: Site) -> None:
    books.save([scored(ref) for ref in refs(3)])
    for words in (("out.csv",), ("out.parquet",), ("parts.csv", "--partition-rows", 2)):
        site.ok("db", "export", *words)
        books.save([scored(ref) for ref in refs(5)])
        assert "--overwrite" in site.error(2, "db", "export", *words)
        made = json.loads(site.ok("db", "export", *words, "--overwrite", "--json"))
        assert made["rows"] == 5
    assert len(list((site.folder / "parts.csv").glob("part-0000[0-2].csv"))) == 3
    (site.folder / "alone.csv.provenance.json").touch()
    assert "alone.csv.provenance.json exists" in site.error(2, "db", "export", "alone.csv")


def test_nothing_but_an_export_is_ever_replaced(books: Books, site: Site) -> None:
    folder = site.folder / "mine.csv"
    folder.mkdir()
    (folder / "part-00000.csv").write_text("an export's")
    (folder / "thesis.txt").write_text("precious")
    (site.folder / "pipe.csv").symlink_to("/dev/null")
    for words in (("mine.csv",), ("mine.csv", "--partition-rows", 5), ("pipe.csv",)):
        assert "choose another name" in site.error(2, "db", "export", *words, "--overwrite")
    assert (folder / "thesis.txt").read_text() == "precious"
    assert (site.folder / "pipe.csv").is_symlink()


def test_an_export_to_standard_output_is_all_that_is_there(books: Books, site: Site) -> None:
    names = {f"/faces/{name}" for name in HOSTILE}
    books.save([scored(ImageRef(name, "1-1", 1)) for name in sorted(names)])
    table = io.StringIO(site.ok("db", "export", "-", "--format", "csv"), newline="")
    assert {row["uri"] for row in csv.DictReader(table)} == names
    lines = site.ok("db", "export", "-", "--format", "jsonl").split("\n")[:-1]
    assert {json.loads(line)["uri"] for line in lines} == names


def test_a_standard_output_that_takes_nothing_is_one_line(books: Books, site: Site) -> None:
    books.save([scored(ref) for ref in refs(3)])
    command = f"{sys.executable} -m db export - --format csv > /dev/full"
    done = subprocess.run(["sh", "-c", command], cwd=site.folder, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "error: the standard output cannot be written: No space left on device\n",
    )


def test_the_filters_of_a_list_are_those_of_an_export(books: Books, site: Site) -> None:
    books.save([*(scored(ref, index / 10) for index, ref in enumerate(refs(10))), failed(refs(11)[10])])
    for words in (
        ("--label", "real"),
        ("--status", "truncated"),
        ("--min-score", 0.3, "--max-score", 0.6),
        ("--path", "*/0000[12].jpg"),
        ("--scan", books.scan_id),
        ("--model", "nobody"),
    ):
        exported = site.ok("db", "export", "-", "--format", "jsonl", *words).splitlines()
        listed = site.ok("db", "list", "--json", *words).splitlines()
        assert {json.loads(line)["uri"] for line in exported} == {json.loads(line)["uri"] for line in listed}


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("out.csv", "--copy-to", "sorted"),
        ("--copy-to", "sorted", "--link-to", "linked"),
        ("out.csv", "--reviewed", "manifest.csv"),
        ("-",),
        ("-", "--format", "parquet"),
        ("-", "--format", "csv", "--partition-rows", 3),
        ("out",),
        ("nowhere/out.csv",),
        ("nowhere/out.csv", "--partition-rows", 3),
        ("out.csv", "--label", "purple"),
        ("--copy-to", "sorted", "--format", "csv"),
        ("--link-to", "sorted", "--overwrite"),
        ("--reviewed", "manifest.csv", "--min-score", 0.0),
        ("--reviewed", "manifest.csv", "--where", "1 = 1"),
        ("--reviewed", "manifest.csv"),
        ("--reviewed", "nowhere/manifest.csv"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_end_with_2_and_write_nothing(words: tuple[object, ...], tmp_path: Path) -> None:
    assert Site(tmp_path).error(2, "db", "export", *words)
    assert {path.name for path in tmp_path.iterdir()} <= {"data"}  # the data directory


def test_a_file_of_a_hostile_name_is_written_and_shown_in_one_line(books: Books, site: Site) -> None:
    books.save([scored(ref) for ref in refs(2)])
    name = "\x1b[31m\n[red]\udcff.csv"
    shown = site.ok("db", "export", name)
    assert shown.count("\n") == 1
    assert shown.strip().isprintable()
    assert (site.folder / name).is_file()
    assert json.loads(site.ok("db", "export", name, "--overwrite", "--json"))["rows"] == 2


def test_without_pyarrow_only_parquet_is_refused(books: Books, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.folder / "hidden").mkdir()
    (site.folder / "hidden" / "pyarrow.py").write_text("raise ModuleNotFoundError('gone', name='pyarrow')")
    monkeypatch.setenv("PYTHONPATH", str(site.folder / "hidden"))
    assert "pip install 'facesieve[answers]'" in site.error(2, "db", "export", "out.parquet")
    site.ok("db", "export", "out.csv")


def test_sorting_images_ends_with_1_and_names_them_if_some_are_missing(books: Books, site: Site) -> None:
    there, gone = site.folder / "there.jpg", site.folder / "gone\x1b[31m\n.jpg"
    there.write_bytes(b"an image")
    books.save([scored(ImageRef(str(path), "1-1", 1)) for path in (there, gone)])
    done = site.run("db", "export", "--copy-to", "copies")
    assert (done.returncode, done.stdout) == (1, "copies: 1 real; 1 failed\n")
    first, last = done.stderr.splitlines()
    assert (first, first.isprintable()) == (f"{site.folder}/gone\\x1b[31m\\n.jpg: the file is gone", True)
    assert last.startswith("error: 1 of 2 images are missing from copies")
    done = site.run("db", "export", "--link-to", "links", "--json")
    assert json.loads(done.stdout) == {"path": "links", "labels": {"real": 1}, "failed": 1}
    assert (site.folder / "links" / "real" / "there.jpg").readlink() == there
    assert site.ok("db", "export", "--link-to", "good", "--path", "*/there.jpg") == "good: 1 real; 0 failed\n"


def test_reviewed_images_are_counted(books: Books, site: Site, engine: Engine) -> None:
    (ref,) = refs(1)
    books.save([scored(ref)])
    values = {"image_id": ref.id, "label": "generated", "note": "", "reviewer": "me", "reviewed_at": datetime.now(UTC)}
    write(engine, insert(schema.review).values(values))
    assert site.ok("db", "export", "--reviewed", "manifest.csv") == "manifest.csv: 1 generated; 0 failed\n"
