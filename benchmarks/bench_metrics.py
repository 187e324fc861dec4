"""What a scrape of `db metrics` costs, with as many jobs in the ledger as an installation of that size has.

    python benchmarks/bench_metrics.py [--jobs 10000 100000 1000000]

Jobs are rows of 256 images with a message of the usual size; there are no verdicts, for no scrape looks at them. At a
later reading a hundred jobs a second were finished in the last two minutes, 400 wait and 64 run. CPU seconds are those
of the exporter and of the server together; they depend little on who else wants a core.
"""

import time
from collections import defaultdict
from itertools import product

import lab
import numpy as np
from databases import DATABASES, Postgresql, Sqlite
from saving import MODEL
from sqlalchemy import Engine, text

from core.settings import load_settings
from db.engine import make_engine, upgrade
from db.metrics import LedgerReader
from db.store import Store

SCANS = 20
MESSAGE_BYTES = 4700  # of 256 images whose names have 46 bytes
RECENT, QUEUED, RUNNING = 12_000, 400, 64
READINGS = 5
SERIES = {
    "sqlite": (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :jobs)",
        "strftime('%Y-%m-%d %H:%M:%f000', 'now', '-' || (:ago + (:jobs - i) * 0.01) || ' seconds')",
        "lower(hex(randomblob(16)))",
    ),
    "postgresql": (
        "WITH n(i) AS (SELECT generate_series(1, CAST(:jobs AS int)))",
        "now() - (:ago + (:jobs - i) * 0.01) * interval '1 second'",
        "md5(CAST(random() AS text) || i)",
    ),
}
DONE = """
INSERT INTO job (id, scan_id, status, images, n_ok, n_truncated, deliveries, model_id, engine, precision, worker,
                 queued_at, started_at, finished_at, decode_seconds, predict_seconds, total_seconds, payload)
{series}
SELECT {key}, :scan + i % :scans, 'done', 256, 255, 1, 1, :model, 'tensorflow', 'float32', 'worker@node-' || (i % 100),
       {moment}, {moment}, {moment}, 1 + i % 7, 0.1 + i % 3, 1 + i % 5, :payload
FROM n
"""
OPEN = """
INSERT INTO job (id, scan_id, status, images, queued_at, payload)
{series}
SELECT {key}, :scan + i % :scans, :status, 256, {moment}, :payload FROM n
"""


def main() -> None:
    """Measure and publish."""
    parser = lab.parser(__doc__)
    parser.add_argument("--jobs", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="that are done")
    options = parser.parse_args()
    rows, facts = [], {}
    for (name, make), jobs in product(DATABASES.items(), options.jobs):
        with lab.scratch() as folder, make() as database:  # whose disk space is free again afterwards
            engine = make_engine(load_settings(database_url=database.make(folder)))
            upgrade(engine)
            facts[name] = {"settings": database.settings}
            rows.append({"database": name, "jobs": jobs, **_measure(database, engine, jobs, options.rounds)})
            engine.dispose()
    lab.publish("bench_metrics", options.out, rows, ("sqlalchemy", "psycopg"), rounds=options.rounds, **facts)


def _measure(database: Sqlite | Postgresql, engine: Engine, jobs: int, rounds: int) -> dict[str, object]:
    """Return what an exporter's first reading takes, and those that follow."""
    taken: defaultdict[str, list[float]] = defaultdict(list)
    store = Store(engine)
    store.register_model(MODEL)
    scan = min(store.start_scan(["/photos"], MODEL.name, MODEL.id) for _ in range(SCANS))
    _insert(engine, DONE, scan, jobs=jobs, ago=3600)
    _analyze(engine)
    for _ in range(rounds):
        reader = LedgerReader(engine)
        _time(database, reader, "first", taken)
    _insert(engine, DONE, scan, jobs=RECENT, ago=0)
    for status, number in (("queued", QUEUED), ("running", RUNNING)):
        _insert(engine, OPEN, scan, jobs=number, ago=0, status=status)
    _analyze(engine)
    for _ in range(READINGS):
        _time(database, reader, "later", taken)
    found = reader.read().plain
    counted = sum(found["facesieve_images_total"].values()) + sum(found["facesieve_images_pending"].values())
    if counted != 256 * (jobs + RECENT + QUEUED + RUNNING):
        raise RuntimeError(f"{counted:,.0f} images were counted, which are not all")
    return lab.medians(taken, ("first_s", "first_cpu_s", "later_s", "later_cpu_s"))


def _time(database: Sqlite | Postgresql, reader: LedgerReader, which: str, taken: dict[str, list[float]]) -> None:
    before = time.process_time() + (database.cpu_seconds() or 0.0)
    taken[f"{which}_s"].append(lab.seconds(reader.read))
    taken[f"{which}_cpu_s"].append(time.process_time() + (database.cpu_seconds() or 0.0) - before)


def _insert(engine: Engine, statement: str, scan: int, **values: object) -> None:
    series, moment, key = SERIES[engine.dialect.name]
    values |= {"scan": scan, "scans": SCANS, "payload": np.random.default_rng(0).bytes(MESSAGE_BYTES)}
    if statement is DONE:
        values["model"] = MODEL.id
    with engine.begin() as connection:
        connection.execute(text(statement.format(series=series, moment=moment, key=key)), values)


def _analyze(engine: Engine) -> None:
    """Do what the autovacuum would within minutes."""
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("VACUUM (ANALYZE) job"))


if __name__ == "__main__":
    main()
