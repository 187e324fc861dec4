"""The message: what is sent is what is read, and nothing else is read."""

import json
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import MalformedMessageError, MessageError, MessageVersionError
from core.images import ImageRef
from core.jobs import MAX_IMAGES, MAX_URI_LENGTH, Job

ID = "0123456789abcdef0123456789abcdef"
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=50)
REFS = st.builds(
    ImageRef,
    uri=TEXTS.filter(bool),
    fingerprint=TEXTS,
    size_bytes=st.integers(0, 2**63 - 1),
    offset=st.none() | st.integers(0, 2**63 - 1),
)
JOBS = st.builds(
    Job,
    id=st.uuids().map(lambda uuid: uuid.hex),
    scan_id=st.integers(0, 2**31 - 1),
    model=TEXTS,
    images=st.lists(REFS, min_size=1, max_size=5).map(tuple),
    model_id=st.none() | TEXTS,
    faces=st.booleans(),
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def a_payload(**changes: Any) -> dict[str, Any]:
    """Return a payload that is a job, but for the changes."""
    row = ["/faces/a.jpg", "5-17", 5]
    payload = {"version": 1, "id": ID, "scan_id": 3, "model": "card", "model_id": None, "images": [row]}
    return payload | changes


def test_a_payload_is_read_as_a_job() -> None:
    job = Job.from_payload(a_payload())
    assert job == Job(ID, 3, "card", (ImageRef("/faces/a.jpg", "5-17", 5),))


@given(JOBS)
def test_a_job_survives_its_travel_as_json(job: Job) -> None:
    assert Job.from_payload(json.loads(json.dumps(job.to_payload()))) == job


@given(JOBS)
def test_a_job_survives_being_kept_in_the_ledger(job: Job) -> None:
    assert Job.unpack(job.pack()) == job


@given(JOBS, st.data())
def test_a_job_that_was_kept_and_damaged_is_a_job_or_refused_by_name(job: Job, chance: st.DataObject) -> None:
    packed = bytearray(job.pack())
    position = chance.draw(st.integers(0, len(packed) - 1))
    packed[position : position + 1] = chance.draw(st.binary(max_size=3))
    with suppress(MessageError):
        assert isinstance(Job.unpack(bytes(packed)), Job)


def test_only_a_job_with_members_of_a_tar_needs_a_new_worker() -> None:
    member = ImageRef("/faces.tar#a.jpg", "5-17@512", 5, 512)
    plain = ImageRef("/faces/a.jpg", "5-17", 5)
    assert Job(ID, 3, "card", (plain,)).to_payload()["version"] == 1
    payload = Job(ID, 3, "card", (plain, member)).to_payload()
    assert payload["version"] == 2
    assert Job.from_payload(payload).images == (plain, member)


def test_only_a_job_that_looks_for_faces_says_so_and_needs_a_new_worker() -> None:
    plain = Job(ID, 3, "card", (ImageRef("/faces/a.jpg", "5-17", 5),))
    assert "faces" not in plain.to_payload()
    payload = replace(plain, faces=True).to_payload()
    assert (payload["version"], payload["faces"]) == (2, True)
    assert Job.from_payload(payload).faces
    assert not Job.from_payload(plain.to_payload()).faces


@pytest.mark.parametrize("faces", ["detect", 1, 0, None, [True]])
def test_a_wish_for_faces_that_is_neither_true_nor_false_is_malformed(faces: object) -> None:
    with pytest.raises(MalformedMessageError, match="not bool"):
        Job.from_payload(a_payload(version=2, faces=faces))


def test_a_payload_holds_names_and_numbers_and_no_content() -> None:
    assert [field.name for field in fields(ImageRef)] == ["uri", "fingerprint", "size_bytes", "offset"]
    assert Job.from_payload(a_payload()).to_payload() == a_payload()


def test_an_id_in_another_spelling_is_read_as_32_digits() -> None:
    assert Job.from_payload(a_payload(id="01234567-89AB-CDEF-0123-456789ABCDEF")).id == ID


@pytest.mark.parametrize("payload", [None, 1, "job", [], [1, "job"], b"job", 1.5, True])
def test_what_is_no_object_is_malformed(payload: object) -> None:
    with pytest.raises(MalformedMessageError):
        Job.from_payload(payload)


@pytest.mark.parametrize("version", [None, 0, 3, "1", [], {}, -1, "x" * 1000, True])
def test_another_version_is_refused_in_a_short_line_that_says_what_to_do(version: object) -> None:
    with pytest.raises(MessageVersionError, match="same facesieve release") as caught:
        Job.from_payload(a_payload(version=version))
    assert len(str(caught.value)) < 200


def test_a_message_without_a_version_is_of_another_version() -> None:
    payload = a_payload()
    del payload["version"]
    with pytest.raises(MessageVersionError):
        Job.from_payload(payload)


@pytest.mark.parametrize("key", ["id", "scan_id", "model", "images"])
def test_a_message_that_lacks_a_part_is_malformed(key: str) -> None:
    payload = a_payload()
    del payload[key]
    with pytest.raises(MalformedMessageError, match=key):
        Job.from_payload(payload)


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "short"},
        {"id": "g" * 32},
        {"id": None},
        {"id": 5},
        {"id": [ID]},
        {"scan_id": "3"},
        {"scan_id": 3.0},
        {"scan_id": True},
        {"scan_id": None},
        {"model": 5},
        {"model": None},
        {"images": []},
        {"images": None},
        {"images": "abc"},
        {"images": {"a": 1}},
        {"images": ["abc"]},
        {"images": [5]},
        {"images": [["/a", "1-1"]]},
        {"images": [["/a", "1-1", 1, -1]]},
        {"images": [["/a", "1-1", 1, 1, 1]]},
        {"images": [{"uri": "/a", "fingerprint": "1-1", "size_bytes": 1}]},
        {"images": [["", "1-1", 1]]},
        {"images": [["/a\0b", "1-1", 1]]},
        {"images": [["/" + "a" * MAX_URI_LENGTH, "1-1", 1]]},
        {"images": [["/\udcff", "1-1", 1]]},
        {"images": [["/a", "\udcff", 1]]},
        {"images": [["/a", None, 1]]},
        {"images": [["/a", "1-1", "1"]]},
        {"images": [["/a", "1-1", True]]},
        {"images": [["/a", "1-1", 1.0]]},
        {"images": [[5, "1-1", 1]]},
    ],
    ids=str,
)
def test_a_part_of_another_kind_is_malformed(changes: dict[str, object]) -> None:
    with pytest.raises(MalformedMessageError):
        Job.from_payload(a_payload(**changes))


@pytest.mark.parametrize(
    "row", [["/a", "1\0-1", 1], ["/a", "1-1", 2**63], ["/a", "1-1", -1]], ids=["nul", "too-large", "negative"]
)
def test_a_value_that_no_database_can_hold_is_malformed(row: list[object]) -> None:
    with pytest.raises(MalformedMessageError):
        Job.from_payload(a_payload(images=[row]))


def test_a_job_of_more_images_than_the_limit_is_malformed() -> None:
    with pytest.raises(MalformedMessageError, match=str(MAX_IMAGES)):
        Job.from_payload(a_payload(images=[["/a", "1-1", 1]] * (MAX_IMAGES + 1)))


def test_an_error_is_one_short_line_whatever_the_message_holds() -> None:
    with pytest.raises(MalformedMessageError) as caught:
        Job.from_payload(a_payload(images=[["line\nbreak\0" + "x" * 5000, "1-1", 1]]))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@given(JSON_VALUES)
def test_arbitrary_json_is_refused_by_name(value: object) -> None:
    with pytest.raises(MessageError):
        Job.from_payload(value)


@given(st.sampled_from(["id", "scan_id", "model", "images"]), JSON_VALUES)
def test_arbitrary_json_in_one_part_is_a_job_or_refused_by_name(key: str, value: object) -> None:
    try:
        job = Job.from_payload(a_payload(**{key: value}))
    except MessageError:
        return
    assert Job.from_payload(job.to_payload()) == job


@given(st.lists(JSON_VALUES, max_size=4))
def test_arbitrary_json_in_one_image_is_a_job_or_refused_by_name(row: list[object]) -> None:
    try:
        job = Job.from_payload(a_payload(images=[row]))
    except MessageError:
        return
    assert [job.images[0].uri, job.images[0].fingerprint, job.images[0].size_bytes] == row
