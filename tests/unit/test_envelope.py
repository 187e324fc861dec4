"""What is left of a message before Celery sees it."""

import base64
import json
from random import Random
from typing import Any

import pytest
from kombu.transport.virtual.base import Base64

from core.broker import TASK_NAME
from tests.fuzz.messages import ODD_VALUES, break_message, worst_messages
from worker.envelope import PlainMessage

BODY = [[{"version": 1}], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None}]
ENVELOPE: dict[str, Any] = {
    "body": base64.b64encode(json.dumps(BODY).encode()).decode(),
    "content-encoding": "utf-8",
    "content-type": "application/json",
    "headers": {
        "lang": "py", "task": TASK_NAME, "id": "ab" * 16, "shadow": None, "eta": None, "expires": None, "group": None,
        "retries": 0, "timelimit": [None, None], "root_id": "ab" * 16, "parent_id": None, "argsrepr": "job ab",
        "kwargsrepr": "", "origin": "gen1@vm", "ignore_result": True, "facesieve_signature": "cd" * 32,
    },
    "properties": {
        "correlation_id": "ab" * 16, "reply_to": "x", "delivery_mode": 2, "priority": 0, "body_encoding": "base64",
        "delivery_info": {"exchange": "", "routing_key": "facesieve.tiny"}, "delivery_tag": "ef",
    },
}  # fmt: skip
REFUSED = (ValueError, TypeError, LookupError, AttributeError, RecursionError)


class Channel:
    """As much of one as a message asks for."""

    def decode_body(self, body: str, encoding: str | None) -> Any:
        return Base64().decode(body) if encoding == "base64" else body


def read(envelope: object) -> PlainMessage:
    return PlainMessage(envelope, channel=Channel())


def changed(part: str, **values: object) -> dict[str, Any]:
    return ENVELOPE | {part: ENVELOPE[part] | values}


def test_what_a_producer_says_is_what_celery_sees() -> None:
    message = read(ENVELOPE)
    assert message.payload == BODY
    assert message.delivery_tag == "ef"
    assert message.delivery_info == {"exchange": "", "routing_key": "facesieve.tiny", "redelivered": False}
    kept = {"task", "id", "root_id", "argsrepr", "kwargsrepr", "origin", "facesieve_signature"}
    assert message.headers == {name: ENVELOPE["headers"][name] for name in kept}


def test_a_redelivery_and_headers_of_newer_producers_survive_a_second_reading() -> None:
    once = changed("headers", facesieve_later="x", redelivered=True)
    once["properties"] = once["properties"] | {
        "delivery_info": {"exchange": "", "routing_key": "q", "redelivered": True}
    }
    twice = read(json.loads(json.dumps(read(once)._raw)))
    assert twice.headers["facesieve_later"] == "x"
    assert twice.delivery_info["redelivered"] is True


@pytest.mark.parametrize(
    "headers",
    [
        {"timelimit": [0.001]},
        {"eta": "2099-01-01T00:00:00"},
        {"expires": {}},
        {"shadow": []},
        {"stamps": 5},
        {"group": {}},
    ],
    ids=str,
)
def test_what_no_producer_sets_is_dropped(headers: dict[str, object]) -> None:
    assert read(changed("headers", **headers)).headers == read(ENVELOPE).headers


@pytest.mark.parametrize(
    "odd", [value for value in ODD_VALUES if not isinstance(value, str)], ids=lambda v: repr(v)[:20]
)
@pytest.mark.parametrize(
    ("part", "name"),
    [("headers", "id"), ("headers", "task"), ("properties", "delivery_tag"), ("properties", "delivery_info")],
)
def test_a_needed_part_of_another_kind_is_refused(part: str, name: str, odd: object) -> None:
    with pytest.raises(REFUSED):
        read(changed(part, **{name: odd}))


def test_no_broken_message_says_more_than_a_sound_one() -> None:
    chance = Random(1)
    sound = json.dumps(ENVELOPE).encode()
    refused = 0
    for _ in range(2000):
        try:
            message = read(json.loads(break_message(sound, chance)))
        except REFUSED:
            refused += 1
            continue
        if "task" in message.headers:
            assert {name for name in message.headers if not name.startswith("facesieve")} <= set(read(ENVELOPE).headers)
            assert all(isinstance(value, str) for value in message.headers.values())
            assert message.properties.keys() == read(ENVELOPE).properties.keys()
    assert 200 < refused < 1800


def test_the_worst_messages_are_refused() -> None:
    for message in worst_messages(json.dumps(ENVELOPE).encode()):
        with pytest.raises(REFUSED):
            read(json.loads(message))


def with_body(body: object, **parts: object) -> dict[str, Any]:
    return ENVELOPE | {"body": base64.b64encode(json.dumps(body).encode()).decode()} | parts


@pytest.mark.parametrize("name", ["callbacks", "errbacks", "chain", "chord"])
def test_a_message_that_asks_for_more_than_its_signature_covers_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="body"):
        read(with_body([*BODY[:2], {**BODY[2], name: [{"task": TASK_NAME}]}]))


@pytest.mark.parametrize("headers", [{}, {"id": "ab", "task": TASK_NAME}], ids=["first protocol", "mixture"])
@pytest.mark.parametrize("odd", [{"timelimit": "x"}, {"eta": "2099-01-01T00:00:00"}], ids=str)
def test_a_message_of_an_older_protocol_is_refused(headers: dict[str, str], odd: dict[str, str]) -> None:
    body = {"task": TASK_NAME, "id": "ab", "args": [1], "kwargs": {}}
    with pytest.raises(ValueError, match="body"):
        read(with_body(body | odd, headers=headers))


@pytest.mark.parametrize("task", ["celery.group", "celery.starmap", "facesieve.other"])
def test_a_task_that_is_not_ours_is_refused(task: str) -> None:
    with pytest.raises(ValueError, match="no task of ours"):
        read(changed("headers", task=task))


def test_the_body_that_is_read_is_the_one_that_celery_reads() -> None:
    """In UTF-7 the same bytes say something else."""
    text = json.dumps([["+ACIAXQ-, {}, {+ACI-chain+ACI-: 1}]"], {}, {}]).encode()
    body = base64.b64encode(text).decode()
    message = read(ENVELOPE | {"body": body, "content-encoding": "utf-7"})
    assert message.payload == json.loads(text)


def test_messages_of_remote_control_pass() -> None:
    asked = {"method": "ping", "arguments": {}, "destination": None, "pattern": None, "matcher": None}
    headers = {"clock": 3, "expires": 1.5}
    message = read(with_body(asked, headers=headers))
    assert message.headers == headers
    assert message.payload == asked
