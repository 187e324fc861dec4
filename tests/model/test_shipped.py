"""The models that come with facesieve: complete, measured, and as good as their cards say."""

import json
import re
from pathlib import Path

import pytest

from core.manifest import SHIPPED, find_artifact
from core.settings import Settings, load_settings
from model.artifact import verify
from model.predictor import load_predictor
from model.preprocess import decode

pytestmark = pytest.mark.tensorflow
EXAMPLES = Path(__file__).parents[2] / "examples" / "faces"
FOLDERS = sorted(path.parent for path in SHIPPED.glob("*/manifest.json"))
names = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def test_the_default_model_is_shipped(tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    assert find_artifact(settings.model, settings) == SHIPPED / Settings.model_fields["model"].default


@names
def test_a_shipped_model_is_whole_trained_calibrated_and_small_enough_for_a_repository(folder: Path) -> None:
    manifest = verify(folder)
    assert manifest.name == folder.name
    assert manifest.trained
    assert manifest.calibration is not None
    assert sum(file.stat().st_size for file in folder.iterdir()) < 25_000_000


@names
def test_a_model_card_names_sources_limits_and_failures(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    headings = set(re.findall(r"^## (.*)$", card, re.MULTILINE))
    assert {"Intended use", "Out of scope", "Measured", "Known failures", "Training", "Sources and licence"} <= headings
    assert "research and education" in card.lower()


@names
def test_the_figures_of_a_model_card_are_those_of_its_evaluation(folder: Path) -> None:
    measured = json.loads((folder / "evaluation.json").read_text())
    assert measured["model"]["id"] == verify(folder).id
    card = (folder / "README.md").read_text()
    assert f"on the split `{measured['split']}`" in card
    for name in ("accuracy", "roc_auc"):
        value = measured["metrics"][name]["value"]
        assert (f"{value:.1%}" if name == "accuracy" else f"{value:.3f}") in card
    for group in measured["sources"]:
        assert re.search(rf"^\| {group['name']} \| .*\| {group['accuracy']['value']:.0%} \|", card, re.MULTILINE)
    for changed in measured["robustness"]:
        assert f"| {changed['name']} | {changed['accuracy']:.1%} | {changed['roc_auc']:.3f} |" in card


@names
def test_a_shipped_model_finds_most_of_the_generated_examples_and_no_real_one(folder: Path) -> None:
    predictor = load_predictor(folder)

    def score(pattern: str) -> list[float]:
        found = []
        for path in sorted(EXAMPLES.glob(pattern)):
            pixels = decode(path.read_bytes(), predictor.manifest.preprocess, max_pixels=10**6).pixels
            found.append(float(predictor.predict(pixels[None])[0]))
        return found

    generated, real = score("generated-*.jpg"), score("real-*.jpg")
    assert sum(one <= predictor.manifest.real_above for one in generated) > len(generated) / 2
    assert all(one > predictor.manifest.generated_below for one in real)
