"""The predictor and the store of this worker process, made once, after the fork."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from core.errors import (
    DatabaseBusyError,
    DatabaseError,
    FacesieveError,
    ForbiddenPathError,
    MessageError,
    NewerMessageError,
)
from core.jobs import Job
from core.logs import say
from core.manifest import Manifest
from core.settings import Settings
from core.signing import check_signature
from core.uris import is_named_inside
from core.verdicts import ANSWERS, Status
from db.engine import open_engine
from db.store import Delivery, RunReport, Store
from model.faces import FaceDetector
from model.predictor import Predictor, load_predictor
from model.preprocess import configure_cv2
from worker.cores import usable_cores
from worker.fetch import Fetcher
from worker.runner import Runner

T = TypeVar("T")

MAX_MEETINGS = 20  # of a message with workers that are too old for it


@dataclass(frozen=True, slots=True)
class Plan:
    """What a worker's parent decided, for its children.

    Attributes:
        settings: of the worker.
        artifact: folder of the model.
        engine: see ``model.predictor.ENGINES``.
        precision: see ``model.predictor.PRECISIONS``.
        devices: of each child, by its index in the pool; see ``worker.gpu.plan_slots``.
        node: Celery node name.
    """

    settings: Settings
    artifact: Path
    engine: str
    precision: str
    devices: tuple[str, ...]
    node: str

    @property
    def cores(self) -> int:
        """Cores for each child: they are shared out, so that decoding and computing do not crowd each other."""
        return max(1, usable_cores() // len(self.devices))

    @property
    def decode_threads(self) -> int:
        """Threads that decode in each child."""
        return self.settings.decode_threads or self.cores


class WorkerProcess:
    """Everything that one child needs to run jobs."""

    def __init__(self, plan: Plan) -> None:
        """Load the model and warm it up; only then may the child take a job.

        Raises:
            ModelError: the model does not load.
            DatabaseError: the database does not answer.
        """
        configure_cv2()
        self._plan = plan
        self._predictor: Predictor = load_predictor(
            plan.artifact,
            engine=plan.engine,
            precision=plan.precision,
            batch_size=plan.settings.batch_size,
            cache=plan.settings.cache_dir,
            threads=plan.cores,
        )
        self._predictor.warm_up()
        say(
            "engine_chosen",
            model=self._predictor.manifest.name,
            engine=self._predictor.engine,
            precision=self._predictor.precision,
            batch_size=self._predictor.batch_size,
        )
        # A child that follows another one may come while the database is away, and must not end the worker for it.
        self._store = Store(self._persist(lambda: open_engine(plan.settings)))
        self._fetcher = Fetcher(plan.settings, self._predictor.manifest.preprocess)
        self._detector: FaceDetector | None = None
        self._runner = Runner(self._fetcher, self._predictor, threads=plan.decode_threads)

    def run(self, message_id: str, payload: object, signature: object) -> None:
        """Score the images of a message and save their verdicts.

        A job that fails as a whole is marked so in the ledger; that is not an error here. Without memory for it, this
        process ends, and the job is delivered again.

        Args:
            message_id: of the Celery task; for our own messages the job's id.
            payload: what the message says.
            signature: of the payload; None if it has none.

        Raises:
            MessageError: the message is not a job that this worker takes.
            NewerMessageError: it is one that a newer worker may take; it should be delivered again.
            DatabaseBusyError: the database stayed away for too long; the job should be delivered again.
        """
        try:
            check_signature(payload, signature, self._plan.settings.signing_keys)
            job = Job.from_payload(payload)
            self._check(job)
        except MessageError as error:
            if isinstance(error, NewerMessageError) and self._may_wait(message_id):
                raise
            reason = str(error)
            self._persist(lambda: self._store.fail_job(message_id, reason))
            raise MessageError(reason) from error
        delivery = self._persist(lambda: self._store.begin_job(job.id, self._plan.node))
        if delivery.is_over:
            say("job_over", job=job.id, scan=job.scan_id)
        elif delivery.losses > self._plan.settings.max_losses:
            self._fail(job, f"the worker was lost {delivery.losses} times in it")
        else:
            try:
                self._score(job, delivery)
            except DatabaseBusyError:
                raise
            except MemoryError:
                # A new process takes the job, an image at a time: this one may hold what it lacks.
                say("job_fault", with_traceback=True, job=job.id, scan=job.scan_id)
                os._exit(os.EX_OSERR)
            except Exception as error:
                if not isinstance(error, FacesieveError):
                    say("job_fault", with_traceback=True, job=job.id, scan=job.scan_id)
                self._fail(job, f"{type(error).__name__}: {error!s:.500}")

    def _may_wait(self, message_id: str) -> bool:
        """Whether a message of a newer version is left to others: not for ever, for there may be none."""
        return 0 < self._persist(lambda: self._store.postpone_job(message_id)) <= MAX_MEETINGS

    def release(self, job_id: str) -> None:
        """Book that a job is handed back, if the database can be reached; else its next delivery counts a loss."""
        with suppress(DatabaseError):
            self._store.release_job(job_id)

    def _score(self, job: Job, delivery: Delivery) -> None:
        # Nothing is read ahead after a loss: images are taken one at a time then.
        with self._fetcher.job(() if delivery.losses else job.images, self._detector_for(job)):
            outcomes, timings = self._runner.run(job.images, delivery, lambda position: self._mark(job, position))
        report = RunReport(
            worker=self._plan.node,
            model_id=self._model_of(job).id,
            engine=self._predictor.engine,
            precision=self._predictor.precision,
            decode_seconds=timings.decode,
            predict_seconds=timings.predict,
            total_seconds=timings.total,
        )
        self._persist(lambda: self._store.save_job(job, outcomes, report))
        n_ok = sum(outcome.status is Status.OK for outcome in outcomes)
        n_failed = sum(outcome.status not in ANSWERS for outcome in outcomes)
        say(
            "job_done",
            job=job.id,
            scan=job.scan_id,
            images=len(outcomes),
            ok=n_ok,
            failed=n_failed,
            seconds=round(timings.total, 3),
            images_per_second=round(len(outcomes) / max(timings.total, 1e-6), 1),
            engine=self._predictor.engine,
            precision=self._predictor.precision,
            worker=self._plan.node,
        )

    def _model_of(self, job: Job) -> Manifest:
        """Return what the verdicts of a job are by: faces that are found are scored otherwise than whole images."""
        return self._predictor.manifest.with_faces() if job.faces else self._predictor.manifest

    def _detector_for(self, job: Job) -> FaceDetector | None:
        """Return what finds the faces of a job's images; it is loaded, and entered, when the first job asks for it.

        Raises:
            ModelError: its packages are not installed.
        """
        if job.faces and self._detector is None:
            detector = FaceDetector(self._plan.decode_threads)
            self._persist(lambda: self._store.register_model(self._model_of(job)))
            self._detector = detector
        return self._detector if job.faces else None

    def _check(self, job: Job) -> None:
        # The messages are the same for all jobs with the same fault: the ledger counts them. Names are in the log.
        manifest = self._predictor.manifest
        if job.model != manifest.name:
            raise MessageError(f"it is for model {job.model!r:.80}, this worker has {manifest.name}")
        if job.model_id not in (None, self._model_of(job).id):
            others = "other weights, or another detector of faces," if job.faces else "other weights"
            raise MessageError(
                f"it is for model {job.model} with {others} than this worker has: restart the worker, then "
                "`producer retry`"
            )
        roots = self._plan.settings.roots
        for ref in job.images:
            if not is_named_inside(ref.uri, roots):
                say("path_refused", job=job.id, uri=ref.uri)
                raise ForbiddenPathError(
                    f"it asks for a file outside the allowed roots {', '.join(map(str, roots))}: see FACESIEVE_ROOTS"
                )

    def _mark(self, job: Job, position: int | None) -> None:
        if position is None:
            self._persist(lambda: self._store.clear_suspect(job.id))
        else:
            self._persist(lambda: self._store.suspect_image(job.id, position))

    def _fail(self, job: Job, reason: str) -> None:
        say("job_failed", job=job.id, scan=job.scan_id, images=len(job.images), reason=reason)
        self._persist(lambda: self._store.fail_job(job.id, reason))

    def _persist(self, write: Callable[[], T]) -> T:
        """Write to the database; while it is away, wait and try again."""
        attempts = Retrying(
            retry=retry_if_exception_type(DatabaseBusyError),
            wait=wait_random_exponential(multiplier=0.1, max=5),
            stop=stop_after_delay(self._plan.settings.retry_seconds),
            before_sleep=_say_that_it_waits,
            reraise=True,
        )
        return attempts(write)


def _say_that_it_waits(attempt: RetryCallState) -> None:
    if attempt.outcome and attempt.next_action:
        say("database_away", seconds=attempt.next_action.sleep, reason=attempt.outcome.exception())
