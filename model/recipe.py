"""How a network is trained, as data. A preset is a recipe; options of the command line change single fields of it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from core.errors import UsageError
from core.manifest import first_problem


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what a training gives, but the images.

    Attributes are documented beside their definitions.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    architecture: str = "card-resnet"
    #: Start from random weights, or from ImageNet's where a package brings them for the architecture.
    weights: Literal["random", "imagenet"] = "random"
    preprocess: Literal["card", "rgb-area", "rgb-scaled"] = "rgb-scaled"
    augmentation: Literal["default", "card"] = "default"
    epochs: int = 20
    #: Of the images, in pixels. What is served has 224; fewer are learnt from faster.
    side: int = 224
    batch_size: int = 64
    optimizer: Literal["adamw", "adam"] = "adamw"
    #: The peak, reached after a tenth of a cosine schedule; of ``plateau``, the start.
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    #: ``plateau`` multiplies by 0.2 when the validation loss has not fallen for 5 epochs.
    schedule: Literal["cosine", "plateau"] = "cosine"
    label_smoothing: float = 0.05
    #: Both parameters of mixup's Beta distribution (Zhang et al. 2018); 0 is none.
    mixup: float = 0.0
    #: Decay of the moving average of the weights, per step, which is what is saved; 0 saves the weights themselves.
    ema: float = 0.995
    #: A source is drawn in proportion to its number of images to this power, the classes alike; None draws each image
    #: once an epoch.
    balance: float | None = 0.5
    #: Draw a source more often the higher its training loss is within its class, by at most this factor, and as much
    #: less often the lower it is: a mean hides a source that is always wrong (after Sagawa et al. 2020). 1 does not.
    focus: float = 2.0
    #: Stop when the validation loss has not fallen for so many epochs, and keep the best ones; None never does.
    patience: int | None = None
    #: Artifact whose scores of the same views are learnt from beside the labels (Hinton et al. 2015); None is none.
    teacher: str | None = None
    #: Share of the teacher's score in the target.
    distillation: float = 0.5
    #: Of forward and backward; weights, statistics and the optimizer are always float32.
    precision: Literal["bf16", "float32"] = "bf16"
    seed: int = 0


PRESETS = {
    "default": Recipe(),
    # As the published model's card tells it.
    "card": Recipe(
        preprocess="rgb-scaled",
        augmentation="card",
        epochs=20,
        batch_size=32,
        optimizer="adam",
        learning_rate=1e-4,
        weight_decay=0,
        schedule="plateau",
        label_smoothing=0,
        mixup=0,
        ema=0,
        balance=None,
        focus=1,
        patience=10,
    ),
}


def read_recipe(path: Path) -> Recipe:
    """Read a recipe that ``as_json`` gave; fields that it lacks are the default's.

    Raises:
        UsageError: it cannot be read, or is none.
    """
    try:
        return TypeAdapter(Recipe).validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"recipe {path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise UsageError(f"{path} is not a recipe: {first_problem(error)}") from error


def as_json(recipe: Recipe) -> str:
    """Return a recipe as JSON."""
    return json.dumps(asdict(recipe), indent=2)
