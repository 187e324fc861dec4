"""What Celery may see of a message from outside: the few parts that our producers set, each of its kind."""

from collections.abc import Mapping
from typing import Any

from kombu.transport import virtual

_TEXTS = ("id", "task", "root_id", "origin", "argsrepr", "kwargsrepr")
_OURS = "facesieve"  # headers of newer producers begin so, too: an older worker hands them back as they were


class PlainMessage(virtual.Message):  # type: ignore[misc]  # kombu has no types
    """A message that can say no more than our producers say.

    Celery believes whatever stands in a message. A time limit that is no pair ends the worker once the task's turn has
    come, a time that lies ahead keeps it waiting in memory, and other odd values are found out when the message has
    taken its place among the prefetched ones. What remote control sends, which names no task, passes as it is.
    """

    def __init__(self, payload: Any, channel: Any = None, **kwargs: Any) -> None:
        """Take a message as Redis has it.

        Raises:
            LookupError: a part is missing.
            TypeError: a part is of another kind.
            ValueError: its body cannot be decoded.
        """
        super().__init__(_plain(payload) if "task" in payload["headers"] else payload, channel=channel, **kwargs)


def _plain(payload: Any) -> dict[str, Any]:
    headers, properties = _mapping(payload["headers"]), _mapping(payload["properties"])
    delivery = _mapping(properties["delivery_info"])
    return {
        "body": _text(payload["body"]),
        "content-type": _text(payload["content-type"]),
        "content-encoding": _text(payload["content-encoding"]),
        "headers": {"id": _text(headers["id"]), "task": _text(headers["task"])}
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
