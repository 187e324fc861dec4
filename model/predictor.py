"""Score images: any number in, as many out, through an engine that only ever sees batches of a few fixed sizes."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from core.errors import ModelBrokenError, ModelError, UsageError
from core.logs import say
from core.manifest import Manifest
from model.artifact import verify
from model.parity import MAX_DRIFT, reference_scores
from model.preprocess import SIDE
from model.runtime import has_gpu

#: ``auto`` takes TensorFlow on a GPU, and on a CPU OpenVINO if its scores pass. TensorFlow is the reference.
ENGINES = ("auto", "openvino", "tensorflow")
#: ``auto`` takes the fastest that the engine and the CPU have and whose scores pass.
PRECISIONS = ("auto", "int8", "bf16", "float32")
#: What all others are compared with.
REFERENCE = ("tensorflow", "float32")


class Engine(Protocol):
    """Runs a network on one batch.

    Attributes:
        name: one of ``ENGINES``.
        precision: of its arithmetic, ``float32`` say.
        batch_size: that suits it, in images.
        drift: largest difference of a score from the reference's, over ``model.parity.SAMPLES``.
    """

    name: str
    precision: str
    batch_size: int
    drift: float

    def run(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the network's output, (n, 1), for uint8 images of shape (n, 224, 224, 3).

        Raises:
            MemoryError: the batch does not fit into memory.
        """


class Predictor:
    """The network of an artifact on one engine. Not for more than one thread at a time.

    Attributes:
        folder: of the artifact.
        manifest: of the artifact.
        engine: name of the engine.
        precision: of the engine's arithmetic.
        drift: of the engine, as it was when it was loaded.
        batch_size: images in a forward pass; halved, for good, whenever one does not fit into memory.
    """

    def __init__(self, folder: Path, manifest: Manifest, engine: Engine, *, batch_size: int) -> None:
        self.folder = folder
        self.manifest = manifest
        self.engine = engine.name
        self.precision = engine.precision
        self.drift = engine.drift
        self.batch_size = batch_size
        self._engine = engine

    def warm_up(self) -> None:
        """Run a batch of every size that will be used, so that no image waits for kernels to be chosen or loaded.

        Raises:
            ModelError: as ``predict``.
        """
        self.predict(np.zeros((self.batch_size, SIDE, SIDE, 3), np.uint8))  # first: it may halve the sizes
        self.predict(np.zeros((self._small_size, SIDE, SIDE, 3), np.uint8))

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Score images.

        Args:
            batch: uint8 of shape (n, 224, 224, 3), n of any size, prepared as the manifest's ``preprocess`` says.

        Returns:
            Probability of a real face for each: float32 of shape (n,).

        Raises:
            ModelBrokenError: the network gave anything else than one number in [0, 1] for each image.
            ModelError: not even one image fits into memory.
        """
        scores = np.empty(len(batch), np.float32)
        done = 0
        while done < len(batch):
            rest = len(batch) - done
            size = self._small_size if rest <= self._small_size else self.batch_size
            rows = batch[done : done + size]
            try:
                output = self._engine.run(_pad(rows, size))
            except MemoryError as error:
                self._halve(error)
                continue
            scores[done : done + len(rows)] = self._check(output, size)[: len(rows)]
            done += len(rows)
        return scores

    @property
    def _small_size(self) -> int:
        """Size for the tail of a job, which would be mostly padding in a full batch."""
        return max(1, self.batch_size // 4)

    def _halve(self, error: MemoryError) -> None:
        if self.batch_size == 1:
            raise ModelError("out of memory with a batch of one image: free memory on the device") from error
        self.batch_size //= 2
        say("batch_halved", batch_size=self.batch_size)

    def _check(self, output: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        if output.shape != (size, 1):
            raise ModelBrokenError(f"model {self.manifest.name} gave output of shape {output.shape} for {size} images")
        if not np.all((output >= 0) & (output <= 1)):  # false for NaN, too
            raise ModelBrokenError(f"model {self.manifest.name} gave {output.min()} to {output.max()}, not in [0, 1]")
        return output[:, 0]


def check_engine(name: str, precision: str = "auto") -> None:
    """Check the names of an engine and a precision; nothing is loaded.

    Raises:
        UsageError: there is no such engine or precision, or the engine does not have it.
    """
    if name not in ENGINES:
        raise UsageError(f"engine {name}: choose one of {', '.join(ENGINES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"precision {precision}: choose one of {', '.join(PRECISIONS)}")
    if (name, precision) == ("tensorflow", "int8"):
        raise UsageError("engine tensorflow has no int8: choose openvino, or another precision")


def load_predictor(
    folder: Path,
    *,
    engine: str = "tensorflow",
    precision: str = "auto",
    batch_size: int = 0,
    cache: Path | None = None,
    threads: int = 0,
) -> Predictor:
    """Check and load the artifact in a folder. Call ``warm_up`` before the first real image.

    Args:
        folder: of the artifact.
        engine: one of ``ENGINES``.
        precision: one of ``PRECISIONS``.
        batch_size: images in a forward pass; 0 means what suits the engine.
        cache: folder of converted networks; without one, only TensorFlow can be had.
        threads: that a CPU computes with; 0 means one for each core.

    Raises:
        UsageError: there is no such engine or precision.
        ModelError: the artifact is missing, changed, broken or unsafe, or a package is not installed; no precision of
            the engine keeps scores within ``model.parity.MAX_DRIFT``. One that is asked for by name only warns.
    """
    check_engine(engine, precision)
    manifest = verify(folder)
    loaded: Engine | None = None
    if cache and (engine == "openvino" or (engine == "auto" and not has_gpu())):
        try:
            loaded = _load_openvino(folder, manifest, precision, cache, threads)
        except ModelError as error:
            if engine == "openvino":
                raise
            say("engine_changed", reason=f"not on OpenVINO but on TensorFlow, which is slower: {error}")
    if loaded is None:
        loaded = _load_tensorflow(folder, manifest, precision, threads)
    return Predictor(folder, manifest, loaded, batch_size=batch_size or loaded.batch_size)


def _load_openvino(folder: Path, manifest: Manifest, precision: str, cache: Path, threads: int) -> Engine:
    from model.openvino_engine import OpenVinoEngine, preferred_precision

    def make(candidate: str) -> Engine:
        return OpenVinoEngine(folder, manifest, precision=candidate, cache=cache, threads=threads)

    return _first_to_pass(manifest.name, precision, preferred_precision, make)


def _load_tensorflow(folder: Path, manifest: Manifest, precision: str, threads: int) -> Engine:
    from model.tensorflow_engine import TensorFlowEngine, preferred_precision

    def make(candidate: str) -> Engine:
        return TensorFlowEngine(folder, manifest, precision=candidate, threads=threads)

    return _first_to_pass(manifest.name, precision, preferred_precision, make)


def _first_to_pass(name: str, precision: str, preferred: Callable[[], str], make: Callable[[str], Engine]) -> Engine:
    """Return the engine in the precision that was asked for, or in the first whose scores pass."""
    candidates = [preferred(), "float32"] if precision == "auto" else [precision]
    for candidate in dict.fromkeys(candidates):
        engine = make(candidate)
        if (engine.name, candidate) == REFERENCE or engine.drift <= MAX_DRIFT:
            return engine
        drift = f"{name} on {engine.name} in {candidate} changes p_real by {engine.drift:.3f} on a sample"
        say("engine_changed", reason=drift)
    if precision != "auto":
        return engine
    raise ModelError(f"{engine.name} changes the scores of {name} by {engine.drift:.3f}: use --engine tensorflow")


def check_parity(predictor: Predictor, pixels: NDArray[np.uint8]) -> float:
    """Return the largest difference, over some images, between a predictor and its network called directly.

    Args:
        predictor: to check.
        pixels: uint8 of shape (n, 224, 224, 3); all n go through the network at once.
    """
    direct = reference_scores(predictor.folder, predictor.manifest, pixels)
    return float(np.abs(predictor.predict(pixels) - direct).max(initial=0))


def _pad(rows: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    if len(rows) == size:
        return rows
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), np.uint8)])
