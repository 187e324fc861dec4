"""What Celery may see of a message from outside: the few parts that our producers set, each of its kind."""

import json
from collections.abc import Mapping
from typing import Any

from kombu.transport import virtual

from core.broker import TASK_NAME

_TEXTS = ("id", "task", "root_id", "origin", "argsrepr", "kwargsrepr")
_OURS = "facesieve"  # headers of newer producers begin so, too: an older worker hands them back as they were
#: Said for all of them, so that Celery reads the very text that is checked here.
_FORMAT = {"content-type": "application/json", "content-encoding": "utf-8"}


class PlainMessage(virtual.Message):  # type: ignore[misc]  # kombu has no types
    """A message that can say no more than our producers say.

    Celery believes whatever stands in a message. A time limit that is no pair ends the worker once the task's turn has
    come, a time that lies ahead keeps it waiting in memory, and other odd values are found out when the message has
    taken its place among the prefetched ones, which it then never leaves. What remote control sends names no task, and
    passes.
    """

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        """Take a message as Redis has it.

        Raises:
            LookupError: a part is missing.
            TypeError: a part is of another kind.
            ValueError: its body cannot be decoded, or is not of a message of ours.
        """
        is_job = "task" in payload["headers"]
        super().__init__(_plain(payload) if is_job else payload | _FORMAT, channel=channel, **kwargs)
        content = json.loads(self.body.decode())
        if not (_is_job(content) if is_job else _is_control(content)):
            raise ValueError("its body is not one of our producers'")


def _is_job(content: object) -> bool:
    """Tell whether it is arguments, keywords, and what Celery shall do besides: nothing, for that is not signed."""
    match content:
        case [list(), dict(), dict(besides)]:
            return not any(besides.values())
    return False


def _is_control(content: object) -> bool:
    """Tell it from a job of Celery's first protocol, which says in its body what ours say in their headers."""
    return isinstance(content, dict) and "task" not in content


def _plain(payload: Any) -> dict[str, Any]:
    headers, properties = _mapping(payload["headers"]), _mapping(payload["properties"])
    delivery = _mapping(properties["delivery_info"])
    if headers["task"] != TASK_NAME:  # Celery has some of its own; one of them queues whatever its arguments say
        raise ValueError(f"{headers['task']!r:.40} is no task of ours")
    return _FORMAT | {
        "body": _text(payload["body"]),
        "headers": {"id": _text(headers["id"]), "task": TASK_NAME}
        | {
            name: value
            for name, value in headers.items()
            if isinstance(value, str) and (name in _TEXTS or name.startswith(_OURS))
        },
        "properties": {
            "body_encoding": _text(properties["body_encoding"]),
            "correlation_id": headers["id"],
            "delivery_info": {
                "exchange": _text(delivery["exchange"]),
                "routing_key": _text(delivery["routing_key"]),
                "redelivered": delivery.get("redelivered") is True,
            },
            "delivery_mode": 2,
            "delivery_tag": _text(properties["delivery_tag"]),
            "priority": 0,
        },
    }


def _mapping(value: object) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{value!r:.40} is no JSON object")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.40} is no text")
    value.encode()  # a lone surrogate cannot travel back to Redis: UnicodeEncodeError, a ValueError
    return value
