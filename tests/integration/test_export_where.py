"""SQL conditions of an export: what passes, what is refused, and that nothing can be changed with them."""

from pathlib import Path

import pytest
from sqlalchemy import Engine, select, update

from core.errors import FacesieveError, UsageError
from db import schema
from db.export import NAMES, open_selection
from db.export_files import Kind, write_file
from db.filters import Filter
from tests.integration.builders import Books, failed, refs, scored


def uris_of(engine: Engine, where: str, wanted: Filter | None = None) -> set[str]:
    """Return the URIs that pass a condition."""
    with open_selection(engine, wanted or Filter(), where) as selection:
        return {row[NAMES.index("uri")] for row in selection.rows()}


@pytest.mark.parametrize(
    ("where", "number"),
    [
        ("p_real >= 0.5", 5),
        ("p_real >= 0.5 -- the upper half", 5),
        ("p_real /* the score */ >= 0.5", 5),
        ("p_real >= 0.5 OR status = 'truncated'", 6),
        ("uri LIKE '%/00003%'", 1),
        ("uri LIKE '%%' AND uri NOT LIKE '%s'", 11),
        ("uri = ':name' OR uri = '/faces/00002.jpg'", 1),
        ("uri = 'a;b' OR reason = '--'", 0),
        ("label = 'real' AND width = 640", 4),
        ("digest_is_no_column IS NULL", None),
        ("(p_real) >= (0.5)", 5),
    ],
)
def test_a_condition_is_sql_on_the_view(where: str, number: int | None, books: Books, engine: Engine) -> None:
    books.save([*(scored(ref, index / 10) for index, ref in enumerate(refs(10))), failed(refs(11)[10])])
    if number is None:
        with pytest.raises(UsageError, match="digest_is_no_column"):
            uris_of(engine, where)
    else:
        assert len(uris_of(engine, where)) == number


def test_a_condition_does_not_widen_the_other_filters(books: Books, engine: Engine) -> None:
    books.save([scored(ref, index / 10) for index, ref in enumerate(refs(10))])
    assert len(uris_of(engine, "p_real > 0.8 OR 1 = 1", Filter(max_score=0.2))) == 3


@pytest.mark.parametrize(
    "where",
    [
        "",
        " ",
        "-- nothing",
        "p_real >",
        "p_real > 0.5; DELETE FROM verdict",
        "1 = 1; DROP TABLE verdict; --",
        "1 = 1) OR (1 = 1",
        "1 = 1) UNION SELECT * FROM (SELECT 1",
        "1 = 1)--",
        "1 = 1)/*",
        "1 = 1 THEN 1 END FROM labelled_verdict /*",
        "1 = 1 LIMIT 1",
        "p_real > 0.5 /* open",
        "1 = 1, 2 = 2",
        "SELECT 1",
        "EXISTS (DELETE FROM verdict RETURNING 1)",
        "uri = 'open",
        "uri = ?",
        "uri = :name",
        "uri = %s",
        "count(*) > 1",
        "no_function(uri)",
        "\udcff = 1",
        f"({'(' * 5000}1 = 1",
    ],
    ids=lambda where: ascii(where[:40]),
)
def test_what_is_no_condition_is_refused_in_one_line_and_changes_nothing(
    where: str, books: Books, engine: Engine
) -> None:
    books.save([scored(ref) for ref in refs(3)])
    with pytest.raises(UsageError) as caught:
        uris_of(engine, where)
    assert str(caught.value).startswith("--where ")
    assert "\n" not in str(caught.value)
    with engine.begin() as connection:  # the connection that goes back to the pool can write again
        assert len(connection.execute(select(schema.verdict)).all()) == 3
        connection.execute(update(schema.verdict).values(p_real=0.5))


def test_a_condition_that_fails_on_a_row_leaves_no_file(books: Books, engine: Engine, tmp_path: Path) -> None:
    # Only computing it tells.
    fails = {"sqlite": "abs(-9223372036854775807 - scan_id) > 0", "postgresql": "1 / (scan_id - 1) > 0"}
    books.save([scored(ref) for ref in refs(3)])
    folder = tmp_path / "new"
    folder.mkdir()
    with (
        pytest.raises(UsageError, match=r"--where '.*' is no condition on labelled_verdict: \w+"),
        open_selection(engine, Filter(), fails[engine.dialect.name]) as selection,
    ):
        write_file(selection, selection.rows(), folder / "out.csv", Kind("csv"), overwrite=False)
    assert list(folder.iterdir()) == []


def test_nothing_is_written_through_the_connection_of_an_export(books: Books, engine: Engine) -> None:
    with pytest.raises(FacesieveError, match=r"read-?only"), open_selection(engine, Filter()) as selection:
        selection._connection.execute(update(schema.scan).values(status="gone"))
