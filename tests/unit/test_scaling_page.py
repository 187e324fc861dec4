"""The figures of the page about scaling are those of the result files, and the arithmetic is right."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "scaling.md").read_text()
SIZES = {f"10^{power}": 10**power for power in range(3, 9)}


def row_of(benchmark: str, **values: object) -> dict[str, Any]:
    """The one row of a result that has these values."""
    rows = json.loads((ROOT / "benchmarks" / "results" / f"{benchmark}.json").read_text())["rows"]
    (row,) = [row for row in rows if values.items() <= row.items()]
    return row


def measured() -> dict[str, tuple[float, str]]:
    """The figures by their letters, with the files that they come from."""
    stored = json.loads((ROOT / "benchmarks" / "results" / "bench_store.json").read_text())
    new = {"what": "save new: jobs of 256, 1 writer"}
    full = {"stored": 10**7}
    found = {
        "r": (row_of("bench_pipeline", contender="producer-run", side=256)["images_per_second"], "bench_pipeline"),
        "r'": (row_of("bench_pipeline", contender="producer-run", side=1024)["images_per_second"], "bench_pipeline"),
        "s": (row_of("bench_sources", what="producer run, S3")["share_of_local"], "bench_sources"),
        "e": (
            row_of("bench_enqueue", database="postgresql", what="producer enqueue")["images_per_second"],
            "bench_enqueue",
        ),
        "l": (row_of("bench_sources", what="producer enqueue")["images_per_second"], "bench_sources"),
        "f": (stored["sqlite"]["bytes"]["tables"] / 10**7, "bench_store"),
        "p": (sum(stored["postgresql"]["bytes"].values()) / 10**7, "bench_store"),
        "w₀": (row_of("bench_store", database="postgresql", stored=0, **new)["verdicts_per_second"], "bench_store"),
        "w₇": (row_of("bench_store", database="postgresql", **full, **new)["verdicts_per_second"], "bench_store"),
        "v₇": (row_of("bench_store", database="sqlite", **full, **new)["verdicts_per_second"], "bench_store"),
        "d": (row_of("bench_store", database="postgresql", what="db stats", **full)["in_process_s"], "bench_store"),
    }
    return {name: (value, f"`{source}.json`") for name, (value, source) in found.items()}


FIGURES = measured()
R, F, P = (FIGURES[name][0] for name in "rfp")


def shown(value: float) -> str:
    """A number to three significant digits."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.7f}".rstrip("0").rstrip(".")


def cells(pattern: str) -> list[list[str]]:
    """The cells of the rows of tables that begin so."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in re.findall(rf"^\| {pattern} \|.*$", PAGE, re.M)
    ]


def test_each_measured_figure_is_the_one_in_its_file() -> None:
    found = {row[0].strip("*"): (row[2], row[3]) for row in cells(r"\*[^|]+\*")}
    assert found == {name: (shown(value), source) for name, (value, source) in FIGURES.items()}


def test_the_table_of_sizes_is_calculated_from_them() -> None:
    rows = {row[0]: row[2:] for row in cells(r"10\^\d")}
    assert rows == {
        name: [shown(n / R / 3600), shown(n * F / 1e9), shown(n * P / 1e9), shown(n * 1e5 / 1e12)]
        for name, n in SIZES.items()
    }


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("hours of cores, on cores alone", 2e8 / R / 3600),
        ("their price", 0.05 * 2e8 / R / 3600),
        ("hours of GPUs instead", 1e8 / 1000 / 3600),
        ("their price", 1.5 * 1e8 / 1000 / 3600),
        ("GB of PostgreSQL", 1e8 * P / 1e9),
    ],
)
def test_the_costs_are_calculated_from_them(what: str, value: float) -> None:
    assert shown(value) in [row[2] for row in cells(re.escape(what))]
