"""Run one contender, ``python -m contenders MODULE '{"task": {...}, "variant": {...}}'``; the last line is JSON."""

import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path

from contenders import Task


def main() -> None:
    """Measure what the command line names."""
    module, words = sys.argv[1:]
    options = json.loads(words)
    given = options["task"]
    folders = {name: Path(given[name]) for name in ("folder", "artifact", "cache")}
    task = Task(images=given["images"], **folders)
    measured = importlib.import_module(f"contenders.{module}").measure(task, **options["variant"])
    if len(measured.scores) != len(task.files):
        raise SystemExit(f"{len(measured.scores)} scores for {len(task.files)} pictures")
    print(json.dumps(asdict(measured)))


if __name__ == "__main__":
    main()
