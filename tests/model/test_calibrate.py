"""What `model calibrate` fits, promises and writes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import expit
from typer.testing import CliRunner

from core.errors import ModelError, UsageError
from core.manifest import Calibration, read_manifest
from core.settings import load_settings
from model.artifact import verify, write_manifest
from model.calibrate import FALSE_POSITIVE_RATES, calibrate, choose_thresholds, fit, logit, probability
from model.cli import app
from model.data import read_samples
from model.metrics import Metrics, Scores, measure
from model.predictor import load_predictor
from model.scoring import score
from tests import drawn

pytestmark = pytest.mark.tensorflow

SCORES = st.lists(st.integers(1, 31).map(lambda step: step / 32), min_size=1, max_size=40)
RATES = st.floats(0.01, 0.6)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact that is too sure of itself and leans towards generated. Not to be changed."""
    settings = load_settings(data_dir=tmp_path_factory.mktemp("models"))
    drawn.make_bright_artifact(settings, slope=80, offset=-3)
    return settings.models_dir / "bright"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn.draw_data(tmp_path_factory.mktemp("faces"), each=100)


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "models" / "bright")


def measured(folder: Path, faces: Path) -> Metrics:
    """Return what `model evaluate` would, but for its intervals, which take time."""
    predictor = load_predictor(folder)
    scored = score(predictor, read_samples(faces), load_settings(), doing="measuring")
    (p_real,) = scored.p_real.values()
    calibrated = probability(p_real, predictor.manifest.calibration)
    return measure(Scores(scored.is_real, p_real, calibrated), predictor.manifest, resamples=1)


def drawn_scores(slope: float, intercept: float, count: int = 20_000) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Return labels, and scores from which a slope and an intercept give the true probability."""
    chance = np.random.default_rng(0)
    logits = chance.normal(0, 2, count)
    return chance.random(count) < expit(slope * logits + intercept), expit(logits)


def test_calibrating_lowers_the_calibration_error_and_keeps_weights_and_identity(folder: Path, faces: Path) -> None:
    before = read_manifest(folder)
    done = calibrate(folder, faces, load_settings())
    assert done.error_after < 0.7 * done.error_before  # of 200 images, some of it is chance
    after = verify(folder)
    assert after == done.manifest
    assert (after.id, after.sha256) == (before.id, before.sha256)
    assert after.calibration is not None
    assert (after.calibration.images, after.calibration.source) == (200, "val of manifest.csv")
    assert after.calibration.slope < 1  # it was too sure
    assert after.calibration.intercept > 0  # it leaned towards generated


def test_thresholds_are_kept_for_other_rates_too_and_rise_with_them(folder: Path, faces: Path) -> None:
    done = calibrate(folder, faces, load_settings(), fpr=0.03)
    assert done.manifest.calibration is not None
    points = done.manifest.calibration.operating_points
    assert set(points) == {f"{rate:g}" for rate in (*FALSE_POSITIVE_RATES, 0.03)}
    rising = [points[rate] for rate in sorted(points, key=float)]
    assert rising == sorted(rising)
    assert points["0.2"] > points["0.01"]


@pytest.mark.parametrize(("fpr", "fnr"), [(0.01, 0.05), (0.1, 0.02), (0.25, 0.5)])
def test_labels_keep_the_rates_on_the_images_of_the_fit(folder: Path, faces: Path, fpr: float, fnr: float) -> None:
    done = calibrate(folder, faces, load_settings(), fpr=fpr, fnr=fnr)
    found = measured(folder, faces)
    assert found.false_positive_rate.value == done.false_positive_rate <= fpr
    assert found.false_negative_rate.value == done.false_negative_rate <= fnr
    assert found.coverage.value == pytest.approx(1 - done.unsure)
    assert found.calibration_error.value == pytest.approx(done.error_after)
    assert done.manifest.calibration is not None
    assert done.manifest.calibration.false_positive_rate == fpr


def test_the_calibration_holds_on_other_images_of_the_same_kind(folder: Path, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "others").mkdir()
    others = drawn.draw_data(tmp_path / "others", each=100, split="test", seed=1)
    before = measured(folder, others)
    calibrate(folder, faces, load_settings())
    after = measured(folder, others)
    assert after.calibration_error.value < before.calibration_error.value
    assert after.accuracy.value > before.accuracy.value  # the offset is gone
    assert after.roc_auc.value == before.roc_auc.value


def test_calibrating_again_starts_from_the_scores_and_not_from_the_last_calibration(folder: Path, faces: Path) -> None:
    first = calibrate(folder, faces, load_settings())
    assert calibrate(folder, faces, load_settings()).manifest == first.manifest


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, 1.0), (2.0, -0.7), (1.0, 0.0)])
def test_both_parameters_are_found_again(slope: float, intercept: float) -> None:
    assert fit(*drawn_scores(slope, intercept), "platt") == pytest.approx((slope, intercept), abs=0.06)


def test_a_temperature_has_no_intercept() -> None:
    slope, intercept = fit(*drawn_scores(0.5, 0.0), "temperature")
    assert (slope, intercept) == (pytest.approx(0.5, abs=0.03), 0)


def test_classes_that_separate_have_a_finite_slope() -> None:
    slope, intercept = fit(np.array([True] * 50 + [False] * 50), np.repeat([0.8, 0.2], 50), "platt")
    # Platt's labels, 51/52 and 1/52, are met exactly.
    assert expit(slope * logit(np.array([0.8])) + intercept)[0] == pytest.approx(51 / 52, abs=1e-5)


def test_scores_that_say_nothing_are_an_error() -> None:
    with pytest.raises(ModelError, match="no higher for real than for generated"):
        fit(np.array([True, False] * 20), np.linspace(0.2, 0.8, 40), "platt")


def test_scores_of_exactly_zero_and_one_have_finite_probabilities() -> None:
    calibration = Calibration(slope=3, intercept=-1, images=1, source="a test", false_positive_rate=0.01)
    calibrated = probability(np.array([0.0, 0.5, 1.0]), calibration)
    assert np.all(np.isfinite(calibrated))
    assert calibrated[1] == pytest.approx(expit(-1))
    assert 0 < calibrated[0] < calibrated[1] < calibrated[2]


def test_without_a_calibration_the_probability_is_the_score() -> None:
    np.testing.assert_array_equal(probability(np.array([0.0, 0.3]), None), [0.0, 0.3])


def test_thresholds_are_half_way_to_the_next_score() -> None:
    is_real = np.array([True] * 4 + [False] * 4)
    p_real = np.array([0.3, 0.6, 0.8, 0.9, 0.1, 0.2, 0.4, 0.7])
    # No real image may be at or below the one, a quarter of the generated ones above the other.
    assert choose_thresholds(is_real, p_real, 0.01, 0.25, middle=0.5) == pytest.approx((0.25, 0.5))


@pytest.mark.parametrize(("middle", "expected"), [(0.5, 0.5), (0.05, 0.25), (0.99, 0.75)])
def test_classes_that_separate_leave_nothing_unsure(middle: float, expected: float) -> None:
    is_real = np.array([True, True, False, False])
    p_real = np.array([0.6, 0.9, 0.1, 0.4])
    # Half of each class may be wrong: the one threshold can be from 0.25 to 0.75.
    assert choose_thresholds(is_real, p_real, 0.5, 0.5, middle=middle) == pytest.approx((expected, expected))


@given(SCORES, SCORES, RATES, RATES, st.floats(0, 1))
def test_thresholds_are_ordered_and_keep_both_rates_and_no_further_score_could_be_labelled(
    real: list[float], generated: list[float], fpr: float, fnr: float, middle: float
) -> None:
    is_real = np.array([True] * len(real) + [False] * len(generated))
    p_real = np.array([*real, *generated])
    below, above = choose_thresholds(is_real, p_real, fpr, fnr, middle=middle)
    assert 0 <= below <= above <= 1
    assert np.mean(p_real[is_real] <= below) <= fpr + 1e-9
    assert np.mean(p_real[~is_real] > above) <= fnr + 1e-9
    if below < above:
        unsure = p_real[(p_real > below) & (p_real <= above)]
        assert len(unsure)
        assert np.mean(p_real[is_real] <= unsure.min()) > fpr
        assert np.mean(p_real[~is_real] >= unsure.max()) > fnr


def test_real_images_that_score_zero_leave_no_threshold() -> None:
    with pytest.raises(ModelError, match="real images score 0"):
        choose_thresholds(np.array([True, True, False]), np.array([0.0, 0.9, 0.0]), 0.1, 0.1, middle=0.5)


@pytest.mark.parametrize("rates", [{"fpr": 0.0}, {"fpr": 1.0}, {"fnr": -0.1}, {"fnr": float("nan")}])
def test_a_rate_that_is_no_share_is_refused_before_anything_is_loaded(tmp_path: Path, rates: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="is not a share between 0 and 1"):
        calibrate(tmp_path / "nothing", tmp_path / "nowhere", load_settings(), **rates)  # type: ignore[arg-type]


def test_a_manifest_is_replaced_as_a_whole_or_not_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (folder / "manifest.json").read_bytes()
    changed = read_manifest(folder).model_copy(update={"real_above": 0.75})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(ModelError, match=r"bright: .* cannot be written: No space left"):
            write_manifest(folder, changed)
    assert (folder / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.keras"]

    write_manifest(folder, changed)
    assert read_manifest(folder) == changed
    assert sorted(path.name for path in folder.iterdir()) == ["manifest.json", "model.keras"]


def test_the_command_says_what_it_chose_and_how_labels_follow(folder: Path, faces: Path) -> None:
    result = CliRunner().invoke(app, ["calibrate", str(folder), str(faces), "--fpr", "0.1"])
    assert result.exit_code == 0, result.output
    assert f"at or below {read_manifest(folder).generated_below:.4g}" in result.stdout
    assert f"worker start` --model {folder}" in result.stdout


def test_a_rate_finer_than_one_image_is_pointed_out(folder: Path, faces: Path) -> None:
    result = CliRunner().invoke(app, ["calibrate", str(folder), str(faces), "--fpr", "0.001", "--json"])
    assert result.exit_code == 0, result.output
    assert "0.001 of 100 real images is less than one" in result.stderr
    done = json.loads(result.stdout)
    assert done["false_positive_rate"] == 0
    assert done["manifest"]["generated_below"] == read_manifest(folder).generated_below
