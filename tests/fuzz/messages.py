"""Broken messages, as they wait in Redis: an envelope of Celery's around the JSON of a job."""

import base64
import json
from collections.abc import Iterator
from copy import deepcopy
from random import Random
from typing import Any

#: In place of any part of a message.
ODD_VALUES = (
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**70, 1e308, float("nan"), "", " ", "\0", "\ud800", "x" * 5000, "-1",
    "../..", "2099-01-01T00:00:00", [], [[]], [None] * 100, {}, {"": {}}, {"__type__": "datetime", "__value__": 1},
)  # fmt: skip


def break_message(envelope: bytes, chance: Random) -> bytes:
    """Return a broken copy of a message.

    Args:
        envelope: the whole of it, as Redis has it.
        chance: decides everything.
    """
    kind = chance.random()
    if kind < 0.1:
        return _break_text(envelope, chance)
    if kind < 0.12:
        return chance.choice((b"[", b'{"a":')) * 100_000  # deeper than Python's stack
    content = json.loads(envelope)
    for _ in range(chance.choice((1, 1, 2, 4))):
        if kind < 0.5:
            body = json.loads(base64.b64decode(content["body"]))
            _break_value(body, chance)
            content["body"] = _encoded(body)
        else:
            _break_value(content, chance)
            kind = 1.0
    return json.dumps(content).encode()


def worst_messages(envelope: bytes) -> list[bytes]:
    """Return messages that ended workers once: kombu alone lets what they raise through."""
    content = json.loads(envelope)
    no_tag = content | {"properties": content["properties"] | {"delivery_tag": None}}
    unread = [content | {"headers": headers, "body": _encoded(body)} for headers, body in _unread_bodies(content)]
    return [b"[" * 100_000, *(json.dumps(message).encode() for message in (no_tag, *unread))]


def _unread_bodies(content: dict[str, Any]) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield headers and bodies of Celery's first protocol, of a mixture of both, and of neither.

    Each one of those that Celery finds out too late cost a worker one of the places of messages that it takes.
    """
    headers = content["headers"]
    args, keywords, besides = json.loads(base64.b64decode(content["body"]))
    first = {"task": headers["task"], "id": headers["id"], "args": args, "kwargs": keywords}
    for odd in ({"timelimit": "x"}, {"eta": "2099-01-01T00:00:00"}):
        yield {}, first | odd
        yield {"id": headers["id"], "task": headers["task"]}, {"args": args} | odd
    for body in (5, "text", [1, 2], {"task": []}, {"task": "nobody's"}):
        yield {}, body
        yield headers, body
    yield headers, [args, keywords, besides | {"callbacks": [{"task": headers["task"], "args": args, "kwargs": {}}]}]


def _encoded(body: object) -> str:
    return base64.b64encode(json.dumps(body).encode()).decode()


def _break_text(text: bytes, chance: Random) -> bytes:
    position = chance.randrange(len(text))
    end = position + chance.choice((0, 1, 2, 50, len(text)))
    return text[:position] + chance.randbytes(chance.choice((0, 1, 3))) + text[end:]


def _break_value(value: Any, chance: Random) -> None:
    """Put something else into one place of nested lists and dictionaries, or take it away."""
    while True:
        key = chance.choice(list(value) if isinstance(value, dict) else range(len(value))) if value else None
        if key is not None and isinstance(value[key], dict | list) and value[key] and chance.random() < 0.75:
            value = value[key]
            continue
        break
    if key is None:
        return
    if chance.random() < 0.2:
        del value[key]
    else:
        value[key] = deepcopy(chance.choice(ODD_VALUES))
