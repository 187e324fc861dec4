"""Whatever is put into what reads settings, manifests, URIs, options and messages: a value, or the named error."""

import json
import math
import os
from contextlib import suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from core.errors import ImageError, ModelBrokenError, SettingsError, UsageError
from core.images import ImageRef
from core.manifest import MANIFEST_NAME, Calibration, Manifest, read_manifest
from core.selection import Selection
from core.settings import PREFIX, Settings, load_settings, redact
from core.uris import is_named_inside, member_uri, named_uri, path_to_uri, split_member, uri_to_path
from producer.options import read_moment, read_selection, read_share, read_size

in_a_folder = hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)

#: What the environment, a file's name and an argument of a command can hold: any bytes but NUL.
WORDS = st.binary(max_size=60).map(lambda raw: os.fsdecode(raw.replace(b"\0", b"")))
#: What a message can hold: text that can be encoded, without NUL.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
VALUES = st.one_of(
    WORDS,
    st.sampled_from(
        ["~", "~nobody-of-that-name/x", "nan", "inf", "1e999", "0", "-1", "9" * 5000, "/" * 5000, "é" * 300]
    ),
    st.sampled_from(
        ["s3://", "https://[::1", "http://a:b", "/a:/b", "s3://a:/b", "ftp://a", "://", ":", "\n", "1_0", "٣"]
    ),
    st.integers().map(str),
    st.floats().map(str),
)
VARIABLES = st.sampled_from([PREFIX + name.upper() for name in Settings.model_fields])
FINITE = st.floats(allow_nan=False, allow_infinity=False)
CALIBRATIONS = st.builds(
    Calibration,
    slope=st.floats(0, 1e300, exclude_min=True),
    intercept=FINITE,
    images=st.integers(1, 2**40),
    source=TEXTS,
    false_positive_rate=st.floats(0, 1, exclude_min=True, exclude_max=True),
    operating_points=st.dictionaries(TEXTS, st.floats(0, 1), max_size=3),
)
MANIFESTS = st.builds(
    Manifest,
    name=st.from_regex(r"\A[a-z0-9][a-z0-9._-]{0,50}x\Z"),
    format=st.sampled_from(["keras", "saved_model"]),
    file=st.sampled_from(["model.keras", "saved_model"]),
    sha256=st.from_regex(r"\A[0-9a-f]{64}\Z"),
    architecture=TEXTS,  # of at most 60 characters; the database takes 64
    parameters=st.integers(0, 2**60),
    preprocess=st.sampled_from(["card", "rgb-area", "rgb-scaled"]),
    flip=st.booleans(),
    trained=st.booleans(),
    real_above=st.floats(0.5, 1),
    generated_below=st.floats(0, 0.5),
    calibration=st.none() | CALIBRATIONS,
    source=TEXTS,
    created_at=st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    keras_version=TEXTS,
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def load_or_explain() -> Settings | str:
    """Return the settings of this environment, or what is wrong with it."""
    try:
        return load_settings()
    except SettingsError as error:
        return str(error)


@given(st.dictionaries(VARIABLES, VALUES, min_size=1, max_size=3))
@example({"FACESIEVE_DATA_DIR": "~nobody-of-that-name"})
@example({"FACESIEVE_ROOTS": "~nobody-of-that-name"})
def test_any_environment_gives_settings_or_one_line_that_names_the_variable(environment: dict[str, str]) -> None:
    with patch.dict(os.environ, environment):
        settings = load_or_explain()
    if isinstance(settings, str):
        assert any(name in settings for name in environment)
        assert "\n" not in settings
        assert len(settings) < 600
        return
    with patch.dict(os.environ, settings.as_environment()):
        assert load_settings() == settings


@given(TEXTS.filter(lambda text: "/" not in text), st.sampled_from(["redis", "rediss", "postgresql+psycopg"]))
def test_no_password_is_left_in_a_url_that_is_shown(password: str, scheme: str) -> None:
    secret = f"hush{password}hush"
    assert secret not in redact(f"{scheme}://me:{secret}@host/0")


@given(MANIFESTS)
@in_a_folder
def test_every_manifest_survives_being_written_and_read(tmp_path: Path, manifest: Manifest) -> None:
    (tmp_path / MANIFEST_NAME).write_text(manifest.model_dump_json(), encoding="utf-8")
    found = read_manifest(tmp_path)
    assert found == manifest
    assert found.id == manifest.id


@given(st.binary(max_size=200) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"name":' * 50_000)
@example(b"1" * 10_000)
@in_a_folder
def test_any_bytes_for_a_manifest_are_broken_in_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ModelBrokenError, match="is not a manifest"):
        read_manifest(tmp_path)


@given(MANIFESTS, st.sampled_from(sorted(Manifest.model_fields)), JSON_VALUES)
@in_a_folder
def test_any_value_in_one_field_is_a_manifest_or_broken_by_name(
    tmp_path: Path, manifest: Manifest, field: str, value: object
) -> None:
    content = json.loads(manifest.model_dump_json()) | {field: value}
    (tmp_path / MANIFEST_NAME).write_text(json.dumps(content), encoding="utf-8")
    with suppress(ModelBrokenError):
        found = read_manifest(tmp_path)
        assert Manifest.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("number", [math.nan, math.inf])
@pytest.mark.parametrize("field", ["slope", "intercept", "operating_points"])
def test_a_calibration_without_numbers_is_refused(field: str, number: float) -> None:
    sound = {"slope": 1, "intercept": 0, "images": 1, "source": "", "false_positive_rate": 0.1}
    with pytest.raises(ValidationError, match=field):
        Calibration.model_validate(sound | {field: {"0.1": number} if field == "operating_points" else number})


@given(WORDS, st.sampled_from(["", "/", "./"]))
def test_the_uri_of_any_path_survives_json_and_sql(name: str, start: str) -> None:
    uri = named_uri(start + name)
    assert uri.encode().decode() == uri


@given(WORDS.filter(bool), WORDS.filter(bool))
def test_a_file_beside_a_root_is_never_inside_it(folder: str, name: str) -> None:
    path = os.path.normpath(f"/{folder}/{name}")
    uri = path_to_uri(path)
    assert uri_to_path(uri) == path
    assert is_named_inside(uri, (Path("/"),))
    assert is_named_inside(uri, (Path("/root"),)) == path.startswith("/root/")
    assert not is_named_inside(uri, ("s3://", "https://"))


@given(TEXTS, st.sampled_from(["", "/", "file://", "file:///", "s3://b/", "/a.tar#", "https://h/"]))
def test_any_text_of_a_message_is_a_uri_or_an_image_error(text: str, scheme: str) -> None:
    uri = scheme + text
    archive, member = split_member(uri)
    assert uri == archive if member is None else split_member(member_uri(archive, member)) == (archive, member)
    assert isinstance(is_named_inside(uri, (Path("/data"), "s3://b")), bool)
    with suppress(ImageError):
        assert uri_to_path(uri).startswith("/")


@given(st.integers(0, 2**63), st.sampled_from(["", "k", "M", "g", "T"]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str) -> None:
    factor = 1024 ** " kmgt".index(unit.lower() or " ")
    if number < 10**15:
        assert read_size(f"{number}{unit}") == pytest.approx(number * factor, rel=1e-12)
    else:
        with pytest.raises(UsageError):
            read_size(f"{number}{unit}")


@given(WORDS | st.text(max_size=30) | st.datetimes().map(str) | st.floats().map(str))
@example("9999-12-31T23:59:59-12:00")
@example("0001-01-01T00:00:00+14:00")
@example("999999999w")
def test_any_text_is_a_size_a_moment_a_share_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        assert read_size(text) >= 0
    with suppress(UsageError):
        assert datetime.fromtimestamp(read_moment(text), UTC).year >= 1970
    with suppress(UsageError):
        assert 0 < read_share(text) <= 1


LIMITS = st.none() | st.integers(0, 1000)
MOMENTS = st.none() | st.floats(0, 1000)
GLOBS = st.lists(st.text("ab*?[]!-/.", min_size=1, max_size=6), max_size=2)


RANGES = st.fixed_dictionaries({"min_size": LIMITS, "max_size": LIMITS, "newer_than": MOMENTS, "older_than": MOMENTS})


def is_empty(least: float | None, most: float | None) -> bool:
    """Tell whether nothing can be within two limits, of which the upper one is not in the range."""
    return least is not None and most is not None and least >= most


@given(RANGES, st.integers(0, 1000), st.none() | st.floats(0, 1000))
def test_a_selection_takes_just_what_is_within_all_its_limits(
    ranges: dict[str, Any], size: int, modified: float | None
) -> None:
    least, most, since, before = (ranges[name] for name in ("min_size", "max_size", "newer_than", "older_than"))
    if is_empty(least, None if most is None else most + 1) or is_empty(since, before):
        with pytest.raises(UsageError, match="swap them"):
            read_selection(**ranges)
        return
    is_known = modified is not None or size > 0
    fits = not is_known or (least or 0) <= size <= (math.inf if most is None else most)
    is_in_time = modified is None or (since or 0) <= modified < (math.inf if before is None else before)
    assert read_selection(**ranges).takes(ImageRef("/a", "", size), modified) == (fits and is_in_time)


@given(GLOBS, GLOBS, st.text("ab/.", min_size=1, max_size=8))
def test_a_selection_takes_the_names_that_it_includes_and_does_not_exclude(
    include: list[str], exclude: list[str], path: str
) -> None:
    def is_matched(globs: list[str]) -> bool:
        return any(fnmatchcase(path if "/" in glob else path.split("/")[-1], glob) for glob in globs)

    wanted = read_selection(include=include, exclude=exclude)
    is_taken = not is_matched(exclude) and (is_matched(include) or not include)
    assert wanted.takes_name(path, is_explicit=True) == is_taken


@given(st.floats(0.001, 1), st.floats(0.001, 1), TEXTS)
def test_a_smaller_sample_is_within_a_larger_one(one: float, other: float, uri: str) -> None:
    small, large = (Selection(sample=share).takes(ImageRef(uri, "", 0), None) for share in sorted((one, other)))
    assert large or not small
