"""Wait for the end of a scan, and look after the broker meanwhile."""

import time
from collections.abc import Callable

from core.broker import revive
from core.errors import BrokerError, DatabaseBusyError
from db.ledger import has_pending_jobs, read_ledger
from producer.enqueue import Tally
from producer.session import Session

POLL_SECONDS = 0.2
LOOK_SECONDS = 5.0
GIVE_UP_SECONDS = 60.0


class Waiter:
    """Waits for one scan.

    While nothing is scored, it looks whether the broker answers, starts an embedded one that died, and sends again the
    jobs that the broker does not hold any more. It looks twice: a message on its way to a worker is held by nobody for
    a moment. A database that restarts is waited for, as workers wait for it.
    """

    def __init__(self, session: Session, tally: Tally, model: str) -> None:
        self._session = session
        self._tally = tally
        self._model = model
        self._looked_at = time.monotonic()
        self._answered_at = time.monotonic()
        self._scored = -1
        self._missed: set[str] = set()

    def wait(self, on_tick: Callable[[Tally], None]) -> None:
        """Return when nothing of the scan is pending any more.

        Raises:
            BrokerError: the broker has not answered for a minute.
            DatabaseBusyError: the database has not.
        """
        read_at = time.monotonic()
        while True:
            try:
                if not has_pending_jobs(self._session.engine, self._tally.scan_id):
                    return
                if time.monotonic() - self._looked_at > LOOK_SECONDS:
                    self._look()
                    self._looked_at = time.monotonic()
                on_tick(self._tally)
                read_at = time.monotonic()
            except DatabaseBusyError:
                if time.monotonic() - read_at > GIVE_UP_SECONDS:
                    raise
            time.sleep(POLL_SECONDS)

    def _look(self) -> None:
        scored = read_ledger(self._session.engine, self._tally.scan_id).scored
        is_moving, self._scored = scored != self._scored, scored
        if is_moving:
            self._missed, self._answered_at = set(), time.monotonic()
            return
        try:
            revive(self._session.settings, self._session.app.conf.broker_url)
            missed = set(self._session.enqueuer.stuck(self._tally.scan_id, self._model, failed=False))
        except BrokerError:
            if time.monotonic() - self._answered_at > GIVE_UP_SECONDS:
                raise
            return
        self._answered_at = time.monotonic()
        for job_id in missed & self._missed:
            self._session.enqueuer.resend(job_id)
        self._missed = missed
