"""Make artifacts: from random weights, and from model files of other origin. Needs TensorFlow."""

import re
import shutil
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, Required, TypedDict, Unpack

import h5py
import numpy as np

from core.errors import ModelBrokenError, ModelNotFoundError, ModelShapeError, UsageError
from core.manifest import FACES, NAME_PATTERN, Manifest, is_of_faces
from core.settings import Settings
from model.artifact import check_free, digest, write_artifact
from model.network import Network, load_keras, load_saved_model
from model.preprocess import SIDE, scale
from model.resnet import PARAMETERS, build_card_resnet
from model.runtime import import_keras

Preprocess = Literal["card", "rgb-area", "rgb-scaled"]
_KINDS = "a .keras file, an .h5 or .hdf5 file, or a SavedModel folder"
_MAGIC = {".keras": b"PK\x03\x04", ".h5": b"\x89HDF\r\n\x1a\n", ".hdf5": b"\x89HDF\r\n\x1a\n"}
_LFS_POINTER = b"version https://git-lfs"


class About(TypedDict, total=False):
    """What a manifest says of a network that its file does not tell. See ``Manifest``."""

    trained: Required[bool]
    source: Required[str]
    preprocess: Preprocess
    flip: bool
    architecture: str


def init_untrained(settings: Settings, *, name: str = "untrained", seed: int = 0, overwrite: bool = False) -> Manifest:
    """Make an artifact of the card's network with random weights, to try the system with.

    The same seed and versions of Keras and TensorFlow give the same file, bit for bit, on every host.

    Raises:
        UsageError: the name is not one, or taken.
    """
    check_name(name, settings, overwrite=overwrite)
    import_keras().utils.set_random_seed(seed)
    return save_network(
        build_card_resnet(),
        settings,
        name=name,
        trained=False,
        source=f"random weights, seed {seed}",
        overwrite=overwrite,
    )


def import_model(
    settings: Settings,
    source: Path,
    *,
    name: str,
    preprocess: Preprocess = "card",
    flip: bool = False,
    trained: bool = True,
    overwrite: bool = False,
) -> Manifest:
    """Make an artifact of a model file.

    Importing the same Keras file again, here or on another host with the same Keras, gives the same artifact.

    Args:
        settings: tells where artifacts are.
        source: a ``.keras`` or HDF5 file, legacy ones too, or a SavedModel folder.
        name: of the artifact.
        preprocess: how the images are to be prepared that the model gets, see ``model.preprocess``.
        flip: whether its score is to be the mean over the image and its mirror image.
        trained: False labels its scores as meaningless.
        overwrite: whether to replace an artifact of that name.

    Raises:
        UsageError: the name is not one, or taken; the file is of another kind.
        ModelNotFoundError: there is no such file.
        ModelBrokenError: it does not load.
        ModelShapeError: it does not map (n, 224, 224, 3) to (n, 1) in [0, 1].
        UnsafeModelError: loading it would run code from the file.
    """
    check_name(name, settings, overwrite=overwrite)
    _check_kind(source)
    about: About = {
        "trained": trained,
        "source": f"{source.name}, sha256 {digest(source)}",
        "preprocess": preprocess,
        "flip": flip,
    }
    if not source.is_dir():
        network = load_keras(source)
        check_network(network, source)
        return save_network(network.root, settings, name=name, overwrite=overwrite, **about)

    def copy(folder: Path) -> Manifest:
        weights = folder / "saved_model"
        shutil.copytree(source, weights)
        network = load_saved_model(weights)
        check_network(network, source)
        return _describe(weights, network.parameters, name=name, **about)

    return write_artifact(settings, name, copy, overwrite=overwrite)


def save_network(
    model: Any,
    settings: Settings,
    *,
    name: str,
    overwrite: bool = False,
    half: bool = False,
    beside: Mapping[str, bytes] | None = None,
    **about: Unpack[About],
) -> Manifest:
    """Make an artifact of a ``keras.Model``.

    Args:
        model: float32 (n, 224, 224, 3) in [0, 1] to (n, 1) in [0, 1].
        settings: tells where artifacts are.
        name: of the artifact.
        overwrite: whether to replace an artifact of that name.
        half: store kernels in half precision, in half the space. It is how they are stored, not how they are used.
        beside: further files of the artifact, by name.
        about: what else its manifest says.

    Raises:
        UsageError: the name is taken.
    """

    def save(folder: Path) -> Manifest:
        weights = folder / "model.keras"
        _save_reproducibly(model, weights, half=half)
        for name_beside, content in (beside or {}).items():
            (folder / name_beside).write_bytes(content)
        return _describe(weights, model.count_params(), name=name, **about)

    return write_artifact(settings, name, save, overwrite=overwrite)


def check_network(network: Network, source: Path) -> None:
    """Check on three images that a network has the card's input and output.

    Args:
        network: to check.
        source: its name in messages.

    Raises:
        ModelShapeError: it has not.
        ModelBrokenError: it does not run.
    """
    wanted = (None, SIDE, SIDE, 3)
    found = network.input_shape
    sizes_fit = found is not None and all(size in {None, want} for size, want in zip(found, wanted, strict=False))
    if found is None or len(found) != len(wanted) or not sizes_fit:
        raise ModelShapeError(f"{source} takes input of shape {found}, it must take {wanted}")
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    probe = np.stack([np.zeros_like(noise), np.full_like(noise, 255), noise])
    try:
        output = np.asarray(network.call(scale(probe)))
    except Exception as error:  # whatever TensorFlow raises for a graph that does not fit together
        raise ModelBrokenError(f"{source} does not run on images of {SIDE} x {SIDE}: {str(error)[:200]}") from error
    if output.shape != (len(probe), 1):
        raise ModelShapeError(f"{source} gives output of shape {(None, *output.shape[1:])}, it must give (None, 1)")
    if not np.all((output >= 0) & (output <= 1)):
        raise ModelShapeError(
            f"{source} gives values from {output.min():.3g} to {output.max():.3g}, they must be in [0, 1]: "
            "end it with one sigmoid unit"
        )


def check_name(name: str, settings: Settings, *, overwrite: bool) -> None:
    """Check, before anything takes long, that an artifact may be made under a name.

    Raises:
        UsageError: it is no name, or taken.
    """
    if not re.fullmatch(NAME_PATTERN, name) or is_of_faces(name):
        raise UsageError(
            f"model name {name!r}: use up to 58 of a-z, 0-9, '.', '_' and '-', a letter or digit first, no {FACES} last"
        )
    check_free(settings.models_dir / name, overwrite=overwrite)


def _check_kind(source: Path) -> None:
    """Refuse whatever cannot be imported by its name and first bytes; nothing is parsed yet."""
    if not source.exists():
        raise ModelNotFoundError(f"model file {source} does not exist: name {_KINDS}")
    if source.is_dir():
        if not (source / "saved_model.pb").is_file():
            raise UsageError(f"folder {source} holds no saved_model.pb: name {_KINDS}")
        return
    magic = _MAGIC.get(source.suffix)
    if magic is None:
        raise UsageError(f"{source} is of no kind that can be imported: name {_KINDS}")
    try:
        with source.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise ModelBrokenError(f"{source} cannot be read: {error.strerror}") from error
    if head.startswith(_LFS_POINTER):
        raise ModelBrokenError(f"{source} is a Git LFS pointer, not the file itself: run `git lfs pull`")
    if not head.startswith(magic):
        raise ModelBrokenError(f"{source} is no {source.suffix} file by its content: name {_KINDS}")


def _save_reproducibly(model: Any, path: Path, *, half: bool = False) -> None:
    """Save a ``keras.Model`` so that the same model gives the same bytes, and with them the same identity."""
    scratch = path.with_suffix(".scratch.keras")
    model.save(scratch)
    with zipfile.ZipFile(scratch) as saved, zipfile.ZipFile(path, "w") as archive:
        for name in saved.namelist():
            content = saved.read(name)
            if name == "metadata.json":
                content = re.sub(rb', "date_saved": "[^"]*"', b"", content)
            elif name == "config.json":
                content = _number_shared_objects(content)
            elif name == "model.weights.h5" and half:
                content = _halve_kernels(content)
            archive.writestr(zipfile.ZipInfo(name), content)  # dated 1980
    scratch.unlink()


def _halve_kernels(weights: bytes) -> bytes:
    """Store the arrays of an HDF5 file that have more than one dimension as float16; Keras casts them back."""
    result = BytesIO()
    with h5py.File(BytesIO(weights)) as full, h5py.File(result, "w") as halved:

        def copy(path: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset):
                array = item[()]
                copied = halved.create_dataset(path, data=array.astype(np.float16) if array.ndim > 1 else array)
            else:
                copied = halved.require_group(path)
            copied.attrs.update(item.attrs)

        full.visititems(copy)
        halved.attrs.update(full.attrs)
    return result.getvalue()


def _number_shared_objects(config: bytes) -> bytes:
    """Number the objects that layers share from 1 on: Keras writes their addresses in memory."""
    numbers: dict[bytes, int] = {}
    return re.sub(
        rb'("shared_object_id": )(\d+)',
        lambda found: found[1] + str(numbers.setdefault(found[2], len(numbers) + 1)).encode(),
        config,
    )


def _describe(weights: Path, parameters: int, *, name: str, **about: Unpack[About]) -> Manifest:
    is_file = weights.is_file()
    about.setdefault("preprocess", "card")
    about.setdefault("architecture", "card-resnet" if parameters == PARAMETERS else "imported")
    return Manifest(
        name=name,
        format="keras" if is_file else "saved_model",
        file="model.keras" if is_file else "saved_model",
        sha256=digest(weights),
        parameters=parameters,
        created_at=datetime.now(UTC),
        keras_version=import_keras().__version__,
        **about,
    )
