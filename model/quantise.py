"""The network of an artifact in 8-bit integers, for the engine OpenVINO: kept only if it still tells faces apart."""

import logging
import random
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from core.errors import ModelError, SourceError
from core.manifest import Manifest
from core.settings import Settings
from model.artifact import verify
from model.data import Sample, Split, read_samples
from model.feed import serving_pixels
from model.openvino_engine import GRAPHS, converted_folder
from model.predictor import load_predictor
from model.preprocess import scale
from model.runtime import import_openvino, needs_extra
from model.scoring import Scored, score

#: Images that the ranges of the layers' values are taken from, and how many at a time.
CALIBRATION_IMAGES = 320
BATCH = 8
#: What may be lost, on images that the ranges were not taken from: area under the ROC curve, mean change of p_real.
MAX_AUC_LOSS = 0.002
MAX_MEAN_DRIFT = 0.01


@dataclass(frozen=True, slots=True)
class Quantised:
    """What quantising did to the scores of the images that it was checked on.

    Attributes:
        model: name of the artifact.
        images: how many.
        auc_float32: area under the ROC curve by the float32 scores.
        auc_int8: by the int8 scores.
        mean_drift: mean change of p_real.
        largest_drift: largest change of p_real.
    """

    model: str
    images: int
    auc_float32: float
    auc_int8: float
    mean_drift: float
    largest_drift: float

    def as_json(self) -> dict[str, Any]:
        """Return all of it, for ``json.dumps``."""
        return asdict(self)


def quantise(folder: Path, data: Path, settings: Settings, *, split: Split | None = "val") -> Quantised:
    """Quantise a network with NNCF (post-training, https://github.com/openvinotoolkit/nncf) and check it.

    Workers that are started with ``--precision int8`` and the same cache use it from then on.

    Args:
        folder: of the artifact.
        data: labelled data set. A third of its images, at most ``CALIBRATION_IMAGES``, give the ranges of the layers'
            values, the others check the scores.
        settings: limits on images, place of the cache.
        split: part of the data set; None takes all.

    Raises:
        SourceError: the data set cannot be used.
        ModelError: the artifact is broken, NNCF is not installed, or the scores change by more than they may; then
            nothing is kept.
    """
    manifest = verify(folder)
    samples = read_samples(data, split=split)
    random.Random(0).shuffle(samples)  # noqa: S311 - a fixed choice, not a secret
    number = min(CALIBRATION_IMAGES, len(samples) // 3)
    if number < 1:
        raise SourceError(f"{data} holds {len(samples)} images: quantising needs at least three")
    exact = load_predictor(folder, engine="openvino", precision="float32", cache=settings.cache_dir)
    expected = score(exact, samples[number:], settings, doing="scoring in float32")
    kept = converted_folder(manifest, settings.cache_dir)
    with TemporaryDirectory(dir=settings.cache_dir, prefix=".int8-") as scratch:
        trial = converted_folder(manifest, Path(scratch))
        copytree(kept, trial, ignore=ignore_patterns("*.blob"))
        _write_int8(trial, manifest, samples[:number])
        int8 = load_predictor(folder, engine="openvino", precision="int8", cache=Path(scratch))
        found = score(int8, samples[number:], settings, doing="scoring in int8")
        result = _compare(manifest.name, expected, found)
        if result.auc_float32 - result.auc_int8 > MAX_AUC_LOSS or result.mean_drift > MAX_MEAN_DRIFT:
            raise ModelError(
                f"{manifest.name} in int8 has an AUC of {result.auc_int8:.4f}, in float32 {result.auc_float32:.4f}, "
                f"and its scores change by {result.mean_drift:.3f} on average: too much, it is not kept"
            )
        graph = trial / GRAPHS["int8"]
        for file in (graph.with_suffix(".bin"), graph):  # the graph last: it is what an engine looks for
            file.replace(kept / file.name)
    return result


def _write_int8(trial: Path, manifest: Manifest, samples: Sequence[Sample]) -> None:
    openvino = import_openvino()
    with needs_extra("quantise"):
        import nncf
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own function would silence our handlers, too
    images = serving_pixels(samples, manifest.preprocess)
    # NNCF averages the extremes of the batches: those of single images would cut off what a few of them reach.
    batches = [scale(images[start : start + BATCH]) for start in range(0, len(images), BATCH)]
    network = openvino.Core().read_model(trial / GRAPHS["float32"])
    with redirect_stdout(sys.stderr):  # where its progress bars belong
        int8 = nncf.quantize(
            network,
            nncf.Dataset(batches),
            subset_size=len(batches),
            fast_bias_correction=False,  # the slower one changes scores a quarter as much
        )
    openvino.save_model(int8, trial / GRAPHS["int8"], compress_to_fp16=False)


def _compare(name: str, expected: Scored, found: Scored) -> Quantised:
    (exact,), (int8,) = expected.p_real.values(), found.p_real.values()
    drift = np.abs(exact - int8)
    return Quantised(
        model=name,
        images=len(drift),
        auc_float32=float(roc_auc_score(expected.is_real, exact)),
        auc_int8=float(roc_auc_score(expected.is_real, int8)),
        mean_drift=float(drift.mean()),
        largest_drift=float(drift.max()),
    )
