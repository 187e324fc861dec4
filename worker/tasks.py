"""The one Celery task: it parses nothing and decides nothing but what becomes of the message."""

import time
from typing import Any

from celery import Celery, Task
from celery.exceptions import Reject
from celery.worker.request import Request

from core.broker import TASK_NAME
from core.cli import printable
from core.errors import DatabaseBusyError, MessageError, NewerMessageError
from core.logs import say
from core.signing import HEADER
from worker.process import WorkerProcess

REQUEUE_SECONDS = 5.0  # a database that is away, or a message for newer workers, must not make the message spin


class Holder:
    """Where the child puts its process, so that the task, which was registered before the fork, finds it."""

    process: WorkerProcess | None = None


class BriefRequest(Request):  # type: ignore[misc]
    """A delivered message; a worker that is asked for its jobs tells their lines for Flower, not thousands of URIs."""

    def info(self, safe: bool = False) -> dict[str, Any]:  # noqa: ARG002
        """Return what Celery's own returns when asked to be brief."""
        described: dict[str, Any] = super().info(safe=True)
        return described


def register(app: Celery, holder: Holder) -> None:
    """Add the task to the app."""

    @app.task(name=TASK_NAME, bind=True, shared=False, typing=False, Request=BriefRequest)
    def run_job(task: Task, *args: object, **kwargs: object) -> None:
        if holder.process is None:
            raise RuntimeError("the model is not loaded")  # app.py ends a child whose start failed
        name = printable(str(task.request.id))  # whoever wrote the message chose it; the ledger's ids stay as they are
        try:
            # Anything but one positional argument is no message of ours; Job.from_payload says so.
            payload = args[0] if len(args) == 1 and not kwargs else None
            holder.process.run(name, payload, task.request.get(HEADER))
        except (DatabaseBusyError, NewerMessageError) as error:
            say("job_handed_back", job=name, reason=error)
            time.sleep(REQUEUE_SECONDS)
            if isinstance(error, DatabaseBusyError):  # else it was never begun here, and may be another worker's
                holder.process.release(name)
            raise Reject(str(error), requeue=True) from error
        except MessageError as error:
            say("job_refused", job=name, reason=error)
            raise Reject(str(error), requeue=False) from error
