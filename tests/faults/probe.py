"""Tell a worker that works from one that only lives: after a reset connection Celery can stop taking jobs."""

import re
import shutil
import time
from contextlib import closing

from sqlalchemy import select

from core.broker import connect, make_app, open_broker
from db import schema
from db.ledger import has_pending_jobs, reading
from producer.enqueue import Enqueuer, Target
from producer.scan import Scan
from tests.e2e.conftest import children_of
from tests.faults.scene import Scene

#: A worker that begins none of the jobs that were sent every second for so long begins none any more.
PATIENCE_SECONDS = 100.0
PAUSE_SECONDS = 1.0
JOBS = 6


def idle_workers(scene: Scene) -> list[int]:
    """Send small jobs until each worker that lives has begun one; return the process ids of those that begin none.

    That those jobs are done is demanded, too: the scene has a complaint if they are not in time.
    """
    images = scene.images.with_name("probe")
    images.mkdir()
    good = next(path for path, status in scene.expected.items() if status == "ok")
    for number in range(JOBS):
        shutil.copy(good, images / f"{number}.jpg")
    settings = scene.site.settings.model_copy(update={"job_size": 1})
    sent: list[int] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    with open_broker(settings) as url, connect(url) as client, closing(make_app(url)) as app:
        enqueuer = Enqueuer(settings, scene.engine, app, client)
        target = Target(scene.model, None, "none")
        while (idle := _idle(scene, sent)) or _have_pending_jobs(scene, sent):
            if time.monotonic() > deadline:
                if _have_pending_jobs(scene, sent):
                    scene.complaints.append("jobs sent after the last fault were not done")
                return idle
            if idle:
                tally = enqueuer.start([str(images)], target)
                enqueuer.enqueue(Scan([str(images)]), target, tally, lambda _: None)
                sent.append(tally.scan_id)
            time.sleep(PAUSE_SECONDS)
            scene.supervise()
    return []


def _have_pending_jobs(scene: Scene, scans: list[int]) -> bool:
    return any(has_pending_jobs(scene.engine, scan) for scan in scans)


def _idle(scene: Scene, scans: list[int]) -> list[int]:
    """Return the workers that have begun no job of these scans."""
    job = schema.job.c
    with reading(scene.engine) as connection:
        names = connection.execute(select(job.worker).where(job.scan_id.in_(scans)).distinct()).scalars()
        at_work = {int(pid) for name in names if name for pid in re.findall(r"-(\d+)@", name)}
    return [
        worker.pid
        for worker in scene.workers
        if worker.poll() is not None or not at_work & {worker.pid, *children_of(worker.pid)}
    ]
