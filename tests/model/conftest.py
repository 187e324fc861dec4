"""One tiny network for all tests of the model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from core.settings import Settings, load_settings
from tests.tiny import build_tiny_network, make_tiny_artifact


@pytest.fixture(scope="session")
def tiny() -> Any:
    """The tiny network, as a ``keras.Model``."""
    return build_tiny_network()


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny network, as an artifact. Not to be changed."""
    settings: Settings = load_settings(data_dir=tmp_path_factory.mktemp("artifacts"))
    make_tiny_artifact(settings)
    return settings.models_dir / "tiny"


@pytest.fixture(scope="session")
def images() -> NDArray[np.uint8]:
    """Noise of different brightness and colour, so that scores differ."""
    chance = np.random.default_rng(1)
    noise = chance.random((40, 224, 224, 3)) * chance.random((40, 1, 1, 3))
    return (noise * 255).astype(np.uint8)
