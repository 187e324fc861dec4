"""The networks that can be trained, by name."""

from typing import Any

from core.errors import UsageError
from model.resnet import build_card_resnet

#: ``tiny-resnet`` learns nothing much, in seconds: to try a training, and for tests.
ARCHITECTURES = ("card-resnet", "tiny-resnet")


def build(architecture: str) -> Any:
    """Return the ``keras.Model`` of an architecture, with random weights.

    It maps float32 in [0, 1] of shape (n, 224, 224, 3) to the probability of a real face, (n, 1).

    Raises:
        UsageError: there is no such architecture.
    """
    match architecture:
        case "card-resnet":
            return build_card_resnet()
        case "tiny-resnet":
            return build_card_resnet(stem_filters=4, stem_stride=4, stage_filters=(8,), dense_units=8)
    raise UsageError(f"architecture {architecture}: choose one of {', '.join(ARCHITECTURES)}")
