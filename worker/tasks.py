"""The one Celery task: it parses nothing and decides nothing but what becomes of the message."""

import logging
import time

from celery import Celery, Task
from celery.exceptions import Reject

from core.broker import TASK_NAME
from core.errors import DatabaseBusyError, MessageError
from worker.process import WorkerProcess

REQUEUE_SECONDS = 5.0  # a database that is away must not make the message spin

log = logging.getLogger("facesieve.worker")


class Holder:
    """Where the child puts its process, so that the task, which was registered before the fork, finds it."""

    process: WorkerProcess | None = None


def register(app: Celery, holder: Holder) -> None:
    """Add the task to the app."""

    @app.task(name=TASK_NAME, bind=True, shared=False, typing=False)
    def run_job(task: Task, *args: object, **kwargs: object) -> None:
        if holder.process is None:
            raise RuntimeError("the model is not loaded")  # app.py ends a child whose start failed
        try:
            # Anything but one positional argument is no message of ours; Job.from_payload says so.
            holder.process.run(task.request.id, args[0] if len(args) == 1 and not kwargs else None)
        except MessageError as error:
            log.error("message %s rejected: %s", task.request.id, error)
            raise Reject(str(error), requeue=False) from error
        except DatabaseBusyError as error:
            log.error("job %s handed back: %s", task.request.id, error)
            time.sleep(REQUEUE_SECONDS)
            holder.process.release(task.request.id)
            raise Reject(str(error), requeue=True) from error
