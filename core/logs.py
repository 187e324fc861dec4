"""What is logged: actions, each with its fields, as lines for people or as JSON objects, one to a line, for machines.

Every line of ours is an action of the table below. What a library logs has the action ``library``.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from core.cli import printable

_logger = logging.getLogger("facesieve")

#: Level, and the sentence for people; the names in it are fields. docs/logs.md says when each is written.
ACTIONS: dict[str, tuple[int, str]] = {
    "worker_started": (logging.INFO, "worker {worker}: model {model}, trained: {trained}, {children} processes"),
    "worker_stopping": (logging.INFO, "worker {worker} got {signal}: running jobs have {seconds:g} s to end"),
    "worker_stopped": (logging.INFO, "worker {worker} stopped, {released} jobs handed back"),
    "engine_chosen": (logging.INFO, "{model} runs on {engine} in {precision}, {batch_size} images at a time"),
    "child_ready": (logging.INFO, "child {child} is ready (device {device})"),
    "child_lost": (logging.ERROR, "child {child} (process {pid}) died of {cause}, running job {job}"),
    "backing_off": (logging.WARNING, "{deaths} children died and no job ended: the next one starts in {seconds:g} s"),
    "job_done": (
        logging.INFO,
        "job {job:.8} of scan {scan}: {images} images in {seconds:.2f} s ({images_per_second:.1f} images/s), "
        "{ok} ok, {failed} failed",
    ),
    "job_over": (logging.INFO, "job {job:.8} is over already"),
    "job_failed": (logging.ERROR, "job {job:.8} failed: {reason}"),
    "job_fault": (logging.ERROR, "job {job:.8} met a fault"),
    "job_refused": (logging.ERROR, "message {job:.80} rejected: {reason}"),
    "job_handed_back": (logging.WARNING, "job {job:.80} handed back: {reason}"),
    "path_refused": (logging.ERROR, "job {job:.8} asks for {uri!r:.200}"),
    "message_dropped": (logging.ERROR, "message rejected: it is not one of our producers': {reason}"),
    "database_away": (logging.WARNING, "trying again in {seconds:.1f} s: {reason}"),
    "consumer_restarted": (logging.WARNING, "{waiting} jobs wait and none came for {seconds:.0f} s: connecting anew"),
    "consumer_stuck": (logging.ERROR, "{waiting} jobs wait and none came for {seconds:.0f} s: stopping"),
    "loop_stuck": (logging.ERROR, "the event loop has not turned for {seconds:.0f} s: stopping"),
    "sign_unwritable": (logging.WARNING, "`worker check --live` will find nothing: {reason}"),
    "engine_changed": (logging.WARNING, "{reason}"),
    "batch_halved": (logging.WARNING, "out of memory: batch size halved to {batch_size}"),
}


def say(action: str, *, with_traceback: bool = False, **fields: object) -> None:
    """Log an action.

    Args:
        action: a key of ``ACTIONS``.
        with_traceback: of the exception that is being handled.
        fields: those that its sentence names, and more if need be; they may hold anything.
    """
    level, sentence = ACTIONS[action]
    if _logger.isEnabledFor(level):
        _logger.log(
            level, "%s", sentence.format(**fields), exc_info=with_traceback, extra={"action": action, "fields": fields}
        )


def set_up(style: str, *, is_verbose: bool = False) -> None:
    """Log to stderr from here on, and in processes that are forked after this.

    Args:
        style: ``pretty`` or ``json``.
        is_verbose: also what libraries have to say at the level INFO.
    """
    out = logging.StreamHandler(sys.stderr)
    out.setFormatter(JsonLines() if style == "json" else PrettyLines())
    logging.captureWarnings(True)
    logging.basicConfig(handlers=[out], level=logging.INFO if is_verbose else logging.WARNING)
    _logger.setLevel(logging.INFO)


class PrettyLines(logging.Formatter):
    """Lines for people. Nothing that is logged can begin a line of its own: what follows is indented."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, and its traceback."""
        line = f"{self.formatTime(record)} {record.levelname} {_action(record)} {printable(record.getMessage())}"
        return "\n".join([line, *(f"    {printable(text)}" for text in _traceback(self, record))])


class JsonLines(logging.Formatter):
    """JSON objects: time (UTC), level, action, message, and the fields of the action."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object of a record as one line of ASCII."""
        fields: dict[str, Any] = getattr(record, "fields", {"logger": record.name})
        traceback = _traceback(self, record)
        shown = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "action": _action(record),
            "message": record.getMessage(),
            **fields,
            **({"traceback": traceback} if traceback else {}),
        }
        return json.dumps(shown, default=str)


def _action(record: logging.LogRecord) -> str:
    return getattr(record, "action", "library")


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> list[str]:
    return formatter.formatException(record.exc_info).splitlines() if record.exc_info else []
