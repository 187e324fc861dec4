"""Artifacts are complete or not there, and notice when they are changed."""

import json
import shutil
from pathlib import Path

import pytest

from core.errors import ModelBrokenError, ModelError, ModelNotFoundError, SettingsError, UsageError
from core.manifest import Manifest, read_manifest
from core.settings import Settings, load_settings
from model.artifact import digest, list_artifacts, verify, write_artifact

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """An artifact that may be changed."""
    return shutil.copytree(tiny_folder, tmp_path / "tiny")


def test_an_artifact_that_was_not_changed_verifies(tiny_folder: Path) -> None:
    manifest = verify(tiny_folder)

    assert manifest == read_manifest(tiny_folder)
    assert manifest.sha256 == digest(tiny_folder / "model.keras")


def test_weights_that_were_changed_are_noticed(copy: Path) -> None:
    weights = copy / "model.keras"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)

    with pytest.raises(ModelBrokenError, match="sha256") as caught:
        verify(copy)

    assert digest(weights)[:12] in str(caught.value)
    assert read_manifest(copy).sha256[:12] in str(caught.value)


def test_weights_that_are_missing_are_noticed(copy: Path) -> None:
    (copy / "model.keras").unlink()

    with pytest.raises(ModelBrokenError, match=r"model\.keras"):
        verify(copy)


def test_a_folder_without_a_manifest_is_no_artifact(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        verify(tmp_path)


def test_the_digest_of_a_folder_covers_names_and_contents(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for folder in (first, second):
        (folder / "sub").mkdir(parents=True)
        (folder / "sub" / "a").write_bytes(b"x")
        (folder / "b").write_bytes(b"y")
    assert digest(first) == digest(second)

    (second / "b").write_bytes(b"z")
    assert digest(first) != digest(second)
    (second / "b").write_bytes(b"y")
    (second / "b").rename(second / "c")
    assert digest(first) != digest(second)


def test_a_name_is_not_taken_twice_unless_asked_for(tiny_folder: Path, settings: Settings) -> None:
    def make(folder: Path) -> Manifest:
        shutil.copy(tiny_folder / "model.keras", folder)
        return read_manifest(tiny_folder)

    write_artifact(settings, "tiny", make)
    marker = settings.models_dir / "tiny" / "marker"
    marker.touch()

    with pytest.raises(UsageError, match="--overwrite"):
        write_artifact(settings, "tiny", make)
    assert marker.exists()
    write_artifact(settings, "tiny", make, overwrite=True)

    assert not marker.exists()
    verify(settings.models_dir / "tiny")
    assert [path.name for path in settings.models_dir.iterdir()] == ["tiny"]


@pytest.mark.parametrize("error", [ModelBrokenError("no good"), OSError(28, "No space left on device")])
def test_making_an_artifact_that_fails_leaves_nothing_behind(error: Exception, settings: Settings) -> None:
    def make(folder: Path) -> Manifest:
        (folder / "model.keras").write_bytes(b"half of it")
        raise error

    with pytest.raises(ModelError, match=r"no good|No space left"):
        write_artifact(settings, "tiny", make)

    assert list(settings.models_dir.iterdir()) == []


def test_overwriting_that_fails_keeps_the_old_artifact(tiny_folder: Path, settings: Settings) -> None:
    shutil.copytree(tiny_folder, settings.models_dir / "tiny")

    def make(folder: Path) -> Manifest:
        raise ModelBrokenError("no good")

    with pytest.raises(ModelBrokenError):
        write_artifact(settings, "tiny", make, overwrite=True)

    verify(settings.models_dir / "tiny")


def test_a_data_directory_that_cannot_be_made_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(SettingsError, match="DATA_DIR"):
        write_artifact(load_settings(data_dir=tmp_path / "file" / "data"), "tiny", lambda folder: pytest.fail("made"))


def test_the_list_holds_good_and_broken_artifacts_sorted_by_name(tiny_folder: Path, settings: Settings) -> None:
    for name in ("b", "a", ".scratch"):
        shutil.copytree(tiny_folder, settings.models_dir / name)
    (settings.models_dir / "a" / "manifest.json").write_text(json.dumps({"name": "a"}))
    (settings.models_dir / "no-artifact").mkdir()

    found = [(folder.name, type(what)) for folder, what in list_artifacts(settings)]

    ours = [(name, kind) for name, kind in found if name in {"a", "b", ".scratch", "no-artifact"}]
    assert ours == [("a", ModelBrokenError), ("b", Manifest)]


def test_without_a_data_directory_the_list_holds_no_imported_artifact(settings: Settings) -> None:
    assert all(settings.models_dir not in folder.parents for folder, _ in list_artifacts(settings))
