"""``worker check``: is everything here that a worker needs? One line for each thing, all of them tried."""

from collections.abc import Callable
from dataclasses import dataclass

from core.broker import open_broker
from core.errors import FacesieveError, ModelError
from core.manifest import DETECTOR, find_artifact
from core.settings import Settings, redact
from db.engine import open_engine, schema_version
from worker.gpu import visible_gpus


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        name: what was looked at.
        is_ok: whether a worker can work with it.
        detail: one line for people.
    """

    name: str
    is_ok: bool
    detail: str


def check(settings: Settings, engine: str, precision: str) -> list[Finding]:
    """Try everything that a worker needs and return what was found, never raising for what is wrong."""
    tests: dict[str, Callable[[], str]] = {
        "model": lambda: _check_model(settings, engine, precision),
        "faces": _check_faces,
        "gpu": _check_gpu,
        "broker": lambda: _check_broker(settings),
        "database": lambda: _check_database(settings),
    }
    findings = []
    for name, test in tests.items():
        try:
            findings.append(Finding(name, True, test()))
        except FacesieveError as error:
            findings.append(Finding(name, False, str(error)))
    return findings


def _check_model(settings: Settings, engine: str, precision: str) -> str:
    from model.parity import MAX_DRIFT, sample_pixels
    from model.predictor import check_parity, load_predictor

    predictor = load_predictor(
        find_artifact(settings.model, settings),
        engine=engine,
        precision=precision,
        batch_size=settings.batch_size,
        cache=settings.cache_dir,
    )
    predictor.warm_up()
    manifest = predictor.manifest
    # OpenVINO was compared when it was loaded, with scores that are kept: an image for containers has no TensorFlow.
    is_compared = predictor.engine == "openvino"
    difference = predictor.drift if is_compared else check_parity(predictor, sample_pixels(manifest.preprocess))
    if difference > MAX_DRIFT:
        raise ModelError(f"{predictor.engine} changes p_real by {difference:.1e}, more than {MAX_DRIFT:g}")
    trained = "" if manifest.trained else " (untrained: its scores mean nothing)"
    return (
        f"{manifest.name}{trained} on {predictor.engine} {predictor.precision}, differs from Keras by {difference:.1e}"
    )


def _check_faces() -> str:
    from model.faces import FaceDetector
    from model.mtcnn import is_installed

    if not is_installed():
        return "cannot be found, jobs of `--faces detect` fail: pip install 'facesieve[faces]'"
    FaceDetector(threads=1)
    return f"can be found, by {DETECTOR}"


def _check_gpu() -> str:
    found = visible_gpus()
    return f"{len(found)} visible: {', '.join(found)}" if found else "none visible, the CPU will do"


def _check_broker(settings: Settings) -> str:
    with open_broker(settings) as url:
        return f"{redact(url)} answers"


def _check_database(settings: Settings) -> str:
    return f"{redact(settings.sql_url)} answers, schema {schema_version(open_engine(settings))}"
