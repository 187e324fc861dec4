"""How fast workers were: what is told of their jobs, and of a sample of many."""

from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from sqlalchemy import Engine, insert

from db import schema, throughput
from db.throughput import read_throughput
from tests.integration.builders import Books, refs, report, scored, write


def test_throughput_is_told_for_each_worker(books: Books, engine: Engine) -> None:
    for number, seconds in enumerate((1.0, 2.0, 3.0, 10.0)):
        job = books.queue(refs(6, start=6 * number))
        books.store.begin_job(job.id, "one")
        books.store.save_job(
            job, [scored(image) for image in job.images], replace(report(books.model, seconds), worker="one")
        )
    books.save([scored(image) for image in refs(2, prefix="/other/")])
    books.queue(refs(3, prefix="/waiting/"))
    first, second = read_throughput(engine)
    assert (first.worker, first.engine, first.precision, first.jobs, first.images) == (
        "one",
        "tensorflow",
        "float32",
        4,
        24,
    )
    assert first.images_per_second == pytest.approx(24 / 16)
    assert first.seconds == {"total": (2.5, 10.0), "decode": (0.5, 0.5), "predict": (0.4, 0.4)}
    assert (second.worker, second.jobs) == ("worker@host", 1)
    assert read_throughput(engine, model="nobody") == read_throughput(engine, scan_id=books.scan_id + 1) == []
    assert read_throughput(engine, model="card", scan_id=books.scan_id) == [first, second]


def test_of_many_jobs_a_sample_tells_how_fast_workers_were(
    books: Books, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput, "MOST_JOBS", 100)
    books.save([scored(image) for image in refs(1)])
    fixed = {"scan_id": books.scan_id, "model_id": books.model.id, "status": "done", "images": 10, "payload": b""}
    fixed |= {"engine": "openvino", "precision": "bf16", "queued_at": datetime.now(UTC)}
    fixed |= {"decode_seconds": 1.0, "predict_seconds": 1.0}
    jobs = [
        {
            **fixed,
            "id": sha256(str(number).encode()).hexdigest()[:32],
            "worker": "fast" if number % 4 else "slow",
            "total_seconds": 2.0 if number % 4 else 5.0,
        }
        for number in range(1000)
    ]
    write(engine, insert(schema.job).values(jobs))
    for wanted in ({}, {"scan_id": books.scan_id}, {"model": "card"}):
        fast, slow = (pace for pace in read_throughput(engine, **wanted) if pace.worker != "worker@host")
        assert (fast.worker, fast.images_per_second, fast.seconds["total"]) == ("fast", 5, (2, 2))
        assert (slow.worker, slow.images_per_second, slow.seconds["total"]) == ("slow", 2, (5, 5))
        assert 0 < abs(fast.jobs - 750) <= fast.margin < 300
        assert 0 < abs(slow.jobs - 250) <= slow.margin < 300
        assert fast.images == pytest.approx(10 * fast.jobs, rel=0.01)
    exact = read_throughput(engine, is_exact=True)
    assert [(pace.worker, pace.jobs, pace.images, pace.margin) for pace in exact] == [
        ("fast", 750, 7500, 0),
        ("slow", 250, 2500, 0),
        ("worker@host", 1, 1, 0),
    ]
