"""Makes two parts of docs/reliability.md, on fuzzing and on soaking, of the files of their results.

    python benchmarks/reliability.py

The parts stand between ``<!-- NAME -->`` and ``<!-- end of NAME -->``. The results are of ``tests.fuzz`` (`make fuzz`)
and of ``soak.py`` (`make soak`).
"""

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

import lab

PAGE = lab.ROOT / "docs" / "reliability.md"
WIDTH = 120
STATUSES = ("ok", "unreadable", "truncated", "too_large", "unsupported")
MEASURES = {
    "rss_mib": "memory, MiB",
    "used_mib": "memory by its own account, MiB",
    "descriptors": "descriptors",
    "threads": "threads",
    "keys": "keys",
    "wal_mib": "write-ahead log, MiB",
}

Result = dict[str, Any]


def fuzz_part(results: Path) -> str:
    """Return the tables of fuzzing, in Markdown."""
    images, thumbnails, messages = (
        _read(results / f"fuzz_{name}.json") for name in ("worker", "thumbnail", "messages")
    )
    head = ["format", "broken images", *STATUSES, "faults", "slowest, ms of CPU", "most memory, MiB"]
    rows = [
        [row["format"], *(_n(row[name]) for name in ("images", *STATUSES, "faults", "slowest_ms", "most_mib"))]
        for row in images["rows"]
    ]
    total = [_n(sum(row[name] for row in images["rows"])) for name in ("images", *STATUSES, "faults")]
    worst = [_n(max(row[name] for row in images["rows"])) for name in ("slowest_ms", "most_mib")]
    limits = images["limits"]
    runs = sum(row["runs"] for row in messages["rows"])
    return "\n\n".join(
        [
            _text(
                f"{_n(images['images'])} broken copies of {images['kinds']} drawn images went through a worker's "
                f"reading and decoding, {images['measured_at'][:10]}, seed {images['seed']}, "
                f"OpenCV {images['versions']['opencv-python-headless']}, "
                f"pillow-heif {images['versions']['pillow-heif']}. A fault would be a process that died, an image that "
                f"took more than {limits['seconds']:g} s or {limits['mib']:g} MiB, or an end without a status."
            ),
            _table([head, *rows, ["**all**", *total, *worst]], texts=1),
            _text(
                f"{_n(thumbnails['images'])} went through Pillow {thumbnails['versions']['pillow']}, as the pages of "
                f"`db report` and `db review` have it: {_n(len(thumbnails['faults']))} faults. Atheris, guided by "
                f"coverage, ran what reads bytes of others {_n(runs)} times:"
            ),
            _table(
                [
                    ["what", "executions", "faults"],
                    *([row["target"], _n(row["runs"]), _n(row["faults"])] for row in messages["rows"]),
                ],
                texts=1,
            ),
        ]
    )


def soak_part(results: Path) -> str:
    """Return the tables of soaking, in Markdown."""
    return "\n\n".join(_soaked(_read(results / f"soak_{kind}.json"), kind) for kind in ("simulated", "real"))


def _soaked(found: Result, kind: str) -> str:
    engine = {"simulated": "a simulated engine", "real": "the shipped model on OpenVINO"}[kind]
    head = [["process", "what", "first", "half-way", "at the end", "growth per 10^6 images"]]
    rows = [
        [row["process"], MEASURES[row["measure"]], *(_n(row[name]) for name in ("first", "half", "last", "growth"))]
        for row in found["rows"]
    ]
    done = {row["measure"]: row["when_done"] for row in found["rows"] if row["process"] == "valkey"}
    text = _text(
        f"{_n(found['images'])} images through {engine}, {found['slots']} children, {found['measured_at'][:10]}, on a "
        f"machine with other work ({found['images'] / found['seconds']:,.0f} images/s). Growth is the slope of the "
        f"second half, of {_n(found['images'] // 2)} images. When all was done, "
        f"Valkey had {_n(done['used_mib'])} MiB and {_n(done['keys'])} keys."
    )
    return f"{text}\n\n{_table(head + rows, texts=2)}"


def renew(page: str, results: Path) -> str:
    """Return the page with its parts made anew."""
    for name, part in (("fuzz", fuzz_part), ("soak", soak_part)):
        text = part(results)
        page, times = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", rf"\g<1>\n{text}\n\n\g<2>", page, flags=re.DOTALL
        )
        if times != 1:
            raise ValueError(f"the page has {times} places for {name}, it needs one")
    return page


def _read(path: Path) -> Result:
    return json.loads(path.read_text())


def _text(text: str) -> str:
    return fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)


def _n(value: float) -> str:
    if value == 0:
        return "0"  # and not -0
    return f"{value:,}" if isinstance(value, int) else f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _table(rows: Sequence[Sequence[str]], texts: int) -> str:
    head, *others = rows
    rule = ["---"] * texts + ["--:"] * (len(head) - texts)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *others))


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=lab.RESULTS, help="folder of the files of the results")
    parser.add_argument("--page", type=Path, default=PAGE)
    options = parser.parse_args(arguments)
    options.page.write_text(renew(options.page.read_text(), options.results))


if __name__ == "__main__":
    main()
