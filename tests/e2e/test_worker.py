"""The worker's commands, and what it does with messages that nobody should have sent."""

import json
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from core.broker import TASK_NAME, make_app, open_broker, queue_name, send_job
from core.images import ImageRef
from core.jobs import Job
from db import schema
from db.ledger import latest_scan, read_ledger
from db.store import Store
from tests.e2e.conftest import MODEL, Site, wait_for, write_images

pytestmark = pytest.mark.tensorflow


def test_check_says_what_a_worker_would_find(site: Site) -> None:
    lines = site.ok("worker", "check").splitlines()

    assert [line[:4] for line in lines] == ["ok  "] * 5
    assert "tiny (untrained" in lines[0]
    assert "on openvino" in lines[0]
    assert "faces: can be found" in lines[1]


def test_check_fails_with_one_line_for_each_fault(make_site: Callable[..., Site]) -> None:
    site = make_site(
        FACESIEVE_BROKER_URL="redis://:s3cret@127.0.0.1:1/0", FACESIEVE_DATABASE_URL="sqlite:////nowhere/x.db"
    )

    done = site.run("worker", "check", "--model", "absent", "--json")

    assert done.returncode == 1
    assert {found["name"]: found["ok"] for found in json.loads(done.stdout)} == {
        "model": False, "faces": True, "gpu": True, "broker": False, "database": False,
    }  # fmt: skip
    assert "s3cret" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


def test_a_worker_with_a_broken_environment_stops_with_one_line(make_site: Callable[..., Site], tmp_path: Path) -> None:
    site = make_site()
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tensorflow.py").write_text("raise ImportError('no such device')")
    site.environment["PYTHONPATH"] = str(tmp_path / "site")

    done = site.run("worker", "start", "--engine", "tensorflow")

    assert done.returncode == 8
    assert done.stderr.splitlines()[-1].startswith("error: child 0 could not start: ")
    assert "no such device" in done.stderr


def test_messages_that_are_not_jobs_are_rejected_and_the_worker_goes_on(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    paths = write_images(tmp_path / "faces", 10)
    site = make_site(FACESIEVE_ROOTS=str(tmp_path / "faces"))
    (tmp_path / "secret.jpg").write_bytes(paths[0].read_bytes())
    refs = tuple(ImageRef(str(path), "1-1", 1) for path in paths)
    store = Store(site.engine)
    scan_id = store.start_scan([str(tmp_path)], MODEL, None)
    outside = Job(
        uuid4().hex, scan_id, MODEL, (*refs, ImageRef(str(tmp_path / "faces" / ".." / "secret.jpg"), "1-1", 1))
    )
    strange = Job(uuid4().hex, scan_id, MODEL, refs)
    unknown = Job(uuid4().hex, scan_id, MODEL, refs)
    good = Job(uuid4().hex, scan_id, MODEL, refs)
    for job in (outside, strange, good):
        store.record_listing(scan_id, [job], skipped=0)
    store.finish_scan(scan_id, "listed", ignored=0)

    with open_broker(site.settings) as url:
        app = make_app(url)
        queue = queue_name(MODEL)
        app.send_task(TASK_NAME, args=["not a job"], queue=queue)
        app.send_task(TASK_NAME, args=[], kwargs={"x": 1}, queue=queue)
        app.send_task("facesieve.no_such_task", args=[{}], queue=queue)
        app.send_task(TASK_NAME, args=[strange.to_payload() | {"version": 0}], task_id=strange.id, queue=queue)
        app.send_task(TASK_NAME, args=[good.to_payload()], serializer="pickle", queue=queue)
        send_job(app, unknown)
        send_job(app, outside)
        with app.connection_for_write() as connection:
            for garbage in (b"no JSON", b"\xff", b"{}", b"[]", b'{"body": 1, "headers": {}, "properties": {}}'):
                connection.default_channel.client.lpush(queue, garbage)
        send_job(app, good)
        with site.worker():
            wait_for(lambda: read_ledger(site.engine, scan_id).is_complete, "the good job")

    ledger = read_ledger(site.engine, scan_id)
    assert ledger.ok == 10
    assert ledger.undelivered == len(outside.images) + len(strange.images)
    assert any("outside the allowed roots" in reason for reason in ledger.errors)
    assert any("version 0" in reason for reason in ledger.errors)
    log = site.log()
    assert log.count(" rejected: ") == 12
    assert "secret.jpg" not in site.ok("db", "list")


def test_a_link_out_of_the_roots_is_not_followed(make_site: Callable[..., Site], tmp_path: Path) -> None:
    paths = write_images(tmp_path / "faces", 3)
    (tmp_path / "secret.jpg").write_bytes(paths[0].read_bytes())
    (tmp_path / "faces" / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    site = make_site(FACESIEVE_ROOTS=str(tmp_path / "faces"))

    summary = json.loads(site.ok("producer", "run", tmp_path / "faces", "--json"))

    assert summary["failures"] == {"unreadable": 1}
    assert "outside the allowed roots" in site.ok("db", "list", "--status", "unreadable", "--json")


def test_a_cancelled_job_is_not_run(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 30)
    site.ok("producer", "enqueue", tmp_path / "faces", "--job-size", "10")
    site.ok("producer", "cancel", "1")
    write_images(tmp_path / "more", 5)
    site.ok("producer", "enqueue", tmp_path / "more")
    with site.worker():
        wait_for(lambda: read_ledger(site.engine, 2).is_complete, "the second scan")

    assert read_ledger(site.engine, 1).cancelled == 30
    assert read_ledger(site.engine, 1).ok == 0
    assert "5 of 5 verdicts" in site.ok("db", "list")


@pytest.mark.parametrize("engine", ["openvino", "tensorflow"])
def test_the_ledger_names_what_ran_a_job(engine: str, site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 10)
    site.ok("producer", "run", tmp_path / "faces", "--engine", engine, "--precision", "float32")

    with site.engine.connect() as connection:
        job = connection.execute(schema.job.select()).one()
    assert job.engine == engine
    assert job.precision == "float32"
    assert job.worker.startswith("tiny-")
    assert 0 < job.predict_seconds < job.total_seconds
    assert latest_scan(site.engine) == job.scan_id
