"""``producer run`` on archives: the same scores as for the files in them, and the commands that read images again."""

import csv
import json
import os
from pathlib import Path

import pytest

from core.uris import split_member
from tests.archived import write_table, write_tar, write_zip
from tests.e2e.conftest import Site, write_images

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def faces(tmp_path: Path) -> dict[str, bytes]:
    """Images by their names, in a folder ``faces`` and in archives ``faces.*`` beside it; the last two are bad."""
    folder = tmp_path / "faces"
    for index, path in enumerate(write_images(folder, 30)):
        with path.open("ab") as file:
            file.write(b"%d" % index)  # each has a digest of its own
    whole = (folder / "00" / "000000.jpg").read_bytes()
    (folder / "00" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "00" / "text.jpg").write_text("no image")
    found = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.jpg"))}
    write_tar(tmp_path / "faces.tar", found)
    write_zip(tmp_path / "faces.zip", found)
    write_table(tmp_path / "faces.parquet", list(found.values()), group=10)
    return found


def rows_of(site: Site) -> dict[str, dict[str, object]]:
    """Return all verdicts, by URI."""
    rows = [json.loads(line) for line in site.ok("db", "list", "--json", "--limit", "0").splitlines()]
    assert len({row["uri"] for row in rows}) == len(rows)
    return {str(row["uri"]): row for row in rows}


def test_members_of_archives_get_the_scores_of_their_files_and_a_second_run_computes_nothing(
    site: Site, tmp_path: Path, faces: dict[str, bytes]
) -> None:
    sources = [tmp_path / "faces", *(tmp_path / f"faces.{kind}" for kind in ("tar", "zip", "parquet"))]
    summary = json.loads(site.ok("producer", "run", *sources, "--job-size", "7", "--json"))

    assert (summary["listed"], summary["scored"]) == (128, 128)
    rows = rows_of(site)
    assert sorted(str(row["status"]) for row in rows.values() if row["status"] != "ok") == (
        ["truncated"] * 4 + ["unsupported"] * 4
    )
    names = list(faces)
    for number, name in enumerate(names):
        of_file = rows[str(tmp_path / "faces" / name)]
        for uri in (f"faces.tar#{name}", f"faces.zip#{name}", f"faces.parquet#{number}"):
            of_member = rows[str(tmp_path / uri)]
            assert [of_member[key] for key in ("status", "reason")] == [of_file[key] for key in ("status", "reason")]
            assert of_member["p_real"] == pytest.approx(of_file["p_real"], abs=1e-5)
    site.ok("db", "verify", "--complete")

    again = json.loads(site.ok("producer", "run", *sources, "--json"))
    assert (again["listed"], again["skipped"], again["scored"]) == (128, 128, 0)

    os.utime(tmp_path / "faces.zip", (1, 1))
    changed = json.loads(site.ok("producer", "run", *sources, "--json"))
    assert (changed["skipped"], changed["scored"]) == (96, 32)


def test_commands_that_read_images_again_find_them_in_their_archives(
    site: Site, tmp_path: Path, faces: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = [tmp_path / f"faces.{kind}" for kind in ("tar", "zip", "parquet")]
    site.ok("producer", "run", *archives)

    shown = json.loads(site.ok("db", "show", f"{archives[0]}#00/000003.jpg", "--json"))
    assert shown["uri"] == f"{archives[0]}#00/000003.jpg"
    assert len(shown["same_content"]) == 2
    monkeypatch.chdir(tmp_path)
    assert json.loads(site.ok("db", "show", "faces.tar#00/000003.jpg", "--json")) == shown

    site.ok("db", "export", "--copy-to", tmp_path / "sorted")
    with (tmp_path / "sorted" / "manifest.csv").open(encoding="utf-8") as file:
        copies = {row["uri"]: tmp_path / "sorted" / row["file"] for row in csv.DictReader(file)}
    assert len(copies) == 90
    for uri, copy in copies.items():
        name = str(split_member(uri)[1])
        assert copy.read_bytes() == (faces[name] if name in faces else list(faces.values())[int(name)])

    done = site.run("db", "export", "--link-to", tmp_path / "linked")
    assert done.returncode == 1
    assert "member of an archive" in done.stderr

    site.ok("db", "report", "--out", tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().count("data:image/webp") > 10

    assert json.loads(site.ok("db", "prune", "--missing", "--yes", "--json"))["verdicts"] == 0
    archives[1].unlink()
    assert json.loads(site.ok("db", "prune", "--missing", "--yes", "--json"))["verdicts"] == 32
