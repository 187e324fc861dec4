"""Signed messages: whoever can write to Redis, but has no key, cannot make a worker read a file."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import select

from core.broker import TASK_NAME, make_app, open_broker, queue_name, send_job
from core.images import ImageRef
from core.jobs import Job
from core.signing import HEADER, sign
from db import schema
from db.ledger import read_ledger, verify_scan
from db.store import Store
from tests.e2e.conftest import MODEL, Site, wait_for, write_images

pytestmark = pytest.mark.tensorflow

NEW, OLD, STRANGE = "new-key-" * 4, "old-key-" * 4, "strange-" * 4


def test_a_worker_with_keys_runs_what_is_signed_with_one_and_reads_nothing_else(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = make_site(FACESIEVE_SIGNING_KEY=f"{NEW},{OLD}")
    paths = write_images(tmp_path / "faces", 8)
    store = Store(site.engine)
    scan_id = store.start_scan([str(tmp_path)], MODEL, None)
    names = ("new", "old", "unsigned", "strange", "changed", "borrowed", "nested")
    jobs = {
        name: Job(uuid4().hex, scan_id, MODEL, (ImageRef(str(path), "1-1", 1),))
        for name, path in zip(names, paths, strict=False)
    }
    for job in jobs.values():
        store.record_listing(scan_id, [job], skipped=0)
    store.finish_scan(scan_id, "listed")
    queue = queue_name(MODEL)

    def payload(name: str) -> dict[str, object]:
        return jobs[name].to_payload()

    with open_broker(site.settings) as url:
        app = make_app(url)
        send_job(app, jobs["unsigned"])
        send_job(app, jobs["strange"], [STRANGE])
        signature = {HEADER: sign(payload("changed"), NEW)}
        changed = payload("changed") | {"images": [[str(paths[7]), "1-1", 1]]}
        app.send_task(TASK_NAME, [changed], headers=signature, task_id=jobs["changed"].id, queue=queue)
        borrowed = {HEADER: sign(payload("new"), NEW)}
        app.send_task(TASK_NAME, [payload("borrowed")], headers=borrowed, task_id=jobs["borrowed"].id, queue=queue)
        # Celery's own tasks call others: what they call has no message, and so no signature.
        app.send_task("celery.starmap", [app.signature(TASK_NAME), [[payload("nested")]]], queue=queue)
        for odd in ("\0new\nline", [1], 5, None):
            app.send_task(TASK_NAME, [payload("nested")], queue=queue, headers={"id": odd})
        send_job(app, jobs["new"], [NEW])
        send_job(app, jobs["old"], [OLD])
        with site.worker():
            wait_for(lambda: read_ledger(site.engine, scan_id).ok == 2, "the signed jobs")
            done = verdicts(site)
            send_job(app, jobs["new"], [NEW])  # as somebody would who has recorded the message
            last = replace(jobs["new"], id=uuid4().hex, images=(ImageRef(str(paths[7]), "1-1", 1),))
            store.record_listing(extra := store.start_scan([str(tmp_path)], MODEL, None), [last], skipped=0)
            send_job(app, replace(last, scan_id=extra), [NEW])
            wait_for(lambda: read_ledger(site.engine, extra).ok == 1, "the job behind the repeated one")

    assert {row for row in verdicts(site) if row[0] != str(paths[7])} == done
    assert {uri for uri, _ in done} == {str(paths[0]), str(paths[1])}
    ledger = read_ledger(site.engine, scan_id)
    assert (ledger.undelivered, ledger.queued) == (4, 1)  # nobody said which job the nested one was
    assert sorted(number for number in ledger.errors.values()) == [1, 3]
    assert all("FACESIEVE_SIGNING_KEY" in reason for reason in ledger.errors)
    assert "\0" not in site.log()
    assert "Traceback" not in site.log()

    # What was refused only for want of the key is sent again by a producer that has it, with a signature of its own.
    with site.worker():
        site.ok("producer", "retry", str(scan_id))
        wait_for(lambda: read_ledger(site.engine, scan_id).is_complete, "the others")
    assert read_ledger(site.engine, scan_id).ok == len(jobs)
    assert verify_scan(site.engine, scan_id) == []


def test_a_worker_without_a_key_runs_signed_jobs_too(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 3)
    with site.worker():
        site.environment["FACESIEVE_SIGNING_KEY"] = NEW  # of the producer alone
        site.ok("producer", "enqueue", tmp_path / "faces", "--wait")
    assert read_ledger(site.engine, 1).ok == 3


def verdicts(site: Site) -> set[tuple[str, object]]:
    """Return what is scored, and when."""
    query = select(schema.image.c.uri, schema.verdict.c.scored_at).join(schema.verdict)
    with site.engine.connect() as connection:
        return {tuple(row) for row in connection.execute(query)}
