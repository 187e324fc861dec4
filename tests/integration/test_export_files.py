"""The files of an export: formats, row groups and parts."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from sqlalchemy import Engine

from core.errors import UsageError
from db import export_files
from db.export import NAMES, Tally, open_selection
from db.export_files import Format, Kind, write_parts
from db.filters import Filter
from tests.integration.builders import Books, refs, scored


def rows_of(number: int) -> Iterator[tuple[Any, ...]]:
    """Return rows with numbers for URIs."""
    row = dict.fromkeys(NAMES) | {"model_id": "m", "scan_id": 1}
    return (tuple((row | {"uri": str(index)}).values()) for index in range(number))


@pytest.mark.parametrize("number", [0, 1, 3, 4, 7, 8, 9])
def test_rows_are_read_in_batches_and_written_in_groups(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_files, "BATCH", 2)
    monkeypatch.setattr(export_files, "GROUP", 4)
    tally = Tally()
    export_files.write_parquet(tally.watch(rows_of(number)), tmp_path / "out", lambda: {"rows": tally.rows})
    file = parquet.ParquetFile(tmp_path / "out")
    assert file.read()["uri"].to_pylist() == [str(index) for index in range(number)]
    assert file.num_row_groups == math.ceil(number / 4)
    assert json.loads(file.schema_arrow.metadata[b"facesieve"]) == {"rows": number}


def test_no_more_rows_are_held_than_a_group_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_files, "BATCH", 10)
    monkeypatch.setattr(export_files, "GROUP", 20)
    sizes: list[int] = []

    def watched() -> Iterator[tuple[Any, ...]]:
        for index, row in enumerate(rows_of(100)):
            if index % 20 == 0:
                sizes.append((tmp_path / "out").stat().st_size)
            yield row

    export_files.write_parquet(watched(), tmp_path / "out", dict)
    assert sizes == sorted(set(sizes))  # each group was in the file before the next one was asked for


@pytest.mark.parametrize(("number", "sizes"), [(0, [0]), (3, [3]), (4, [3, 1]), (6, [3, 3]), (7, [3, 3, 1])])
@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl.gz"])
def test_parts_hold_so_many_rows_each(
    suffix: str, number: int, sizes: list[int], books: Books, engine: Engine, tmp_path: Path
) -> None:
    if number:
        books.save([scored(ref) for ref in refs(number)])
    folder = tmp_path / f"out.{suffix}"
    with open_selection(engine, Filter()) as selection:
        written = write_parts(selection, selection.rows(), folder, Kind.of(folder.name, None), size=3, overwrite=False)
    assert written == (len(sizes), number)
    parts = sorted(path for path in folder.iterdir() if not path.name.endswith(".json"))
    assert [path.name for path in parts] == [f"part-{index:05}.{suffix}" for index in range(len(sizes))]
    if suffix == "parquet":
        tables = [parquet.read_table(path) for path in parts]
        assert [len(table) for table in tables] == sizes
        assert {uri for table in tables for uri in table["uri"].to_pylist()} == {ref.uri for ref in refs(number)}
        assert [json.loads(table.schema.metadata[b"facesieve"])["rows"] for table in tables] == sizes
    else:
        beside = [json.loads(Path(f"{path}.provenance.json").read_text()) for path in parts]
        assert [one["rows"] for one in beside] == sizes


@pytest.mark.parametrize(
    ("name", "wanted", "kind"),
    [
        ("a.parquet", None, Kind("parquet")),
        ("a.csv", None, Kind("csv")),
        ("a.jsonl", None, Kind("jsonl")),
        ("a.b.csv.gz", None, Kind("csv", True)),
        ("a.jsonl.gz", None, Kind("jsonl", True)),
        ("a.csv", "jsonl", Kind("jsonl")),
        ("a", "parquet", Kind("parquet")),
        ("a.gz", "csv", Kind("csv", True)),
        ("a.parquet.gz", None, None),
        ("a.gz", "parquet", None),
        ("a", None, None),
        (".csv", None, None),
        ("a.txt", None, None),
        ("a.gz", None, None),
    ],
)
def test_the_format_follows_from_the_suffix_unless_it_is_given(
    name: str, wanted: Format | None, kind: Kind | None
) -> None:
    if kind is None:
        with pytest.raises(UsageError, match=r"\.gz|--format"):
            Kind.of(name, wanted)
    else:
        assert Kind.of(name, wanted) == kind
