"""The manifest of an artifact: what is read, what is refused, what makes another model of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from core import manifest as manifests
from core.broker import queue_name
from core.errors import ModelBrokenError, ModelNotFoundError
from core.manifest import MANIFEST_NAME, SHIPPED, Manifest, artifact_name, find_artifact, is_of_faces, read_manifest
from core.settings import Settings
from db import schema

CONTENT = {
    "schema_version": 1,
    "name": "card",
    "format": "keras",
    "file": "model.keras",
    "sha256": "ab" * 32,
    "architecture": "card-resnet",
    "parameters": 11_326_913,
    "preprocess": "card",
    "trained": True,
    "real_above": 0.6,
    "generated_below": 0.4,
    "source": "face_classification_model1.h5",
    "created_at": "2025-01-01T00:00:00Z",
    "keras_version": "3.12.0",
}


def write(folder: Path, **changes: Any) -> Path:
    """Write a manifest into a folder, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST_NAME).write_text(json.dumps(CONTENT | changes))
    return folder


def test_a_manifest_survives_being_written_and_read(tmp_path: Path) -> None:
    manifest = read_manifest(write(tmp_path))
    (tmp_path / MANIFEST_NAME).write_text(manifest.model_dump_json())
    assert read_manifest(tmp_path) == manifest
    assert manifest.name == "card"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"name": "../card"}, "name"),
        ({"name": ".."}, "name"),
        ({"name": "Card"}, "name"),
        ({"name": "a" * 59}, "name"),
        ({"name": "card.faces"}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"file": "/etc/passwd"}, "file"),
        ({"format": "pickle"}, "format"),
        ({"sha256": "ab"}, "sha256"),
        ({"preprocess": "bgr"}, "preprocess"),
        ({"parameters": -1}, "parameters"),
        ({"real_above": 1.5}, "real_above"),
        ({"generated_below": 0.7}, "generated_below"),
        ({"schema_version": 2}, "schema_version"),
        ({"colour": "red"}, "colour"),
        ({"architecture": "x" * 65}, "architecture"),
        ({"architecture": "a\0"}, "architecture"),
    ],
    ids=str,
)
def test_a_wrong_part_is_named_in_one_line(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(ModelBrokenError, match=named) as caught:
        read_manifest(write(tmp_path, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe"])
def test_what_is_no_manifest_is_broken(content: bytes, tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).write_bytes(content)
    with pytest.raises(ModelBrokenError, match="is not a manifest"):
        read_manifest(tmp_path)


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path, tmp_path / "gone", tmp_path / "file"):
        with pytest.raises(ModelNotFoundError, match="model import"):
            read_manifest(folder)


def test_a_manifest_that_is_a_folder_is_broken(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_NAME).mkdir()
    with pytest.raises(ModelBrokenError, match="cannot be read"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("change", [{"real_above": 0.9}, {"trained": False}, {"source": "x"}])
def test_what_changes_no_score_makes_no_other_model(change: dict[str, Any]) -> None:
    assert Manifest.model_validate(CONTENT | change).id == Manifest.model_validate(CONTENT).id


@pytest.mark.parametrize("change", [{"name": "other"}, {"sha256": "cd" * 32}, {"preprocess": "rgb-area"}])
def test_another_name_or_whatever_changes_scores_makes_another_model(change: dict[str, Any]) -> None:
    manifest = Manifest.model_validate(CONTENT | change)
    assert manifest.id != Manifest.model_validate(CONTENT).id
    assert len(manifest.id) == 32


def test_scoring_faces_is_another_model_of_another_name_with_the_same_artifact_and_queue() -> None:
    whole = Manifest.model_validate(CONTENT)
    faces = whole.with_faces()
    assert (faces.name, artifact_name(faces.name)) == ("card.faces", "card")
    assert is_of_faces(faces.name)
    assert not is_of_faces(whole.name)
    assert queue_name(faces.name) == queue_name(whole.name)
    assert len(faces.id) == 32
    assert faces.id != whole.id
    assert faces.id == Manifest.model_validate(CONTENT).with_faces().id
    assert whole == Manifest.model_validate(CONTENT)


def test_another_detector_makes_another_model_of_faces_and_no_other_of_whole_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    manifest = Manifest.model_validate(CONTENT)
    before = manifest.id, manifest.with_faces().id
    monkeypatch.setattr(manifests, "DETECTOR", "another")
    assert manifest.id == before[0]
    assert manifest.with_faces().id != before[1]


def test_the_longest_name_of_a_model_of_faces_is_what_the_database_takes() -> None:
    longest = Manifest.model_validate(CONTENT | {"name": "a" * 58}).with_faces()
    assert len(longest.name) == schema.model.c.name.type.length == schema.scan.c.model_name.type.length


def test_a_name_is_looked_for_in_the_data_directory(settings: Settings) -> None:
    folder = write(settings.models_dir / "card")
    assert find_artifact("card", settings) == folder


def test_a_name_with_a_slash_is_a_path(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert find_artifact(str(folder), settings) == folder
    assert find_artifact("./mine", settings) == folder


def test_an_unknown_name_is_an_error_that_says_where_was_looked(settings: Settings) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        find_artifact("nobody", settings)
    for text in (str(settings.models_dir), str(SHIPPED), "model list"):
        assert text in str(caught.value)


def test_the_untrained_model_is_made_by_a_command_that_the_error_names(settings: Settings) -> None:
    with pytest.raises(ModelNotFoundError, match="model init"):
        find_artifact("untrained", settings)
