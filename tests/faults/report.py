"""Figures and tables of ``docs/reliability.md``, of the lines that ``tests.faults.run`` wrote.

    python -m tests.faults.report faults.jsonl

The figures go to ``benchmarks/results/faults.json``, the tables between their marks in the page.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

from tests.faults.catalogue import FAULTS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
WORST = 5

Result = dict[str, Any]


def summarise(runs: Sequence[Result]) -> Result:
    """Add up the runs.

    Args:
        runs: as ``tests.faults.demands.Findings``, each with its seed and plan; those that the runner could not finish
            have complaints and no figures.

    Returns:
        What goes into the file of results.
    """
    finished = [run for run in runs if "trials" in run]
    trials: dict[str, list[Result]] = defaultdict(list)
    for run in finished:
        for trial in run["trials"]:
            trials[trial["fault"]].append(trial | {"seed": run["seed"]})
    recoveries = sorted(
        ({"seed": trial["seed"], "fault": name, "seconds": trial["recovery"]}
         for name, some in trials.items() for trial in some if trial["recovery"] is not None),
        key=lambda found: -found["seconds"],
    )  # fmt: skip
    return {
        "runs": len(runs),
        "runs_with_complaints": sum(bool(run["complaints"]) for run in runs),
        "faults": sum(map(len, trials.values())),
        **{
            name: _total(finished, name)
            for name in ("images", "lost", "duplicated", "stuck", "redelivered", "restarts")
        },
        "wrong": sum(sum(run["wrong"].values()) for run in finished),
        "poisonous_runs": sum(run["plan"]["poison"] > 0 for run in finished),
        "longest_recovery_s": recoveries[0]["seconds"] if recoveries else None,
        "slowest": recoveries[:WORST],
        "complaints": [{"seed": run["seed"], "complaints": run["complaints"]} for run in runs if run["complaints"]],
        "by_fault": {name: _of_fault(trials[name]) for name in FAULTS if trials[name]},
    }


def tables(figures: Result) -> str:
    """Return the tables, in Markdown."""
    whole = [
        ("runs", figures["runs"]),
        ("faults injected", figures["faults"]),
        ("images", figures["images"]),
        ("images lost", figures["lost"]),
        ("images with more than one verdict (the primary key allows none)", figures["duplicated"]),
        ("images with another status than expected", figures["wrong"]),
        ("workers that lived but took no jobs in the end", figures["stuck"]),
        ("runs with anything to complain of, these included", figures["runs_with_complaints"]),
        ("jobs delivered again", figures["redelivered"]),
        ("workers that ended by a fault and were started again", figures["restarts"]),
        ("longest recovery", f"{_seconds(figures['longest_recovery_s'])} s"),
    ]
    rows = [
        (name, found["times"], *(_seconds(found[column]) for column in ("median_s", "longest_s", "longest_repair_s")))
        for name, found in figures["by_fault"].items()
    ]
    head = ("fault", "times", "recovery, median s", "recovery, longest s", "its jobs done, longest s")
    return table(("all runs", ""), whole) + "\n" + table(head, rows)


def write_between(page: Path, mark: str, text: str) -> None:
    """Replace what stands between ``<!-- mark -->`` and ``<!-- end of mark -->`` in a page."""
    before, rest = page.read_text().split(f"<!-- {mark} -->\n", 1)
    _, after = rest.split(f"<!-- end of {mark} -->", 1)
    page.write_text(f"{before}<!-- {mark} -->\n\n{text}\n<!-- end of {mark} -->{after}")


def main(arguments: list[str]) -> int:
    """Write the file of results and the page; 1 if any run had something to complain of."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("runs", type=Path, help="lines that tests.faults.run wrote")
    made.add_argument("--out", type=Path, default=RESULTS)
    made.add_argument("--page", type=Path, default=PAGE)
    chosen = made.parse_args(arguments)
    figures = summarise([json.loads(line) for line in chosen.runs.read_text().splitlines()])
    old = json.loads(chosen.out.read_text()) if chosen.out.exists() else {}
    machine = {"cores": len(os.sched_getaffinity(0)), "written_at": datetime.now(UTC).isoformat(timespec="seconds")}
    chosen.out.write_text(json.dumps(old | {"machine": machine, "faults": figures}, indent=1) + "\n")
    write_between(chosen.page, "faults", tables(figures))
    return int(figures["runs_with_complaints"] > 0)


def _total(runs: Iterable[Result], name: str) -> int:
    return sum(run[name] for run in runs)


def _of_fault(trials: Sequence[Result]) -> Result:
    recoveries = [trial["recovery"] for trial in trials if trial["recovery"] is not None]
    repairs = [trial["repair"] for trial in trials if trial["repair"] is not None]
    return {
        "times": len(trials),
        "median_s": round(median(recoveries), 1) if recoveries else None,
        "longest_s": max(recoveries, default=None),
        "longest_repair_s": max(repairs, default=None),
    }


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown: the first column to the left, the others to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "".join(
        f"| {' | '.join(f'{cell:,}' if isinstance(cell, int) else str(cell) for cell in line)} |\n" for line in lines
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
