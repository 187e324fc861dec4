"""The networks that can be trained, by name."""

from typing import Any

from core.errors import UsageError
from model.efficientnet import build_efficientnet_lite
from model.inception import build_card_inception
from model.resnet import build_card_resnet

#: ``tiny-resnet`` learns nothing much, in seconds: to try a training, and for tests.
ARCHITECTURES = ("card-resnet", "card-inception", "tiny-resnet", "efficientnet-lite0", "efficientnet-lite2")


def build(architecture: str) -> Any:
    """Return the ``keras.Model`` of an architecture, with random weights.

    It maps float32 in [0, 1] of shape (n, 224, 224, 3) to the probability of a real face, (n, 1).

    Raises:
        UsageError: there is no such architecture.
    """
    match architecture:
        case "card-resnet":
            return build_card_resnet()
        case "card-inception":
            return build_card_inception()
        case "tiny-resnet":
            return build_card_resnet(stem_filters=4, stem_stride=4, stage_filters=(8,), dense_units=8)
        case "efficientnet-lite0":
            return build_efficientnet_lite()
        case "efficientnet-lite2":
            return build_efficientnet_lite(width=1.1, depth=1.2, dropout=0.3)
    raise UsageError(f"architecture {architecture}: choose one of {', '.join(ARCHITECTURES)}")
