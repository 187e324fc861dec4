"""One Celery node: what its parent prepares, and what each child does before it takes a job.

The parent never imports TensorFlow: CUDA does not survive a fork. A child pins its GPU, loads the model and warms it up
while Celery waits for it. A child that cannot do so stops the whole node: Celery alone would only log the error, and
the child would go on taking jobs.
"""

import os
import signal
import socket
import threading
import time
import warnings
from typing import Any

import celery.apps.worker
from billiard.process import current_process
from celery import signals
from celery.exceptions import CPendingDeprecationWarning

from core.broker import make_app, queue_name
from core.errors import FacesieveError, WorkerError
from core.logs import say
from core.settings import Settings
from worker import gpu
from worker.alive import BUSY_SECONDS
from worker.pool import TaskPool, deaths
from worker.process import Plan, WorkerProcess
from worker.tasks import Holder, register
from worker.transport import tolerate_foreign_messages
from worker.vigil import Vigil

MIN_VISIBILITY_SECONDS = 120


def visibility_seconds(settings: Settings, longest_job: float | None) -> int:
    """Return the seconds after which an unacknowledged job goes to another worker.

    Too short, and a slow job runs twice (harmless, but wasted); too long, and the jobs of a lost host wait. Twenty
    times the longest measured job, plus the time that a worker waits for its database; ten minutes while nothing is
    measured.
    """
    if settings.visibility_timeout:
        return settings.visibility_timeout
    measured = 20 * longest_job if longest_job else 600.0
    return int(max(MIN_VISIBILITY_SECONDS, measured + settings.retry_seconds + settings.drain_seconds))


def node_name(model: str) -> str:
    """Return this worker's name in Celery and Flower: model, process and host."""
    return f"{model}-{os.getpid()}@{socket.gethostname()}"


def run_node(plan: Plan, model: str, broker_url: str, *, longest_job: float | None) -> None:
    """Run a worker until it is told to stop.

    Args:
        plan: for the children.
        model: name of the artifact, and of its queue.
        broker_url: of the broker.
        longest_job: seconds of the longest measured job of this model; None if none was measured.

    Raises:
        WorkerError: a child could not start, or the node stopped by itself.
    """
    tolerate_foreign_messages()
    warnings.simplefilter("ignore", CPendingDeprecationWarning)  # of a default that make_app sets as it will be
    celery.apps.worker.safe_say = lambda *_: None  # lines on stdout without an action; worker_stopping says it
    gpu.refuse_to_grow()
    visibility = visibility_seconds(plan.settings, longest_job)
    app = make_app(broker_url, visibility_seconds=visibility)
    holder = Holder()
    register(app, holder)
    vigil = Vigil(plan, queue_name(model), max(visibility, BUSY_SECONDS))
    app.steps["consumer"].add(vigil.step())
    reader, writer = os.pipe()
    os.set_blocking(reader, False)  # a child that cannot be killed keeps the other end open

    @signals.setup_logging.connect(weak=False)
    def _keep_our_logging(**_: Any) -> None: ...

    stops: list[str] = []
    timers: list[threading.Timer] = []

    @signals.worker_shutting_down.connect(weak=False)
    def _bound_the_stop(sig: str, how: str, **_: Any) -> None:
        # Celery's warm shutdown waits for the running job for ever, and its soft shutdown sleeps its whole time even if
        # the job ends at once. So: warm, and cold (which hands the job back) when time is up or the signal comes again.
        stops.append(sig)
        say("worker_stopping", worker=plan.node, signal=sig, seconds=plan.settings.drain_seconds)
        if how == "Warm":
            timer = threading.Timer(
                plan.settings.drain_seconds if len(stops) == 1 else 0, os.kill, (os.getpid(), signal.SIGQUIT)
            )
            timer.daemon = True
            timer.start()
            timers.append(timer)

    @signals.worker_process_init.connect(weak=False)
    def _start_child(**_: Any) -> None:
        time.sleep(deaths.wait_seconds)
        _pin_and_load(plan, holder, writer)

    node = app.Worker(
        hostname=plan.node,
        queues=[queue_name(model)],
        pool=TaskPool,
        concurrency=len(plan.devices),
        optimization="fair",
        without_gossip=True,
        without_mingle=True,
        quiet=True,
    )
    vigil.start(node)
    try:
        node.start()
    except SystemExit:  # how Celery ends when a signal stops it
        pass
    finally:
        vigil.stop()
        for timer in timers:
            timer.cancel()
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            failure = (pipe.read() or b"").decode()
    if failure:
        raise WorkerError(failure.splitlines()[0])
    if not stops:
        raise WorkerError(f"worker {plan.node} stopped by itself: {vigil.reason or 'see its log'}")


def _pin_and_load(plan: Plan, holder: Holder, failure_pipe: int) -> None:
    """Make this child ready, or end the whole node."""
    index = current_process().index
    try:
        device = gpu.device_of(index, plan.devices)
        gpu.pin(device)
        holder.process = WorkerProcess(plan)
    except BaseException as error:
        reason = str(error) if isinstance(error, FacesieveError) else f"{type(error).__name__}: {error}"
        os.write(failure_pipe, f"child {index} could not start: {reason}\n".encode()[:4096])
        os.kill(os.getppid(), signal.SIGTERM)
        os._exit(WorkerError.exit_code)
    say("child_ready", child=index, device=device)
