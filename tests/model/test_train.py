"""Training: what it learns from, what it leaves behind, and what a kill costs."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from core.errors import SourceError, UsageError
from core.settings import Settings, load_settings
from model.augment import augment
from model.crossval import cross_validate, deal
from model.data import Sample, read_samples
from model.feed import Feed, serving_pixels
from model.predictor import load_predictor
from model.preprocess import SIDE, decode, decode_whole, scale
from model.recipe import PRESETS, Recipe
from model.train import train
from model.training import Training
from model.tune import tune
from tests.drawn import GENERATED, REAL, draw, make_bright_artifact

pytestmark = pytest.mark.tensorflow
QUICK = Recipe(architecture="tiny-resnet", epochs=3, side=64, batch_size=8, ema=0.9, learning_rate=5e-3)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Light images are real and dark ones generated; each class has two sources, one of them three times as large."""
    folder = tmp_path_factory.mktemp("faces")
    for split, each in (("train", 16), ("val", 8), ("test", 4)):
        for label, shade in (("real", REAL), ("generated", GENERATED)):
            for number in range(each):
                source = f"{label}{int(number % 4 == 0)}"
                path = folder / split / label / source / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                draw(path, shade, number)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path / "data")


def _split(faces: Path, split: str) -> list[Sample]:
    return read_samples(faces, split=split)  # type: ignore[arg-type]


def _history(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_training_and_serving_give_the_network_the_same_bits_for_the_same_file(faces: Path, tmp_path: Path) -> None:
    samples = _split(faces, "val")
    training = Training(QUICK, _split(faces, "train"), samples, tmp_path)
    for sample in samples:
        data = sample.path.read_bytes()
        served = decode(data, "rgb-scaled", max_pixels=10**6).pixels
        whole = decode_whole(data, "rgb-scaled", max_pixels=10**6)
        assert np.array_equal(augment(whole, None, "none", np.random.default_rng(0), SIDE), served)
        trained_on = training._to_input(served[None]).permute(0, 2, 3, 1).numpy()
        assert np.array_equal(trained_on, scale(served[None]))
    pixels = serving_pixels(samples, "rgb-scaled")
    assert np.array_equal(pixels[0], decode(samples[0].path.read_bytes(), "rgb-scaled", max_pixels=10**6).pixels)


def test_a_network_learns_and_its_artifact_scores_as_it_did_in_training(faces: Path, settings: Settings) -> None:
    recipe = replace(QUICK, epochs=8, label_smoothing=0, mixup=0)
    rows = []
    manifest = train(settings, faces, recipe, name="taught", on_epoch=rows.append)
    assert manifest.trained
    assert (manifest.architecture, manifest.preprocess) == ("tiny-resnet", "rgb-scaled")
    assert rows[-1].val_auc > 0.9
    folder = settings.models_dir / "taught"
    samples = _split(faces, "val")
    scores = load_predictor(folder).predict(serving_pixels(samples, "rgb-scaled"))
    right = np.mean((scores > 0.5) == [sample.is_real for sample in samples])
    assert right == pytest.approx(rows[-1].val_accuracy, abs=1 / len(samples))  # bf16 there, float32 here
    assert len(_history(folder / "history.csv")) == 8
    assert (folder / "history.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads((folder / "recipe.json").read_text())["architecture"] == "tiny-resnet"


def test_a_stored_kernel_takes_two_bytes_a_weight(faces: Path, settings: Settings) -> None:
    from model.importer import save_network
    from tests.tiny import build_tiny_network

    for half in (False, True):
        save_network(build_tiny_network(), settings, name=f"half-{half:d}", trained=True, source="test", half=half)
    full, halved = ((settings.models_dir / f"half-{half:d}" / "model.keras").stat().st_size for half in (False, True))
    assert halved < full
    images = np.random.default_rng(0).integers(0, 256, (4, SIDE, SIDE, 3), dtype=np.uint8)
    scores = [load_predictor(settings.models_dir / f"half-{half:d}").predict(images) for half in (False, True)]
    assert np.abs(scores[0] - scores[1]).max() < 1e-2


def test_the_same_seed_draws_the_same_images_in_the_same_order(faces: Path) -> None:
    samples = _split(faces, "train")
    first, again, other = (Feed(samples, replace(QUICK, seed=seed)) for seed in (3, 3, 4))
    for batch, batch_again in zip(first.epoch(1), again.epoch(1), strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(batch, batch_again, strict=True))
    assert not np.array_equal(first.order(1), other.order(1))
    assert not np.array_equal(first.order(1), first.order(2))


def test_a_cache_that_holds_nothing_gives_the_same_images(faces: Path) -> None:
    samples = _split(faces, "train")
    cached, uncached = Feed(samples, QUICK), Feed(samples, QUICK, cache_bytes=0)
    assert all(np.array_equal(one[0], other[0]) for one, other in zip(cached.epoch(0), uncached.epoch(0), strict=True))


def test_small_sources_are_drawn_more_often_than_they_are_large(faces: Path) -> None:
    samples = _split(faces, "train")
    feed = Feed(samples, replace(QUICK, balance=0.0))
    drawn = Counter(samples[index].source for epoch in range(60) for index in feed.order(epoch))
    shares = {source: count / sum(drawn.values()) for source, count in drawn.items()}
    assert shares == pytest.approx(dict.fromkeys(("real0", "real1", "generated0", "generated1"), 0.25), abs=0.04)


def test_sources_with_a_higher_loss_are_drawn_more_often_within_bounds(faces: Path) -> None:
    samples = _split(faces, "train")
    feed = Feed(samples, replace(QUICK, balance=0.0, focus=2.0))
    assert feed.sources == [(False, "generated0"), (False, "generated1"), (True, "real0"), (True, "real1")]
    drawn = Counter(
        samples[index].source for epoch in range(60) for index in feed.order(epoch, np.array([9.0, 0.1, 0.5, 0.5]))
    )
    assert drawn["generated0"] / drawn["generated1"] == pytest.approx(4, rel=0.2)  # twice, against half as often
    assert drawn["real0"] / drawn["real1"] == pytest.approx(1, rel=0.15)
    assert drawn["real0"] + drawn["real1"] == pytest.approx(sum(drawn.values()) / 2, rel=0.1)


def test_without_balance_each_image_is_drawn_once(faces: Path) -> None:
    samples = _split(faces, "train")
    assert sorted(Feed(samples, replace(QUICK, balance=None)).order(5)) == list(range(len(samples)))


def test_an_image_that_cannot_be_decoded_stops_a_training_before_it_begins(faces: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(SourceError, match="cannot be trained on"):
        Feed([*_split(faces, "train"), Sample(broken, is_real=True, split="train", source="x")], QUICK)


def test_a_training_that_is_killed_goes_on_where_it_was_and_ends_as_if_it_had_not_been(
    faces: Path, tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.json"
    recipe.write_text('{"architecture": "tiny-resnet", "epochs": 6, "side": 64, "batch_size": 8}')
    command = [sys.executable, "-m", "model", "--data-dir", str(tmp_path / "killed"), "train", str(faces)]
    command += ["--name", "k", "--recipe", str(recipe)]
    history = tmp_path / "killed" / "training" / "k" / "history.csv"
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (history.exists() and len(_history(history)) >= 2):
        assert process.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = _history(history)
    assert len(before) < 6
    subprocess.run(command, check=True, capture_output=True)
    after = _history(history)
    assert len(after) == 6
    assert after[: len(before)] == before  # not one finished epoch was done again

    straight = train(
        load_settings(data_dir=tmp_path / "straight"),
        faces,
        replace(Recipe(architecture="tiny-resnet", batch_size=8), epochs=6, side=64),
        name="k",
    )
    assert straight.trained
    unbroken = _history(tmp_path / "straight" / "models" / "k" / "history.csv")
    losses = [[float(row["train_loss"]) for row in rows] for rows in (after, unbroken)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_training_of_another_recipe_or_other_images_is_not_gone_on_with(faces: Path, tmp_path: Path) -> None:
    images = _split(faces, "train"), _split(faces, "val")
    Training(QUICK, *images, tmp_path).run_epoch()
    assert len(Training(QUICK, *images, tmp_path).history) == 1
    with pytest.raises(UsageError, match="another recipe or other images"):
        Training(replace(QUICK, seed=1), *images, tmp_path)
    with pytest.raises(UsageError, match="another recipe or other images"):
        Training(QUICK, images[0][1:], images[1], tmp_path)


def test_a_checkpoint_holds_no_code(faces: Path, tmp_path: Path) -> None:
    Training(QUICK, _split(faces, "train"), _split(faces, "val"), tmp_path).run_epoch()
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["history"][0]["epoch"] == 1


def test_the_cards_recipe_stops_early_and_keeps_its_best_weights(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The validation is made to find the second epoch the best."""
    val = _split(faces, "val")
    truth = np.array([[one.is_real] for one in val], np.float32)
    certainty = iter([0.6, 0.9, 0.8, 0.7])
    monkeypatch.setattr(Training, "validate", lambda _: np.abs(truth - 1 + next(certainty)).astype(np.float32))
    recipe = replace(PRESETS["card"], architecture="tiny-resnet", side=64, batch_size=8, patience=2)
    training = Training(recipe, _split(faces, "train"), val, tmp_path)
    kernels = []
    while not training.is_done:
        training.run_epoch()
        kernels.append(training._network.layers["stem_conv"].weight.detach().numpy().copy())
    assert len(kernels) == 4
    assert not np.array_equal(kernels[1], kernels[3])
    kept = training.finish().get_layer("stem_conv").get_weights()[0]
    assert np.array_equal(kept.transpose(3, 2, 0, 1), kernels[1])


def test_generators_and_real_sources_are_dealt_out_whole_and_each_is_left_out_once(faces: Path) -> None:
    dealt = deal(_split(faces, "train"), "generator", 2)
    assert sorted(group for fold in dealt for group in fold) == [
        (False, "generated0"),
        (False, "generated1"),
        (True, "real0"),
        (True, "real1"),
    ]
    assert all({is_real for is_real, _ in fold} == {False, True} for fold in dealt)


@pytest.mark.parametrize("folds", [1, 3])
def test_more_folds_than_sources_are_refused(faces: Path, folds: int) -> None:
    with pytest.raises(UsageError, match="each fold leaves out at least one of either"):
        deal(_split(faces, "train"), "source", folds)


def test_cross_validation_tries_each_network_on_what_it_never_saw(faces: Path, tmp_path: Path) -> None:
    samples = read_samples(faces)
    found = cross_validate(replace(QUICK, epochs=1), samples, tmp_path, folds=2)
    assert sorted(name for fold in found for name in (*fold.generated, *fold.real)) == [
        "generated0",
        "generated1",
        "real0",
        "real1",
    ]
    assert sum(fold.images for fold in found) == sum(one.split != "test" for one in samples)
    again = cross_validate(replace(QUICK, epochs=1), samples, tmp_path, folds=2)
    assert again == found  # from the checkpoints


def test_a_search_goes_on_with_the_trials_that_there_are(faces: Path, tmp_path: Path) -> None:
    images = _split(faces, "train"), _split(faces, "val")
    tried = []
    for trials in (2, 3):
        best = tune(replace(QUICK, epochs=1), *images, tmp_path, trials=trials, on_trial=tried.append)
    assert [trial.number for trial in tried] == [0, 1, 2]
    assert tried[0].params["learning_rate"] == QUICK.learning_rate  # the first is the recipe as it was
    chosen = max(tried, key=lambda trial: trial.val_auc)
    assert best.learning_rate == chosen.params["learning_rate"]


def test_the_command_line_tells_each_epoch_and_refuses_a_taken_name(faces: Path, tmp_path: Path) -> None:
    from model.cli import app

    command = ["--data-dir", str(tmp_path), "train", str(faces), "--name", "mine", "--architecture", "tiny-resnet"]
    command += ["--epochs", "2", "--batch-size", "8"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0
    assert all(f"epoch {epoch} of 2: loss" in result.stderr for epoch in (1, 2))
    assert "made model mine" in result.stdout
    again = CliRunner().invoke(app, command)
    assert isinstance(again.exception, UsageError)
    assert "exists" in str(again.exception)


def test_a_network_learns_from_a_teacher_what_the_labels_do_not_tell(faces: Path, settings: Settings) -> None:
    """Taught by a network that knows the classes, it learns them although each label is drawn by lot."""
    make_bright_artifact(settings, "teacher")
    lots = faces.parent / "lots.csv"
    chance = np.random.default_rng(0)
    rows = [(one.path, chance.choice(["real", "generated"]), one.split) for one in read_samples(faces)]
    with lots.open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "split"), *rows])
    recipe = replace(QUICK, epochs=8, teacher="teacher", distillation=1.0, mixup=0)
    train(settings, lots, recipe, name="pupil")
    samples = _split(faces, "val")
    scores = load_predictor(settings.models_dir / "pupil").predict(serving_pixels(samples, "rgb-scaled"))
    truth = np.array([one.is_real for one in samples])
    assert scores[truth].min() > scores[~truth].max()


def test_a_teacher_with_other_preprocessing_is_refused(faces: Path, settings: Settings) -> None:
    from tests.tiny import make_tiny_artifact

    make_tiny_artifact(settings, "card-like")
    with pytest.raises(UsageError, match="takes card images, the recipe rgb-scaled"):
        train(settings, faces, replace(QUICK, teacher="card-like"), name="pupil")
