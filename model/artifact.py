"""Artifacts: folders of a manifest and the weights that it names. Nothing here needs TensorFlow."""

import tempfile
from collections.abc import Callable
from contextlib import suppress
from hashlib import file_digest, sha256
from pathlib import Path

from core.errors import ModelBrokenError, ModelError, UsageError
from core.manifest import MANIFEST_NAME, SHIPPED, Manifest, read_manifest
from core.settings import Settings, make_data_dir


def digest(path: Path) -> str:
    """Return the SHA-256, in hex, of a file, or of a folder's sorted relative names and contents.

    Raises:
        ModelBrokenError: it cannot be read.
    """
    try:
        if not path.is_dir():
            return _digest_file(path)
        total = sha256()
        for file in sorted(file for file in path.rglob("*") if not file.is_dir()):
            total.update(f"{file.relative_to(path).as_posix()}\0{_digest_file(file)}\n".encode())
        return total.hexdigest()
    except OSError as error:
        raise ModelBrokenError(f"model file {error.filename or path} cannot be read: {error.strerror}") from error


def verify(folder: Path) -> Manifest:
    """Check that the weights in a folder are those that its manifest names.

    Returns:
        The manifest.

    Raises:
        ModelNotFoundError: the folder holds no manifest.
        ModelBrokenError: the manifest is none, or the weights are missing or others.
    """
    manifest = read_manifest(folder)
    found = digest(folder / manifest.file)
    if found != manifest.sha256:
        raise ModelBrokenError(
            f"model {manifest.name}: {folder / manifest.file} was changed: its sha256 is {found[:12]}..., "
            f"the manifest says {manifest.sha256[:12]}...; import it again"
        )
    return manifest


def write_artifact(
    settings: Settings, name: str, make: Callable[[Path], Manifest], *, overwrite: bool = False
) -> Manifest:
    """Make an artifact that is either complete or not there.

    Args:
        settings: tells where artifacts are.
        name: of the artifact, and its folder.
        make: writes the weights into the empty folder that it is given, and returns the manifest.
        overwrite: whether to replace an artifact of that name.

    Raises:
        UsageError: the name is taken.
        SettingsError: the data directory cannot be written.
        ModelError: the disk is full, say.
    """
    target = make_data_dir(settings) / settings.models_dir.name / name
    check_free(target, overwrite=overwrite)
    target.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        try:
            new.mkdir()
            manifest = make(new)
            (new / MANIFEST_NAME).write_text(_to_text(manifest), encoding="utf-8")
            if overwrite:  # a full folder cannot be replaced in one step; the old one goes with the scratch folder
                with suppress(FileNotFoundError):
                    target.rename(old)
            new.rename(target)
        except OSError as error:
            raise ModelError(f"model {name} could not be written to {target}: {error.strerror}") from error
    return manifest


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Replace the manifest of an artifact in one step. Its weights stay as they are.

    Raises:
        ModelError: the folder cannot be written.
    """
    scratch = folder / f".{MANIFEST_NAME}.new"
    try:
        scratch.write_text(_to_text(manifest), encoding="utf-8")
        scratch.replace(folder / MANIFEST_NAME)
    except OSError as error:
        raise ModelError(f"model {manifest.name}: {folder} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            scratch.unlink()


def check_free(target: Path, *, overwrite: bool) -> None:
    """Check that an artifact may be written to a folder.

    Raises:
        UsageError: it exists and is not to be replaced.
    """
    if target.exists() and not overwrite:
        raise UsageError(f"model {target.name} exists at {target}: choose another --name, or --overwrite it")


def list_artifacts(settings: Settings) -> list[tuple[Path, Manifest | ModelError]]:
    """List the imported and the shipped artifacts, sorted by name; an imported one hides a shipped one.

    Returns:
        Folders with their manifests, or with what is wrong with them.
    """
    folders: dict[str, Path] = {}
    for parent in (SHIPPED, settings.models_dir):
        with suppress(FileNotFoundError):
            folders |= {folder.name: folder for folder in parent.iterdir() if (folder / MANIFEST_NAME).is_file()}
    return [(folder, _read(folder)) for _, folder in sorted(folders.items()) if not folder.name.startswith(".")]


def _read(folder: Path) -> Manifest | ModelError:
    try:
        return read_manifest(folder)
    except ModelError as error:
        return error


def _to_text(manifest: Manifest) -> str:
    return manifest.model_dump_json(indent=2) + "\n"


def _digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
