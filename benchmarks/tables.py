"""Write the tables of benchmarks/README.md from the result files beside it, and what they were measured on.

python benchmarks/tables.py [--page FILE]
"""

import argparse
import json
import re
from pathlib import Path
from typing import Any

from lab import RESULTS


def table(result: dict[str, Any]) -> str:
    """Return the rows of a result in Markdown, with a line about the machine."""
    rows, machine = result["rows"], result["machine"]
    columns = list(rows[0])
    is_text = {column: any(isinstance(row[column], str) for row in rows) for column in columns}
    lines = [columns, ["---" if is_text[column] else "--:" for column in columns]]
    lines += [[_cell(row[column]) for column in columns] for row in rows]
    versions = ", ".join(f"{name} {number}" for name, number in result.get("versions", {}).items())
    source = (
        f"{result['measured_at'][:10]}, {machine['cores']} cores of {machine['cpu']} ({', '.join(machine['units'])}), "
        f"Python {machine['python']}{', ' if versions else ''}{versions}."
    )
    return "\n".join([source, "", *(f"| {' | '.join(cells)} |" for cells in lines)])


def renew(page: str, results: Path) -> str:
    """Return the page with its tables made anew; they stand between ``<!-- NAME -->`` and ``<!-- end -->``.

    Raises:
        ValueError: the page has no such place for a result.
    """
    for path in sorted(results.glob("bench_*.json")):
        if path.stem == "bench_scale":  # docs/capacity.md has it
            continue
        text = table(json.loads(path.read_text()))
        mark = rf"(<!-- {path.stem} -->\n).*?(<!-- end -->)"
        page, times = re.subn(mark, lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page, flags=re.DOTALL)
        if times != 1:
            raise ValueError(f"the page has {times} places for {path.stem}, it needs one")
    return page


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, int | float):
        rounded = float(f"{value:.4g}")
        return f"{rounded:,.0f}" if abs(rounded) >= 1000 or rounded == int(rounded) else f"{rounded:g}"
    return str(value).replace("|", "/")


def main() -> None:
    """Parse, renew."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--page", type=Path, default=RESULTS.parent / "README.md")
    options = made.parse_args()
    options.page.write_text(renew(options.page.read_text(), RESULTS))


if __name__ == "__main__":
    main()
