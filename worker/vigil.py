"""The parent watches itself: it writes its sign of life, and does not stay stuck.

Two clocks of the main thread do it. A timer of the event loop asks Redis how many jobs wait: if some do, a child is
free and nothing comes, the consumer connects anew, and if that does not help the worker stops. The kernel's interval
timer fires even while the loop is blocked: it writes the sign, and ends a worker whose loop does not turn any more. No
threads: the parent forks.
"""

import os
import signal
import time
from contextlib import suppress
from types import FrameType
from typing import Any

from celery import bootsteps
from celery.exceptions import WorkerTerminate
from celery.worker import state
from celery.worker.consumer.tasks import Tasks
from redis.exceptions import ResponseError

from core.errors import WorkerError
from core.logs import say
from worker.alive import BEAT_SECONDS, LOOP_SECONDS, MAX_RESTARTS, STALL_SECONDS, Child, Sign, SignFile
from worker.pool import deaths
from worker.process import Plan
from worker.transport import TolerantChannel


class StalledError(ConnectionError):
    """Nothing comes although jobs wait. To Celery it is a lost connection, after which it connects anew."""


class Vigil:
    """What watches one node.

    Attributes:
        reason: why it ended the node; None if it did not.
    """

    def __init__(self, plan: Plan, queue: str, busy_limit: float) -> None:
        """Prepare to watch.

        Args:
            plan: of the node.
            queue: whose jobs it takes.
            busy_limit: see ``worker.alive.Sign``.
        """
        self.reason: str | None = None
        self._plan = plan
        self._queue = queue
        self._busy_limit = busy_limit
        self._node: Any = None
        self._file: SignFile | None = None
        self._turned_at: float | None = None
        self._heard_at: float | None = None
        self._waiting = 0
        self._stalled_at: float | None = None
        self._taken = 0
        self._begun: dict[str, float] = {}  # by job, those that run now
        self._restarts = 0

    def start(self, node: Any) -> None:
        """Watch a Celery node that has ``step`` and is about to start, from the main thread."""
        self._node = node
        try:
            self._file = SignFile(self._plan.settings, self._plan.node)
        except OSError as error:  # work goes on
            say("sign_unwritable", reason=error)
        signal.signal(signal.SIGALRM, self._beat)
        signal.setitimer(signal.ITIMER_REAL, BEAT_SECONDS, BEAT_SECONDS)
        self._write("starting")

    def stop(self) -> None:
        """Watch no more."""
        signal.setitimer(signal.ITIMER_REAL, 0)
        if self._file:
            self._file.remove()

    def step(self) -> type[bootsteps.StartStopStep]:
        """Return what gives the consumer of a node its timer."""
        vigil = self

        class Step(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
            requires = (Tasks,)

            def register_with_event_loop(self, consumer: Any, hub: Any) -> None:
                vigil.begin()
                hub.call_repeatedly(BEAT_SECONDS, vigil.turn, consumer)

        return Step

    def begin(self) -> None:
        """Note that the loop is about to turn: the consumer is there, or there again, and has asked for nothing yet."""
        self._turned_at = now = time.monotonic()
        if self._stalled_at and self._heard_at:  # the time for which the broker was away is not to be counted
            self._stalled_at += now - self._heard_at

    def turn(self, consumer: Any) -> None:
        """Look, once in a while of the event loop, whether jobs come.

        Raises:
            StalledError: they do not, and the consumer shall connect anew.
            WorkerTerminate: they still do not.
        """
        if consumer.blueprint.state != bootsteps.RUN or not consumer.connection:  # it stops, or connects
            return
        self._turned_at, self._waiting = time.monotonic(), 0
        # If it does not answer, the connection is lost, and Celery connects anew. Somebody may have forbidden to ask.
        with suppress(ResponseError), consumer.connection.default_channel.conn_or_acquire() as client:
            self._waiting = int(client.llen(self._queue))
            self._heard_at = time.monotonic()
        taken = TolerantChannel.taken
        is_free = len(state.reserved_requests) < len(self._plan.devices)
        if not self._waiting or not is_free or taken != self._taken:
            self._taken, self._stalled_at, self._restarts = taken, None, 0
        elif self._stalled_at is None:
            self._stalled_at = time.monotonic()
        else:
            self._recover(time.monotonic() - self._stalled_at)

    def _recover(self, seconds: float) -> None:
        if seconds < STALL_SECONDS * (self._restarts + 1):
            return
        if self._restarts < MAX_RESTARTS:
            self._restarts += 1
            say("consumer_restarted", waiting=self._waiting, seconds=seconds)
            raise StalledError(f"{self._waiting} jobs wait and none comes")
        say("consumer_stuck", waiting=self._waiting, seconds=seconds)
        self._end(f"{self._waiting} jobs waited and it took none for {seconds:.0f} s")

    def _end(self, reason: str) -> None:
        self.reason = reason
        raise WorkerTerminate(WorkerError.exit_code)

    def _beat(self, _number: int, _frame: FrameType | None) -> None:
        now = time.monotonic()
        at_work = self._state()
        if at_work != "working" and not self.reason:
            self._turned_at = now if self._turned_at else None  # its time begins when it is back
        self._write(at_work)
        silence = now - self._turned_at if self._turned_at else 0.0
        if silence > 2 * LOOP_SECONDS:  # it did not even end
            os._exit(WorkerError.exit_code)
        if silence > LOOP_SECONDS and not self.reason:
            say("loop_stuck", seconds=silence)
            self._end(f"its event loop did not turn for {silence:.0f} s")

    def _state(self) -> str:
        consumer = getattr(self._node, "consumer", None)
        if consumer is None or consumer.blueprint.state is None:
            return "starting"
        if consumer.blueprint.state != bootsteps.RUN or (state.should_stop, state.should_terminate) != (None, None):
            return "stopping"
        return "working" if consumer.connection else "reconnecting"

    def _children(self) -> tuple[Child, ...]:
        running = {request.worker_pid: request.id for request in tuple(state.active_requests)}
        # Celery notes the time of a clock that can be set.
        self._begun = {job: self._begun.get(job, time.monotonic()) for job in running.values()}
        pool = getattr(getattr(self._node, "pool", None), "_pool", None)
        pids = [process.pid for process in getattr(pool, "_pool", ())]
        return tuple(Child(pid, job := running.get(pid), self._begun[job] if job else None) for pid in pids)

    def _write(self, at_work: str) -> None:
        if not self._file:
            return
        with suppress(OSError):  # a full disk; the sign gets old, and that is true
            self._file.write(
                Sign(
                    node=self._plan.node,
                    pid=os.getpid(),
                    state=at_work,
                    written_at=time.monotonic(),
                    turned_at=self._turned_at,
                    heard_at=self._heard_at,
                    waiting=self._waiting,
                    stalled_at=self._stalled_at,
                    last_job_at=deaths.last_job_at,
                    busy_limit=self._busy_limit,
                    children=self._children(),
                )
            )
