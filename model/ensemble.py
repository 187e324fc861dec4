"""Make one network of several. Needs TensorFlow."""

from collections.abc import Sequence
from typing import Any

from core.errors import UsageError
from core.manifest import Manifest, find_artifact
from core.settings import Settings
from model.artifact import verify
from model.importer import check_name, save_network
from model.network import load_keras
from model.preprocess import SIDE
from model.runtime import import_keras


def make_ensemble(
    settings: Settings, members: Sequence[str], *, name: str, flip: bool = False, overwrite: bool = False
) -> Manifest:
    """Make an artifact whose score is the mean of the scores of others.

    It holds copies of their networks and does not need them afterwards. It is trained if all of them are.

    Args:
        settings: tells where artifacts are.
        members: names of at least two artifacts of Keras, or paths of their folders; ensembles may be among them.
        name: of the new artifact.
        flip: whether its score is to be the mean over the image and its mirror image. Set, too, if all members have it.
        overwrite: whether to replace an artifact of that name, which may be a member.

    Raises:
        UsageError: the name is not one, or taken; the members do not go together.
        ModelError: a member is not found, was changed, or does not load.
    """
    check_name(name, settings, overwrite=overwrite)
    folders = [find_artifact(member, settings) for member in members]
    manifests = [verify(folder) for folder in folders]
    _check_members(manifests)
    network = _average([load_keras(folder / one.file).root for folder, one in zip(folders, manifests, strict=True)])
    return save_network(
        network,
        settings,
        name=name,
        overwrite=overwrite,
        architecture="ensemble",
        preprocess=manifests[0].preprocess,
        flip=flip or manifests[0].flip,
        trained=all(one.trained for one in manifests),
        source="mean of " + ", ".join(f"{one.name} (id {one.id})" for one in manifests),
    )


def _check_members(manifests: Sequence[Manifest]) -> None:
    if len(manifests) < 2:
        raise UsageError("an ensemble needs at least two members: name more models")
    for number, one in enumerate(manifests):
        if one.format != "keras":
            raise UsageError(
                f"model {one.name} is a SavedModel, which cannot be nested: `model import` its .keras or .h5 file"
            )
        if one.sha256 in {other.sha256 for other in manifests[:number]}:
            raise UsageError(f"model {one.name} is named twice, or another has the same weights: leave one out")
        _check_alike(manifests[0], one, "preprocess")
        _check_alike(manifests[0], one, "flip")


def _check_alike(first: Manifest, other: Manifest, field: str) -> None:
    """Members see the same pixels; that the network itself averages over mirror images is left to the ensemble."""
    here, there = getattr(first, field), getattr(other, field)
    if here != there:
        raise UsageError(
            f"model {first.name} has {field} {here}, {other.name} {there}: members of an ensemble must have the same"
        )


def _average(networks: Sequence[Any]) -> Any:
    """Nest networks on one input. They get names of their own, since those of two imported ones may be the same."""
    keras = import_keras()
    pixels = keras.Input((SIDE, SIDE, 3), name="pixels")
    scores = [
        keras.Model(network.inputs[0], network.outputs[0], name=f"member{number}")(pixels)
        for number, network in enumerate(networks, start=1)
    ]
    return keras.Model(pixels, keras.layers.Average(name="mean")(scores), name="ensemble")
