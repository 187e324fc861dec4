"""What is left of a message before Celery sees it."""

import base64
import json
from random import Random
from typing import Any

import pytest
from kombu.transport.virtual.base import Base64

from core.broker import TASK_NAME
from tests.fuzz.messages import ODD_VALUES, break_message
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


def test_messages_of_remote_control_pass_as_they_are() -> None:
    control = {"body": None, "headers": {"clock": 3, "expires": 1.5}, "properties": ENVELOPE["properties"]}
    assert read(control).headers == control["headers"]
