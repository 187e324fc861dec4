"""Show where in an image a network found what it decided by. Needs TensorFlow.

Grad-CAM, Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391: the channels of the last feature map, weighted by how
much each of them raises the score, summed up, and cut off at zero. It tells where evidence lies, not what it is.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from core.errors import ModelError, UsageError
from core.manifest import Manifest
from core.settings import Settings
from core.storage import read_image
from core.uris import path_to_uri
from model.artifact import verify
from model.network import load_keras, load_network
from model.preprocess import SIDE, decode, scale
from model.runtime import import_keras, import_tensorflow


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why an image got its score.

    Attributes:
        p_real: the score.
        label: ``real``, ``generated`` or ``unsure``, by the thresholds of the model.
        evidence_for: what the heat speaks for: ``generated`` if that is the label, else ``real``.
        heat: where the evidence lies, float32 in [0, 1] of shape (224, 224); all zeros if there is none.
    """

    p_real: float
    label: str
    evidence_for: Literal["generated", "real"]
    heat: NDArray[np.float32]


class Explainer:
    """An artifact whose scores can be explained.

    An ensemble's heat is the mean over its members, and with ``flip`` over the image and its mirror image; each is
    scaled to a maximum of 1 before.

    Attributes:
        manifest: of the artifact.
    """

    def __init__(self, folder: Path) -> None:
        """Check and load an artifact.

        Raises:
            ModelError: it is missing, changed or broken, or its feature maps cannot be reached.
        """
        self.manifest = verify(folder)
        if self.manifest.format != "keras":
            raise ModelError(
                f"model {self.manifest.name} is a SavedModel, whose feature maps are out of reach: "
                "`model import` its .keras or .h5 file"
            )
        self._tf = import_tensorflow()
        self._score = load_network(folder, self.manifest).call
        parts = _parts(load_keras(folder / self.manifest.file).root)
        self._parts = [_split(part, self.manifest.name) for part in parts]

    def explain(self, pixels: NDArray[np.uint8]) -> Explanation:
        """Score an image and show where the evidence for its label lies.

        Args:
            pixels: uint8 of shape (224, 224, 3), prepared as the manifest's ``preprocess`` says.
        """
        p_real = float(self._score(scale(pixels[None]))[0, 0])
        label = _label(self.manifest, p_real)
        sign = -1 if label == "generated" else 1
        views = np.stack([pixels, pixels[:, ::-1]]) if self.manifest.flip else pixels[None]
        heat = _mean([self._heat(part, views, sign) for part in self._parts])
        return Explanation(p_real, label, "generated" if sign < 0 else "real", heat)

    def _heat(self, part: tuple[Any, Any], views: NDArray[np.uint8], sign: int) -> NDArray[np.float32]:
        """Return the mean heat of an image and, if there is a second view, its mirror image."""
        tf = self._tf
        trunk, head = part
        batch = tf.constant(scale(views))
        features = trunk(batch, training=False)
        with tf.GradientTape(watch_accessed_variables=False) as tape:  # the slopes of weights are of no use here
            tape.watch(features)
            logits = head([batch, features], training=False)
        slopes = tape.gradient(logits, features)
        weights = tf.reduce_mean(slopes, axis=(1, 2), keepdims=True)  # equation 1 of the paper; below, equation 2
        maps = tf.nn.relu(sign * tf.reduce_sum(weights * features, axis=-1)).numpy().astype(np.float32)
        heats = [cv2.resize(one / (one.max() or 1), (SIDE, SIDE), interpolation=cv2.INTER_LINEAR) for one in maps]
        return _mean([heats[0], *(heat[:, ::-1] for heat in heats[1:])])


def explain_file(explainer: Explainer, image: Path, out: Path, settings: Settings) -> tuple[Explanation, Path]:
    """Explain the score of an image file, and draw the heat over what the network saw of it.

    Args:
        explainer: of the model.
        image: path of the file.
        out: folder that the drawing is written to, a PNG of 224 x 224 pixels. Its name holds that of the image, a
            digest of its path and the model, and what the heat is evidence for.
        settings: roots and limits, as for a worker.

    Returns:
        The explanation, and the path of the drawing.

    Raises:
        ImageError: the image cannot be read or decoded.
        StorageError: likewise, but for a reason that may pass.
        UsageError: the drawing cannot be written.
    """
    uri = path_to_uri(os.path.abspath(image))  # noqa: PTH100 - as the worker's listing does: `..` goes, links stay
    content = read_image(uri, roots=settings.roots, max_bytes=settings.max_bytes)
    preset = explainer.manifest.preprocess
    pixels = decode(content, preset, max_pixels=settings.max_pixels).pixels
    found = explainer.explain(pixels)
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", image.stem)[:40]
    digest = sha256(f"{explainer.manifest.id} {uri}".encode()).hexdigest()[:16]
    target = out / f"{stem}-{digest}-evidence-for-{found.evidence_for}.png"
    drawing = draw_heat(pixels if preset == "card" else pixels[..., ::-1], found.heat)
    try:
        out.mkdir(parents=True, exist_ok=True)
        target.write_bytes(cv2.imencode(".png", drawing)[1].tobytes())
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written: {error.strerror}") from error
    return found, target


def draw_heat(image: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour an image where there is heat, at most half opaque; where there is none, it stays as it is.

    Args:
        image: uint8 of shape (height, width, 3), BGR.
        heat: in [0, 1], of shape (height, width).
    """
    colours = cv2.applyColorMap((heat * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    opacity = heat[..., None] / 2
    return (image * (1 - opacity) + colours * opacity).round().astype(np.uint8)


def _mean(heats: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = np.mean(np.stack(heats), axis=0).astype(np.float32)
    return mean


def _label(manifest: Manifest, p_real: float) -> str:
    if p_real > manifest.real_above:
        return "real"
    return "generated" if p_real <= manifest.generated_below else "unsure"


def _parts(model: Any) -> list[Any]:
    """Return the members of an ensemble, and of ensembles among them; of another network, itself."""
    keras = import_keras()
    members = [step for step in model.operations if isinstance(step, keras.Model)]
    others = [step for step in model.operations if not isinstance(step, keras.Model)]
    is_ensemble = (
        members
        and all(isinstance(step, (keras.layers.InputLayer, keras.layers.Average)) for step in others)
        and all((one.input_shape, one.output_shape) == (model.input_shape, model.output_shape) for one in members)
    )
    return [part for member in members for part in _parts(member)] if is_ensemble else [model]


def _split(model: Any, name: str) -> tuple[Any, Any]:
    """Split a network at its last feature map: one ``keras.Model`` to it, and one from it and the image to the logit.

    The score itself takes the logit's place where the last layer is no sigmoid: its slopes are the logit's, times a
    factor for each image, which the scaling of the heat takes out again.
    """
    keras = import_keras()
    features, is_convolved = None, False
    for step in model.operations:
        # The tensors that a nested model names as its own are not those of the network around it.
        if is_convolved and not isinstance(step, keras.Model) and _is_map(step.input):
            features = step.input
        is_convolved |= _is_map(step.output) and bool(getattr(step, "weights", ()))
    if features is None:
        raise ModelError(f"model {name} holds no convolution within reach, so there is no feature map to explain it by")
    last, score = model.operations[-1], model.outputs[0]
    config = last.get_config()
    if config.get("activation") == "sigmoid":
        linear = type(last).from_config({**config, "activation": "linear"})
        score = linear(last.input)
        linear.set_weights(last.get_weights())
    pixels = model.inputs[0]
    return keras.Model(pixels, features), keras.Model([pixels, features], score)


def _is_map(tensor: Any) -> bool:
    """Tell whether a symbolic tensor is (n, height, width, channels), more than one pixel large."""
    shape = getattr(tensor, "shape", ())
    return len(shape) == 4 and 1 not in shape[1:3]
