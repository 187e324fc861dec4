"""The manifest of an artifact: what producers, workers and the database must agree on about a model.

An artifact is a folder that holds ``manifest.json`` and the weights that it names. Its identity is its name and what
decides a score, the weights and the preprocessing; thresholds may change without making another model of it.
"""

import os
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, field_validator, model_validator

from core.errors import ModelBrokenError, ModelNotFoundError
from core.settings import Settings

MANIFEST_NAME = "manifest.json"
#: Models that come with facesieve.
SHIPPED = Path(__file__).parent.parent / "model" / "artifacts"
#: Of an artifact. With ``FACES`` behind it, it is as long as the database takes.
NAME_PATTERN = r"^[a-z0-9][a-z0-9._-]{0,57}$"
#: Ends the name of a model that scores the faces of an image instead of the whole of it, and no artifact's.
FACES = ".faces"
#: What finds the faces: another one, or other weights, thresholds or margins, make other models of the same networks.
#: It stands here because a producer must know it; what it means is in ``model/faces.py``.
DETECTOR = "mtcnn 1.0.0, settings 1"


class Calibration(BaseModel):
    """How a score becomes a probability that can be taken at its word: ``sigmoid(slope * logit(p_real) + intercept)``.

    With an intercept of 0 this is temperature scaling (Guo et al. 2017, the temperature is 1 / slope), else Platt's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    slope: float = Field(gt=0)
    intercept: float
    #: Number of images that it was fitted on, and what they were, for people.
    images: int = Field(ge=1)
    source: str
    #: The share of real images below ``generated_below`` that the threshold was chosen for.
    false_positive_rate: float = Field(gt=0, lt=1)
    #: For other such shares, by their text ("0.01"), the ``generated_below`` that keeps them: see `db threshold --fpr`.
    operating_points: dict[str, float] = Field(default_factory=dict)


class Manifest(BaseModel):
    """The content of ``manifest.json``.

    Attributes are documented beside their definitions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    schema_version: Literal[1] = 1
    #: Also the suffix of the queue that its jobs wait in.
    name: str = Field(pattern=NAME_PATTERN)
    #: What ``file`` is: a Keras 3 ``.keras`` file, or a TensorFlow SavedModel folder.
    format: Literal["keras", "saved_model"]
    #: The weights, relative to the manifest.
    file: Literal["model.keras", "saved_model"]
    #: Of the file; of a folder, of its sorted relative names and contents.
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    #: One of ``model.architectures``, ``ensemble``, or ``imported``: anything else with the same input and output.
    architecture: str = Field(max_length=64, pattern=r"^[^\x00]*$")  # what the database takes
    #: Number of weights, trainable or not.
    parameters: int = Field(ge=0)
    #: How bytes become the network's input, see ``model/preprocess.py``.
    preprocess: Literal["card", "rgb-area", "rgb-scaled"]
    #: Whether the score is the mean over the image and its mirror image; takes twice the time.
    flip: bool = False
    #: False: random weights; its scores mean nothing and are labelled so.
    trained: bool
    #: ``p_real`` above this is labelled real.
    real_above: float = Field(default=0.5, ge=0, le=1)
    #: ``p_real`` at or below this is labelled generated; what lies between is unsure.
    generated_below: float = Field(default=0.5, ge=0, le=1)
    #: None until `model calibrate` has been run. Labels need only the two thresholds above.
    calibration: Calibration | None = None
    #: Where it came from, for people.
    source: str
    created_at: datetime
    keras_version: str
    #: Empty: the whole image is scored.
    _detector: str = PrivateAttr("")

    @field_validator("name")
    @classmethod
    def _is_free(cls, name: str) -> str:
        if is_of_faces(name):
            raise ValueError(f"a name that ends in {FACES} stands for the scores of faces")
        return name

    @model_validator(mode="after")
    def _thresholds_are_ordered(self) -> "Manifest":
        if self.generated_below > self.real_above:
            raise ValueError(f"generated_below {self.generated_below} is above real_above {self.real_above}")
        return self

    @property
    def id(self) -> str:
        """32 hex digits that stand for the name and whatever decides a score."""
        decisive = f"{self.name} {self.sha256} {self.preprocess}{' flip' if self.flip else ''}"
        return sha256((decisive + self._detector).encode()).hexdigest()[:32]

    def with_faces(self) -> "Manifest":
        """Return the model that this network is when it scores the faces of an image: of another name and id."""
        named = self.model_copy(update={"name": faces_name(self.name)})
        named._detector = f" {DETECTOR}"
        return named


def faces_name(artifact: str) -> str:
    """Return the name of the model that scores faces with an artifact."""
    return artifact + FACES


def is_of_faces(model: str) -> bool:
    """Tell by its name whether a model scores faces."""
    return model.endswith(FACES)


def artifact_name(model: str) -> str:
    """Return the name of the artifact that a model scores with, which is also its queue's."""
    return model.removesuffix(FACES)


def read_manifest(folder: Path) -> Manifest:
    """Read the manifest of the artifact in a folder.

    Raises:
        ModelNotFoundError: there is none.
        ModelBrokenError: it is not one.
    """
    path = folder / MANIFEST_NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelNotFoundError(f"{folder} holds no {MANIFEST_NAME}: make an artifact with `model import`") from error
    except OSError as error:
        raise ModelBrokenError(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ModelBrokenError(f"{path} is not a manifest: {first_problem(error)}") from error


def first_problem(error: ValidationError) -> str:
    """Return the first thing that is wrong with a JSON file, with the field that it is in."""
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc'])) or 'content'}: {first['msg']}"


def find_artifact(name_or_path: str, settings: Settings) -> Path:
    """Return the folder of an artifact.

    Args:
        name_or_path: a path if it holds a slash; else a name, looked for among the imported, then the shipped ones.
        settings: tells where the imported ones are.

    Raises:
        ModelNotFoundError: there is no such artifact.
    """
    if "/" in name_or_path:
        candidates = [Path(os.path.expanduser(name_or_path)).absolute()]  # noqa: PTH111 - leaves unknown homes alone
    else:
        candidates = [settings.models_dir / name_or_path, SHIPPED / name_or_path]
    for folder in candidates:
        if (folder / MANIFEST_NAME).is_file():
            return folder
    hint = "make it with `model init`" if name_or_path == "untrained" else "see `model list`"
    raise ModelNotFoundError(f"model {name_or_path} not found in {', '.join(map(str, candidates))}: {hint}")
