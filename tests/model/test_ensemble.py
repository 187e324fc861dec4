"""An ensemble scores the mean of its members' scores, and is an artifact like any other."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner

from core.errors import ModelBrokenError, ModelNotFoundError, UsageError
from core.manifest import Manifest
from core.settings import Settings
from model.artifact import verify
from model.cli import app
from model.ensemble import make_ensemble
from model.importer import import_model, save_network
from model.predictor import check_parity, load_predictor
from tests.tiny import build_tiny_network, make_tiny_artifact

pytestmark = pytest.mark.tensorflow
#: Of a float32 just below 1, and of the sum of a few.
PRECISION = 2e-7


@pytest.fixture
def members(settings: Settings) -> list[str]:
    """Three artifacts of other weights."""
    for seed in (1, 2, 3):
        make_tiny_artifact(settings, f"m{seed}", seed=seed, trained=True)
    return ["m1", "m2", "m3"]


def make_member(settings: Settings, name: str, *, preprocess: str = "card", flip: bool = False) -> Manifest:
    return save_network(
        build_tiny_network(len(name)),
        settings,
        name=name,
        trained=True,
        source="tests",
        preprocess=preprocess,  # type: ignore[arg-type]
        flip=flip,
    )


def scores(settings: Settings, name: str, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return load_predictor(settings.models_dir / name, batch_size=8).predict(images)


def test_the_score_is_the_mean_of_the_members_scores(
    members: list[str], settings: Settings, images: NDArray[np.uint8]
) -> None:
    make_ensemble(settings, members, name="all")

    found = scores(settings, "all", images)

    each = np.array([scores(settings, name, images) for name in members], np.float64)
    np.testing.assert_allclose(found, each.mean(axis=0), atol=PRECISION, rtol=0)
    assert np.abs(each - found).max() > 100 * PRECISION


def test_an_ensemble_is_an_artifact_that_names_its_members(members: list[str], settings: Settings) -> None:
    made = make_ensemble(settings, members, name="all")

    assert made == verify(settings.models_dir / "all")
    parts = [verify(settings.models_dir / name) for name in members]
    assert made.architecture == "ensemble"
    assert (made.format, made.preprocess, made.trained, made.flip) == ("keras", "card", True, False)
    assert made.parameters == sum(part.parameters for part in parts)
    assert all(part.name in made.source and part.id in made.source for part in parts)


def test_an_ensemble_does_not_need_its_members_afterwards(
    members: list[str], settings: Settings, images: NDArray[np.uint8]
) -> None:
    make_ensemble(settings, members, name="all")
    for name in members:
        shutil.rmtree(settings.models_dir / name)

    predictor = load_predictor(settings.models_dir / "all")

    assert check_parity(predictor, images[:4]) < 1e-6


def test_an_ensemble_of_the_same_members_is_the_same_model(members: list[str], settings: Settings) -> None:
    first = make_ensemble(settings, members, name="all")

    assert make_ensemble(settings, members, name="all", overwrite=True).id == first.id


def test_weights_of_an_ensemble_that_were_changed_are_noticed(members: list[str], settings: Settings) -> None:
    make_ensemble(settings, members, name="all")
    weights = settings.models_dir / "all" / "model.keras"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)

    with pytest.raises(ModelBrokenError, match="sha256"):
        load_predictor(settings.models_dir / "all")


def test_an_ensemble_can_be_a_member(members: list[str], settings: Settings, images: NDArray[np.uint8]) -> None:
    make_ensemble(settings, members[:2], name="two")

    make_ensemble(settings, ["two", "m3"], name="nested")

    first, second, third = (scores(settings, name, images).astype(np.float64) for name in members)
    np.testing.assert_allclose(
        scores(settings, "nested", images), ((first + second) / 2 + third) / 2, atol=PRECISION, rtol=0
    )


def test_flip_of_an_ensemble_averages_over_the_mirror_images(
    members: list[str], settings: Settings, images: NDArray[np.uint8]
) -> None:
    assert make_ensemble(settings, members, name="flipped", flip=True).flip
    make_ensemble(settings, members, name="plain")

    mirrored = np.ascontiguousarray(images[:, :, ::-1])
    expected = (scores(settings, "plain", images) + scores(settings, "plain", mirrored)) / 2

    np.testing.assert_allclose(scores(settings, "flipped", images), expected, atol=PRECISION, rtol=0)


def test_members_that_all_have_flip_give_it_to_the_ensemble(settings: Settings, images: NDArray[np.uint8]) -> None:
    make_member(settings, "a", flip=True)
    make_member(settings, "bb", flip=True)

    assert make_ensemble(settings, ["a", "bb"], name="all").flip

    expected = (scores(settings, "a", images) + scores(settings, "bb", images)) / 2
    np.testing.assert_allclose(scores(settings, "all", images), expected, atol=PRECISION, rtol=0)


def test_one_untrained_member_makes_an_untrained_ensemble(members: list[str], settings: Settings) -> None:
    make_tiny_artifact(settings, "untrained", seed=9)

    assert make_ensemble(settings, [*members, "untrained"], name="all").trained is False


def test_members_that_do_not_go_together_are_refused_and_named(members: list[str], settings: Settings) -> None:
    make_member(settings, "other", preprocess="rgb-area")
    make_member(settings, "mirrored", flip=True)
    shutil.copytree(settings.models_dir / "m1", settings.models_dir / "copy")

    with pytest.raises(UsageError, match="m1 has preprocess card, other rgb-area"):
        make_ensemble(settings, ["m1", "other"], name="bad")
    with pytest.raises(UsageError, match="m1 has flip False, mirrored True"):
        make_ensemble(settings, ["m1", "mirrored"], name="bad")
    with pytest.raises(UsageError, match="named twice"):
        make_ensemble(settings, ["m1", "m2", "m1"], name="bad")
    with pytest.raises(UsageError, match="the same weights"):
        make_ensemble(settings, ["m1", "copy"], name="bad")
    with pytest.raises(UsageError, match="at least two"):
        make_ensemble(settings, ["m1"], name="bad")
    with pytest.raises(ModelNotFoundError, match="nothing"):
        make_ensemble(settings, ["m1", "nothing"], name="bad")
    assert not (settings.models_dir / "bad").exists()


def test_a_saved_model_is_refused_as_a_member_with_the_fix(
    members: list[str], settings: Settings, tmp_path: Path
) -> None:
    build_tiny_network().export(tmp_path / "folder", verbose=False)
    import_model(settings, tmp_path / "folder", name="saved")

    with pytest.raises(UsageError, match=r"saved is a SavedModel.*model import"):
        make_ensemble(settings, ["m1", "saved"], name="bad")


@pytest.mark.parametrize("name", ["m1", "Upper", "../up"])
def test_a_name_that_is_taken_or_none_is_refused(name: str, members: list[str], settings: Settings) -> None:
    with pytest.raises(UsageError, match="model"):
        make_ensemble(settings, members, name=name)


def test_the_command_makes_an_ensemble(members: list[str]) -> None:
    made = CliRunner().invoke(app, ["ensemble", *members, "--name", "three", "--flip"])
    shown = json.loads(CliRunner().invoke(app, ["show", "three", "--json"]).output)

    assert made.exit_code == 0, made.output
    assert "made model three" in made.output
    assert (shown["architecture"], shown["flip"]) == ("ensemble", True)
