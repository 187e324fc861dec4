"""A database filled with made-up verdicts by the million.

Rows go in as the drivers' bulk loaders take them, see `_load_sqlite` and `_load_postgresql`, without a look at foreign
keys. What is in it then is what workers would have left: images in the order of their folders, keys at random; jobs of
256 with their messages; scores near 0 and 1 with some between, 1.5 % failures of six kinds; an older model that has
scored every tenth job, too.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from itertools import islice
from multiprocessing import get_context

import numpy as np
from saving import MODEL, OLD_MODEL
from sqlalchemy import Engine, Table, select, text

from core.images import ImageRef
from core.jobs import Job
from core.settings import load_settings
from core.verdicts import Status
from db import schema
from db.engine import make_engine
from db.store import Store

JOB_SIZE = 256
SCANS = 20
CHUNK = 100  # jobs in memory
FOLDERS = 400
FOLDER_SIZE = 1000  # images that stand together
BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
REASONS = {
    Status.OK: "",
    Status.TRUNCATED: "the file ends before the image does",
    Status.UNREADABLE: "the JPEG data is corrupt at byte {}",
    Status.UNSUPPORTED: "not an image",
    Status.TOO_LARGE: "{} bytes, the limit is 268435456",
    Status.NOT_FOUND: "the file is gone",
    Status.CRASHED: "decoding it killed the worker process twice",
}
SHARES = (0.985, 0.006, 0.003, 0.003, 0.001, 0.0019, 0.0001)

Row = tuple[object, ...]
Write = Callable[[Table, Sequence[str], Sequence[Row]], None]


@dataclass(frozen=True, slots=True)
class Piece:
    """What one job has written, as rows by table.

    Attributes:
        job: its own row.
        images: in the order of their listing; empty if another model's job has written them.
        verdicts: in the same order.
    """

    job: dict[str, object]
    images: list[Row]
    verdicts: list[Row]


IMAGE = ("id", "uri", "size_bytes", "width", "height", "phash")
VERDICT = (
    "image_id", "model_id", "status", "p_real", "reason", "fingerprint", "digest", "scan_id", "job_id", "scored_at",
)  # fmt: skip


def fill(url: str, verdicts: int) -> str:
    """Fill a database that has tables and no rows, and return the URI of one of its images."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:  # whose memory is free again afterwards
        return process.submit(_fill, url, verdicts).result()


def _fill(url: str, verdicts: int) -> str:
    engine = make_engine(load_settings(database_url=url))
    store = Store(engine)
    for model in (OLD_MODEL, MODEL):
        store.register_model(model)
    scans = [store.start_scan(["/photos"], OLD_MODEL.name, OLD_MODEL.id)]
    scans += [store.start_scan(["/photos"], MODEL.name, MODEL.id) for _ in range(SCANS)]
    pieces = _pieces(scans, verdicts)
    load = _load_sqlite if engine.dialect.name == "sqlite" else _load_postgresql
    with load(engine) as write:
        while some := list(islice(pieces, CHUNK)):
            write(schema.job, tuple(some[0].job), [tuple(piece.job.values()) for piece in some])
            write(schema.image, IMAGE, [row for piece in some for row in piece.images])
            write(schema.verdict, VERDICT, [row for piece in some for row in piece.verdicts])
    sums = "(SELECT coalesce(sum(images), 0) FROM job WHERE scan_id = scan.id)"
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE scan SET status = 'listed', listed = {sums}"))
    return some_image(url)


def some_image(url: str) -> str:
    """Return the URI of one of the images of a database."""
    image = schema.image
    some = select(image.c.uri).where(image.c.id >= b"\x80" + bytes(15)).order_by(image.c.id).limit(1)
    with make_engine(load_settings(database_url=url)).connect() as connection:
        return connection.execute(some).scalar_one()


def _pieces(scans: Sequence[int], verdicts: int) -> Iterator[Piece]:
    rng = np.random.default_rng(0)
    # A few folders have most of the images.
    weights = 1 / np.arange(1, FOLDERS + 1)
    folders = rng.choice(FOLDERS, size=verdicts // FOLDER_SIZE + 1, p=weights / weights.sum())
    written = listed = number = 0
    while written < verdicts:
        size = min(JOB_SIZE, verdicts - written)
        names = (_name(folders, index) for index in range(listed, listed + size))
        refs = [
            ImageRef(name, f"{length}-{1_600_000_000_000_000_000 + length * 7919}", length)
            for name, length in zip(names, rng.integers(50_000, 5_000_000, size).tolist(), strict=True)
        ]
        listed += size
        scan = scans[1 + written * SCANS // verdicts]
        yield _piece(refs, Job(rng.bytes(16).hex(), scan, MODEL.name, tuple(refs), MODEL.id), rng, number)
        written += size
        number += 1
        if number % 10 == 0 and written + size <= verdicts:
            old = Job(rng.bytes(16).hex(), scans[0], OLD_MODEL.name, tuple(refs), OLD_MODEL.id)
            yield _piece(refs, old, rng, number, has_images=False)
            written += size


def _name(folders: Sequence[int], index: int) -> str:
    folder = int(folders[index // FOLDER_SIZE])
    return f"/photos/source-{folder % 20:02}/20{10 + folder % 15}/{folder:04}/IMG_{index:09}.jpg"


def _piece(refs: list[ImageRef], job: Job, rng: np.random.Generator, number: int, *, has_images: bool = True) -> Piece:
    size = len(refs)
    ids = [ref.id for ref in refs]
    statuses = [list(REASONS)[kind] for kind in rng.choice(len(SHARES), size, p=SHARES)]
    kinds = rng.random(size)
    near = rng.beta(0.5, 12, size)
    scores = np.where(kinds < 0.6, 1 - near, np.where(kinds < 0.97, near, rng.random(size))).tolist()
    hashes = rng.integers(-(2**63), 2**63 - 1, size).tolist()
    scored = (BEGIN + timedelta(seconds=number * 2)).strftime("%Y-%m-%d %H:%M:%S.%f")
    images = [(key, ref.uri, ref.size_bytes, 1280, 960, code) for key, ref, code in zip(ids, refs, hashes, strict=True)]
    verdicts = [
        (key, job.model_id, str(status), score if status is Status.OK else None, REASONS[status].format(ref.size_bytes),
         ref.fingerprint, sha256(key).digest()[:16], job.scan_id, job.id, scored)
        for key, ref, status, score in zip(ids, refs, statuses, scores, strict=True)
    ]  # fmt: skip
    counts = Counter(statuses)
    row = {
        "id": job.id, "scan_id": job.scan_id, "status": "done", "images": size,
        **{f"n_{status}": counts[status] for status in Status},
        "deliveries": 1, "model_id": job.model_id, "engine": "openvino", "precision": "bf16",
        "worker": f"worker@host-{number % 4}", "queued_at": scored, "started_at": scored, "finished_at": scored,
        "decode_seconds": 2.0, "predict_seconds": 1.0, "total_seconds": 1.5, "payload": job.pack(),
    }  # fmt: skip
    return Piece(row, images if has_images else [], verdicts)


@contextmanager
def _load_sqlite(engine: Engine) -> Iterator[Write]:
    """One transaction without a journal, in up to 8 GiB of memory, which 10^7 verdicts need.

    Indexes grow row by row, as a worker's do: made afterwards their pages would be full, and split at every insert.
    """
    connection = engine.raw_connection()
    driver = connection.driver_connection
    for pragma in ("foreign_keys = OFF", "synchronous = OFF", "journal_mode = OFF", "cache_size = -8388608"):
        driver.execute(f"PRAGMA {pragma}")
    driver.execute("BEGIN")

    def write(table: Table, names: Sequence[str], rows: Iterable[Row]) -> None:
        marks = ", ".join("?" * len(names))
        driver.executemany(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", rows)

    yield write
    driver.execute("COMMIT")
    driver.execute("PRAGMA journal_mode = WAL")
    connection.invalidate()  # the next one has the program's own settings again


@contextmanager
def _load_postgresql(engine: Engine) -> Iterator[Write]:
    """COPY, without foreign keys, and without secondary indexes, which are made afterwards."""
    indexes = [index for table in (schema.job, schema.image, schema.verdict) for index in table.indexes]
    connection = engine.raw_connection()
    driver = connection.driver_connection
    driver.autocommit = True
    driver.execute("SET session_replication_role = replica")
    driver.execute("SET TIME ZONE UTC")
    with engine.begin() as ours:
        for index in indexes:
            index.drop(ours)

    def write(table: Table, names: Sequence[str], rows: Iterable[Row]) -> None:
        with driver.cursor().copy(f"COPY {table.name} ({', '.join(names)}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row(row)

    yield write
    with engine.begin() as ours:
        for index in indexes:
            index.create(ours)
    driver.execute("VACUUM (ANALYZE)")  # as the autovacuum would within minutes
    connection.invalidate()
