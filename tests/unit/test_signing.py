"""Signatures: what a key has signed is believed, whatever spells it on its way, and nothing else is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import UnsignedMessageError
from core.images import ImageRef
from core.jobs import Job
from core.signing import check_signature, sign

KEY, OTHER = "k" * 32, "o" * 32
PAYLOAD = Job(
    "0" * 32, 3, "card", (ImageRef("/faces/a.jpg", "5-17", 5), ImageRef("/b.tar#é", "5-17", 5, 512))
).to_payload()
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_a_signature_is_good_for_what_was_signed_after_its_travel(value: object) -> None:
    check_signature(json.loads(json.dumps(value, indent=1)), sign(value, KEY), [KEY])


@given(JSON_VALUES, JSON_VALUES)
def test_a_signature_is_good_for_nothing_else(one: object, other: object) -> None:
    if json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True):
        return
    with pytest.raises(UnsignedMessageError, match="not by a key"):
        check_signature(other, sign(one, KEY), [KEY])


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "1" * 32},
        {"scan_id": 4},
        {"model": "other"},
        {"model_id": "x"},
        {"version": 1},
        {"faces": True},
        {"images": PAYLOAD["images"][:1]},
        {"images": PAYLOAD["images"][::-1]},
        {"images": [["/etc/shadow", "5-17", 5]]},
        {"scan_id": 3.0},
        {"more": None},
    ],
    ids=str,
)
def test_a_change_of_any_part_of_a_job_is_seen(changes: dict[str, Any]) -> None:
    check_signature(PAYLOAD, sign(PAYLOAD, KEY), [KEY])
    with pytest.raises(UnsignedMessageError, match="not by a key"):
        check_signature(PAYLOAD | changes, sign(PAYLOAD, KEY), [KEY])


def test_each_of_several_keys_is_accepted_and_no_other_one() -> None:
    for key in (KEY, OTHER):
        check_signature(PAYLOAD, sign(PAYLOAD, key), [OTHER, KEY])
    with pytest.raises(UnsignedMessageError, match="not by a key"):
        check_signature(PAYLOAD, sign(PAYLOAD, "x" * 32), [OTHER, KEY])


@pytest.mark.parametrize("signature", [None, 5, True, b"x", [], {}, ["a" * 64]], ids=str)
def test_what_has_no_signature_is_refused_with_the_way_to_mend_it(signature: object) -> None:
    with pytest.raises(UnsignedMessageError, match=r"not signed.*FACESIEVE_SIGNING_KEY.*producer retry"):
        check_signature(PAYLOAD, signature, [KEY])


@pytest.mark.parametrize(
    "signature", ["", "a" * 64, "é\ud800\0\n", "x" * 1_000_000], ids=["none", "wrong", "odd", "long"]
)
def test_a_signature_of_any_text_is_refused_in_one_line(signature: str) -> None:
    with pytest.raises(UnsignedMessageError) as caught:
        check_signature(PAYLOAD, signature, [KEY])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 250


def test_what_json_cannot_say_is_refused() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for payload in (deep, float("nan"), {1, 2}, object(), 10**5000):
        with pytest.raises(UnsignedMessageError, match="cannot have been signed"):
            check_signature(payload, "a" * 64, [KEY])


def test_without_a_key_nothing_is_asked_for() -> None:
    for signature in (None, "wrong", sign(PAYLOAD, KEY)):
        check_signature(PAYLOAD, signature, [])


def test_the_signature_is_known_to_programs_of_later_releases() -> None:
    # Producers and workers of two releases meet in a rolling upgrade: the value must not change with the code.
    assert sign({"b": [1, "é"], "a": None}, KEY) == "ee12d82ed880a7a7869c804a876352f1ae7a6acab68abd8e191dfecdc5a6b709"
