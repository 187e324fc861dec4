"""The Celery app, its Redis settings, and the names of task and queues. Nothing else configures Celery."""

import json
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import redis
from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from core.errors import BrokerError, SettingsError
from core.jobs import Job
from core.manifest import artifact_name
from core.settings import Settings, redact
from core.signing import HEADER, sign

TASK_NAME = "facesieve.run_job"
QUEUE_PREFIX = "facesieve."
UNACKED_KEY = "unacked"  # kombu's hash of delivered, not yet acknowledged messages
CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 20.0  # a Redis that saves or swaps may be slow
DEFAULT_VISIBILITY_SECONDS = 600
INSPECT_SECONDS = 1.0
SCHEMES = ("redis://", "rediss://", "redis+socket://")


def queue_name(model: str) -> str:
    """Return the queue whose jobs a worker with this model takes. One artifact, one queue: no job meets a wrong one."""
    return QUEUE_PREFIX + artifact_name(model)


@contextmanager
def open_broker(settings: Settings) -> Iterator[str]:
    """Yield the URL of a broker that answers: the embedded one, started if need be, or the configured one.

    Raises:
        BrokerError: it does not answer.
        SettingsError: the URL is not one of Redis.
    """
    if settings.is_broker_embedded:
        from core.embedded import EmbeddedBroker

        with EmbeddedBroker(settings.data_dir) as broker:
            yield broker.url
    else:
        if not settings.broker_url.startswith(SCHEMES):
            raise SettingsError(
                f"FACESIEVE_BROKER_URL is {redact(settings.broker_url)!r:.80}: it must be 'embedded' or start with "
                + " or ".join(SCHEMES)
            )
        ping(settings.broker_url)
        yield settings.broker_url


def revive(settings: Settings, url: str) -> None:
    """Make sure that the broker answers: start the embedded one again if it died.

    Raises:
        BrokerError: it does not answer.
    """
    if settings.is_broker_embedded:
        from core.embedded import EmbeddedBroker

        EmbeddedBroker(settings.data_dir).revive()
    else:
        ping(url)


def connect(url: str) -> "redis.Redis":
    """Return a client for a broker URL in Celery's spelling.

    Raises:
        SettingsError: the URL cannot be read.
    """
    try:
        return redis.Redis.from_url(
            url.replace("redis+socket://", "unix://", 1),
            socket_timeout=CONNECT_SECONDS,
            **({} if url.startswith("redis+socket") else {"socket_connect_timeout": CONNECT_SECONDS}),
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        # The original error may quote a part of the password: it is not shown, nor chained.
        shown = redact(url)
        raise SettingsError(f"FACESIEVE_BROKER_URL {shown!r} cannot be read: percent-encode its password") from None


def ping(url: str) -> None:
    """Raise BrokerError unless the broker answers."""
    with translated(url), connect(url) as client:
        client.ping()


@contextmanager
def translated(url: str) -> Iterator[None]:
    """Turn what redis-py and kombu raise within the block into BrokerError."""
    try:
        yield
    except (redis.exceptions.RedisError, KombuError, OperationalError, OSError) as error:
        reason = str(error).replace(url, redact(url)).splitlines()[0] if str(error) else type(error).__name__
        raise BrokerError(f"broker {redact(url)} does not answer ({reason}): {_advice(url, error)}") from error


def _advice(url: str, error: Exception) -> str:
    """Return what to do about it."""
    if isinstance(error, (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)):
        return "check the user and password in FACESIEVE_BROKER_URL, and what Redis allows that user"
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return "its certificate must be for this very host, by an authority of the system or of ?ssl_ca_certs=FILE"
    if url.startswith("rediss://") and "No such file" in str(error):
        return "a file that its ?ssl_... names is not there"
    if "SSL" in str(error):
        return "rediss:// wants TLS, does Redis speak it at this port?"
    return "is Redis running there?"


def make_app(url: str, *, visibility_seconds: int = DEFAULT_VISIBILITY_SECONDS) -> Celery:
    """Return a Celery app for the broker; nothing is connected yet.

    Args:
        url: of the broker.
        visibility_seconds: after which an unacknowledged job goes to another worker. Only workers look at it.
    """
    app = Celery("facesieve", broker=url, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],  # never pickle: whoever can write to Redis could run code on the workers
        task_ignore_result=True,  # SQL is the result store
        task_acks_late=True,
        task_reject_on_worker_lost=True,  # redelivered at once; saving is idempotent
        worker_prefetch_multiplier=1,
        worker_send_task_events=True,  # Flower
        task_send_sent_event=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,  # finish and save: the redelivery finds it done
        worker_proc_alive_timeout=600,  # a child loads TensorFlow and warms up; the default of 4 s kills it
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        broker_connection_retry_on_startup=True,
        broker_channel_error_retry=True,  # a Redis whose disk is full refuses to write, until it is not
        # Without options of TLS in the URL, kombu would believe any certificate.
        broker_use_ssl={"ssl_cert_reqs": ssl.CERT_REQUIRED} if url.startswith("rediss://") else None,
        broker_transport_options={
            "visibility_timeout": visibility_seconds,
            "unacked_restore_throttle": 1,  # look every 10 s, not every 100 s
            "socket_connect_timeout": CONNECT_SECONDS,
            # Without one, a worker waits for ever on a connection that a firewall or a lost host has forgotten.
            "socket_timeout": ANSWER_SECONDS,
            "socket_keepalive": True,
            "health_check_interval": 30,
        },
    )
    return app


def send_job(app: Celery, job: Job, keys: Sequence[str] = ()) -> None:
    """Put a job into the queue of its model.

    Args:
        app: to send with.
        job: what to send.
        keys: the first one signs the message, which is unsigned without.

    Raises:
        BrokerError: the broker did not take it.
    """
    payload = job.to_payload()
    label = f"job {job.id[:8]} scan {job.scan_id}: {len(job.images)} images"
    with translated(app.conf.broker_url):
        app.send_task(
            TASK_NAME,
            args=[payload],
            headers={HEADER: sign(payload, keys[0])} if keys else None,
            task_id=job.id,
            queue=queue_name(job.model),
            argsrepr=label,  # what Flower shows instead of a long list of URIs
            kwargsrepr="",
            retry=True,
            retry_policy={"max_retries": 3, "interval_start": 0.2, "interval_step": 0.5},
        )


def queued_messages(client: "redis.Redis", model: str) -> int:
    """Count the messages of a model that wait in Redis."""
    waiting: Any = client.llen(queue_name(model))
    return int(waiting)


def held_jobs(client: "redis.Redis", model: str) -> tuple[set[str], set[str]]:
    """Return the ids of all jobs of a model whose messages wait in Redis, and of those that were given to a worker.

    Backpressure bounds how many there are, so that they can be read in one go.
    """
    both = client.pipeline(transaction=True)
    both.lrange(queue_name(model), 0, -1)
    both.hvals(UNACKED_KEY)
    waiting, unacked = both.execute()
    # A delivered message is kept as [message, exchange, routing key].
    return {_job_id(text) for text in waiting}, {_job_id(text, delivered=True) for text in unacked}


def claimed_jobs(app: Celery) -> set[str] | None:
    """Return the ids of the jobs that workers say they have; None if no worker answers within a second.

    A worker that lost its connection has forgotten what it had not begun, while Redis still counts it as delivered.
    """
    with translated(app.conf.broker_url):
        inspect = app.control.inspect(timeout=INSPECT_SECONDS)
        answers = [inspect.active(), inspect.reserved()]
    if not all(answers):
        return None
    return {task["id"] for answer in answers for tasks in answer.values() for task in tasks}


def _job_id(text: bytes, *, delivered: bool = False) -> str:
    """Return the id of the job in a message; empty if it is none, for anybody may write into Redis."""
    try:
        message = json.loads(text)
        return str((message[0] if delivered else message)["headers"]["id"])
    except (ValueError, TypeError, KeyError, IndexError):
        return ""
