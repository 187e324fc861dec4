"""What `model evaluate` measures, and the report that it writes."""

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score
from typer.testing import CliRunner

from core.errors import SourceError, UsageError
from core.manifest import Calibration
from core.settings import load_settings
from model.artifact import write_manifest as write_model_manifest
from model.cli import app
from model.data import read_samples
from model.evaluate import Evaluation, draw, evaluate
from model.predictor import load_predictor
from model.preprocess import decode
from model.report import render, write_report
from model.robustness import CHANGES
from model.scoring import score
from tests import drawn

pytestmark = pytest.mark.tensorflow
BAD = "bad <img src=x onerror=alert(1)>.png"
HOSTILE = '--><script>alert("x")</script>$\\frac{ 日本'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = load_settings(data_dir=tmp_path_factory.mktemp("models"))
    drawn.make_bright_artifact(settings)
    return settings.models_dir / "bright"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drawn.draw_data(tmp_path_factory.mktemp("faces"), split="test")


@pytest.fixture(scope="module")
def found(folder: Path, faces: Path) -> Evaluation:
    return evaluate(folder, faces, load_settings(batch_size=16))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose names try to break out of the report, and of which one image cannot be decoded."""
    folder = tmp_path_factory.mktemp("hostile")
    for number in range(4):
        drawn.draw(folder / f"{number}.png", 0.3 + 0.1 * number, number)
    (folder / BAD).write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    rows = [(f"{number}.png", "real" if number > 1 else "generated", "test", HOSTILE, HOSTILE) for number in range(4)]
    return drawn.write_manifest(folder, [*rows, (BAD, "real", "test", HOSTILE, "")])


@pytest.fixture(scope="module")
def found_in_hostile(folder: Path, hostile: Path) -> Evaluation:
    return evaluate(folder, hostile, load_settings(), is_robustness_wanted=False)


def test_scores_are_those_that_serving_gives(folder: Path, faces: Path) -> None:
    predictor = load_predictor(folder, batch_size=16)
    samples = read_samples(faces)
    served = [
        predictor.predict(decode(sample.path.read_bytes(), "rgb-scaled", max_pixels=10**6).pixels[None])[0]
        for sample in samples
    ]
    scored = score(predictor, samples, load_settings(), doing="scoring", changes=CHANGES)
    np.testing.assert_allclose(scored.p_real["unchanged"], served, atol=1e-6)
    assert scored.samples == tuple(samples)


def test_numbers_are_those_of_scikit_learn(found: Evaluation) -> None:
    is_real, p_real = found.scores.is_real, found.scores.p_real
    assert found.metrics.roc_auc.value == pytest.approx(roc_auc_score(is_real, p_real))
    assert found.metrics.average_precision.value == pytest.approx(average_precision_score(~is_real, 1 - p_real))
    assert found.metrics.accuracy.value == np.mean((p_real > 0.5) == is_real)
    assert 0.7 < found.metrics.accuracy.value < 1
    assert (found.metrics.real, found.metrics.generated, found.metrics.baseline) == (40, 40, 0.5)


def test_each_source_and_generator_has_its_own_row_and_the_worst_comes_first(found: Evaluation) -> None:
    assert {(one.name, one.label, one.images) for one in found.sources} == {
        ("camera", "real", 20), ("phone", "real", 20), ("gan", "generated", 20), ("diffusion", "generated", 20),
    }  # fmt: skip
    assert {(one.name, one.label) for one in found.generators} == {("GAN", "generated"), ("DIFFUSION", "generated")}
    accuracies = [one.accuracy.value for one in found.sources]
    assert accuracies == sorted(accuracies)
    assert np.mean(accuracies) == pytest.approx(found.metrics.accuracy.value)  # they are equally large
    real = [one.roc_auc for one in found.sources if one.label == "real"]
    assert np.mean(real) == pytest.approx(found.metrics.roc_auc.value)


def test_a_source_of_both_classes_has_a_row_for_each(found_in_hostile: Evaluation) -> None:
    assert sorted((one.label, one.images) for one in found_in_hostile.sources) == [("generated", 2), ("real", 2)]


def test_changed_images_are_measured_too(found: Evaluation) -> None:
    assert [one.name for one in found.robustness] == list(CHANGES)
    unchanged, *others = found.robustness
    assert unchanged.accuracy == found.metrics.accuracy.value
    assert unchanged.roc_auc == pytest.approx(found.metrics.roc_auc.value)
    assert {one.name for one in others if abs(one.roc_auc - unchanged.roc_auc) > 0.02} == set()  # shades stay


@pytest.mark.parametrize("preset", ["card", "rgb-area"])
@pytest.mark.parametrize("name", CHANGES)
def test_a_change_keeps_the_colours_and_does_what_its_name_says(name: str, preset: str) -> None:
    chance = np.random.default_rng(0)
    image = chance.normal((200, 100, 30), 20, (64, 80, 3)).clip(0, 255).astype(np.uint8)
    before = image.copy()
    changed = CHANGES[name](image, preset)
    np.testing.assert_array_equal(image, before)
    assert changed.dtype == np.uint8
    np.testing.assert_allclose(changed.mean((0, 1)), image.mean((0, 1)), atol=3)
    sizes = {"half the size": (32, 40, 3), "a quarter of the size": (16, 20, 3)}
    sizes["centre crop, 80 % of each side"] = (52, 64, 3)
    assert changed.shape == sizes.get(name, image.shape)
    assert np.array_equal(changed, image) == (name == "unchanged")


def test_stronger_compression_changes_more() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    errors = [
        np.abs(CHANGES[f"JPEG quality {quality}"](image, "card").astype(int) - image).mean()
        for quality in (90, 70, 50, 30)
    ]
    assert errors == sorted(errors)


def test_an_image_of_one_pixel_survives_every_change() -> None:
    for change in CHANGES.values():
        assert change(np.full((1, 1, 3), 7, np.uint8), "card").shape == (1, 1, 3)


def test_a_calibration_moves_the_decision_but_not_the_order(folder: Path, faces: Path, tmp_path: Path) -> None:
    settings = load_settings(data_dir=tmp_path)
    manifest = drawn.make_bright_artifact(settings)
    artifact = settings.models_dir / "bright"
    plain = evaluate(artifact, faces, settings, is_robustness_wanted=False)
    calibration = Calibration(slope=1, intercept=-100, images=1, source="a test", false_positive_rate=0.01)
    write_model_manifest(artifact, manifest.model_copy(update={"calibration": calibration}))
    moved = evaluate(artifact, faces, settings, is_robustness_wanted=False)
    assert moved.metrics.roc_auc == plain.metrics.roc_auc
    assert moved.metrics.decisions.generated_as_generated == moved.metrics.generated  # all are called that
    assert moved.metrics.accuracy.value == 0.5
    assert moved.metrics.labels == plain.metrics.labels  # the thresholds are the same


def test_an_image_that_cannot_be_decoded_is_named_and_in_no_number(found_in_hostile: Evaluation, hostile: Path) -> None:
    assert found_in_hostile.metrics.real + found_in_hostile.metrics.generated == 4
    (failure,) = found_in_hostile.failures
    assert failure.path == str(hostile.parent / BAD)
    assert "PNG" in failure.reason


def test_files_that_are_missing_or_too_large_are_named(folder: Path, tmp_path: Path) -> None:
    rows = [(f"{number}.png", ("real", "generated")[number % 2], "test", "", "") for number in range(4)]
    for number in (0, 1, 3):
        drawn.draw(tmp_path / f"{number}.png", 0.5, number)
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes().ljust(30_000, b"\0"))
    found = evaluate(
        folder, drawn.write_manifest(tmp_path, rows), load_settings(max_bytes=20_000), is_robustness_wanted=False
    )
    assert {Path(one.path).name: one.reason for one in found.failures} == {
        "2.png": "No such file or directory",
        "3.png": "30000 bytes, the limit is 20000",
    }


def test_a_class_of_which_nothing_can_be_decoded_is_an_error(folder: Path, faces: Path, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes((faces.parent / "0000.png").read_bytes())
    (tmp_path / "b.png").write_bytes(b"")
    rows = [("a.png", "real", "test", "", ""), ("b.png", "generated", "test", "", "")]
    with pytest.raises(SourceError, match=r"not one of the generated images could be decoded: .*b.png: .*empty"):
        evaluate(folder, drawn.write_manifest(tmp_path, rows), load_settings())


def test_a_limit_draws_the_same_images_of_each_class_every_time(faces: Path) -> None:
    samples = read_samples(faces)
    some = draw(samples, 7)
    assert some == draw(list(samples), 7)
    assert [sum(one.is_real == is_real for one in some) for is_real in (True, False)] == [7, 7]
    assert some == sorted(some, key=lambda one: one.path)
    assert draw(samples, None) == draw(samples, 1000) == samples


def test_the_report_is_one_file_that_names_what_was_evaluated(found: Evaluation, tmp_path: Path) -> None:
    write_report(found, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    for shown in (found.manifest.id, found.manifest.sha256, found.data, "rgb-scaled", "tensorflow", "diffusion"):
        assert shown in page
    assert f"{found.metrics.accuracy.value:.3f}" in page
    assert page.count("<svg") == 4
    tags, links = read_html(page)
    assert "script" not in tags
    assert {link for link in links if not link.startswith("#")} == set()


def test_hostile_names_are_escaped_in_the_report(found_in_hostile: Evaluation) -> None:
    page = render(found_in_hostile)
    tags, _ = read_html(page)
    assert {"script", "img"}.isdisjoint(tags)
    assert "bad &lt;img src=x onerror=alert(1)&gt;.png" in page
    assert "&lt;script&gt;" in page


def test_the_same_evaluation_gives_the_same_report(found: Evaluation) -> None:
    assert render(found) == render(found)


def test_a_report_that_cannot_be_written_is_an_error(found: Evaluation, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"report .*nowhere/report.html cannot be written"):
        write_report(found, tmp_path / "nowhere" / "report.html")


def test_the_command_prints_the_accuracy_beside_that_of_naming_the_larger_class(folder: Path, faces: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", str(folder), str(faces), "--no-robustness"])
    assert result.exit_code == 0, result.output
    lines = [line.split() for line in result.stdout.splitlines()]
    place = next(place for place, words in enumerate(lines) if words[:1] == ["accuracy"])
    assert lines[place + 1] == ["of", "naming", "the", "larger", "class", "0.500"]


def test_the_command_prints_all_as_json_and_names_failures_on_stderr(
    folder: Path, hostile: Path, tmp_path: Path
) -> None:
    out = tmp_path / "report.html"
    result = CliRunner().invoke(app, ["evaluate", str(folder), str(hostile), "--json", "--out", str(out)])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["metrics"]["decisions"]["real_as_real"] == found["metrics"]["real"] - 1 == 1
    assert found["positive"] == "generated"
    assert len(found["robustness"]) == len(CHANGES)
    assert [Path(one["path"]).name for one in found["failures"]] == [BAD]
    assert out.is_file()


def test_without_scikit_learn_the_error_says_what_to_install(folder: Path, faces: Path) -> None:
    code = "import sys; sys.modules['sklearn'] = None\nfrom model.cli import main; main()"
    command = [sys.executable, "-c", code, "evaluate", str(folder), str(faces)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (7, "")
    assert done.stderr == "error: sklearn is not installed: pip install 'facesieve[train]'\n"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links |= {value or "" for name, value in attrs if name in {"href", "src", "xlink:href"}}


def read_html(page: str) -> tuple[set[str], set[str]]:
    """Return the names of the tags of a page, and what they link to."""
    parser = _Tags()
    parser.feed(page)
    return parser.tags, parser.links
