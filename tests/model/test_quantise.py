"""int8: made on request, kept only if the scores of other images hardly change."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from core.errors import ModelError, SourceError
from core.settings import Settings, load_settings
from model import quantise as quantising
from model.cli import main
from model.openvino_engine import GRAPHS, converted_folder
from model.predictor import load_predictor
from model.quantise import quantise
from tests import drawn

pytestmark = [pytest.mark.tensorflow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """An installation with one artifact, whose scores follow the brightness of an image."""
    settings = load_settings(data_dir=tmp_path_factory.mktemp("models"))
    drawn.make_bright_artifact(settings, slope=4.0)
    return settings


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn.draw_data(tmp_path_factory.mktemp("faces"))


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    shades = np.linspace(90, 165, 16)[:, None, None, None]
    return (shades + np.zeros((16, 224, 224, 3))).astype(np.uint8)


def kept(settings: Settings) -> Path:
    """Return where the quantised network is, if it is there."""
    manifest = load_predictor(settings.models_dir / "bright", engine="openvino", cache=settings.cache_dir).manifest
    return converted_folder(manifest, settings.cache_dir) / GRAPHS["int8"]


def test_a_worker_without_the_quantised_network_is_told_how_to_get_it(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    drawn.make_bright_artifact(settings)

    with pytest.raises(ModelError, match="bright is not in int8 yet: run `model quantise bright DATA`"):
        load_predictor(settings.models_dir / "bright", engine="openvino", precision="int8", cache=settings.cache_dir)


def test_the_quantised_network_gives_nearly_the_same_scores(
    settings: Settings, faces: Path, pixels: NDArray[np.uint8]
) -> None:
    result = quantise(settings.models_dir / "bright", faces, settings)

    assert result.images == 54  # a third of 80 gave the ranges
    assert 0 < result.mean_drift < quantising.MAX_MEAN_DRIFT
    assert result.auc_int8 > 0.7
    scores = {
        precision: load_predictor(
            settings.models_dir / "bright", engine="openvino", precision=precision, cache=settings.cache_dir
        ).predict(pixels)
        for precision in ("int8", "float32")
    }
    assert 0 < np.abs(scores["int8"] - scores["float32"]).max() < 0.1
    assert np.ptp(scores["int8"]) > 0.15


def test_a_network_whose_scores_change_too_much_is_not_kept(
    settings: Settings, faces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(settings).unlink(missing_ok=True)
    monkeypatch.setattr(quantising, "MAX_MEAN_DRIFT", 0.0)

    with pytest.raises(ModelError, match=r"bright in int8 has an AUC of .* too much, it is not kept"):
        quantise(settings.models_dir / "bright", faces, settings)

    assert not kept(settings).exists()
    assert [entry.name for entry in settings.cache_dir.iterdir()] == ["openvino"]


def test_two_images_are_too_few(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds 2 images: quantising needs at least three"):
        quantise(settings.models_dir / "bright", drawn.draw_data(tmp_path, each=1), settings)


def test_the_command_tells_what_it_did(
    settings: Settings, faces: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "sys.argv", ["model", "--data-dir", str(settings.data_dir), "quantise", "bright", str(faces), "--json"]
    )
    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 0
    told = json.loads(capfd.readouterr().out)
    assert (told["model"], told["images"]) == ("bright", 54)
