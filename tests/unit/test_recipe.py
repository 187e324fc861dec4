"""Recipes of trainings."""

from dataclasses import replace
from pathlib import Path

import pytest

from core.errors import UsageError
from model.recipe import PRESETS, Recipe, as_json, read_recipe


def test_a_recipe_survives_being_written_and_read(tmp_path: Path) -> None:
    recipe = replace(PRESETS["card"], seed=7, side=96)
    path = tmp_path / "recipe.json"
    path.write_text(as_json(recipe))
    assert read_recipe(path) == recipe


def test_what_a_recipe_leaves_out_is_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "recipe.json"
    path.write_text('{"epochs": 3}')
    assert read_recipe(path) == replace(Recipe(), epochs=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"epoch": 3}', "epoch"),
        ('{"epochs": "many"}', "epochs"),
        ('{"optimizer": "magic"}', "optimizer"),
        ("[]", "not a recipe"),
        ("{", "not a recipe"),
    ],
)
def test_a_bad_recipe_is_one_line_that_names_the_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.json"
    path.write_text(text)
    with pytest.raises(UsageError, match=message):
        read_recipe(path)


def test_a_missing_recipe_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_recipe(tmp_path / "none.json")


def test_the_cards_preset_is_what_the_card_tells() -> None:
    card = PRESETS["card"]
    assert (card.architecture, card.optimizer, card.learning_rate, card.batch_size) == ("card-resnet", "adam", 1e-4, 32)
    assert (card.epochs, card.patience, card.schedule, card.augmentation) == (20, 10, "plateau", "card")
    assert (card.label_smoothing, card.mixup, card.ema, card.weight_decay) == (0, 0, 0, 0)
    assert card.side == 224
