"""The heat lies where the evidence is."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest
from keras import layers
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from core.errors import FacesieveError, ImageError, ModelError, UsageError
from core.settings import Settings
from model.cli import app
from model.ensemble import make_ensemble
from model.explain import Explainer, draw_heat, explain_file
from model.importer import import_model, save_network
from model.inception import build_card_inception
from model.predictor import load_predictor
from tests.tiny import build_tiny_network, make_tiny_artifact, mean_of, small_model

pytestmark = pytest.mark.tensorflow
LEFT, RIGHT = (slice(32, 80), slice(16, 64)), (slice(144, 192), slice(160, 208))
RED, GREEN, BLUE = 0, 1, 2
DRAWING = re.compile(r"[A-Za-z0-9_-]+-[0-9a-f]{16}-evidence-for-(real|generated)\.png")


def colour_features(channel: int) -> Callable[[Any], Any]:
    """A convolution of fixed weights: one map of a colour, which speaks for real, and one of blue, which does not."""

    def build(pixels: Any) -> Any:
        convolution = layers.Conv2D(2, 16, strides=16, use_bias=False, name=f"see_{channel}")
        maps = convolution(pixels)
        kernel = np.zeros((16, 16, 3, 2), np.float32)
        kernel[:, :, channel, 0] = kernel[:, :, BLUE, 1] = 1 / 256
        convolution.set_weights([kernel])
        return layers.ReLU()(maps)

    return build


def dense(x: Any, activation: str | None = "sigmoid", bias: float = 0.0) -> Any:
    layer = layers.Dense(1, activation=activation)
    score = layer(x)
    layer.set_weights([np.array([[9.0], [-9.0]], np.float32), np.array([bias], np.float32)])
    return score


def colour_network(channel: int = RED, bias: float = 0.0) -> Any:
    """A network to which a colour is real and blue is generated."""
    see = colour_features(channel)
    return small_model(lambda pixels: dense(layers.GlobalAveragePooling2D()(see(pixels)), bias=bias))


def make(settings: Settings, network: Any, name: str = "made", *, flip: bool = False) -> Explainer:
    save_network(network, settings, name=name, trained=True, source="tests", preprocess="rgb-area", flip=flip)
    return Explainer(settings.models_dir / name)


def picture(**patches: tuple[tuple[slice, slice], int]) -> NDArray[np.uint8]:
    """Black, with patches in places, each of one channel and as bright as the name says."""
    pixels = np.zeros((224, 224, 3), np.uint8)
    for brightness, (place, channel) in patches.items():
        pixels[(*place, channel)] = int(brightness.removeprefix("b"))
    return pixels


def is_hot_only_at(heat: NDArray[np.float32], place: tuple[slice, slice], height: float = 1.0) -> bool:
    outside = heat.copy()
    outside[place[0].start - 16 : place[0].stop + 16, place[1].start - 16 : place[1].stop + 16] = 0
    return bool(heat[place].min() > height / 4 and abs(heat[place].max() - height) < 1e-3 and outside.max() < 1e-3)


def test_the_heat_is_where_the_evidence_for_the_label_is(settings: Settings) -> None:
    explainer = make(settings, colour_network())

    red = explainer.explain(picture(b200=(LEFT, RED), b100=(RIGHT, BLUE)))
    blue = explainer.explain(picture(b100=(LEFT, RED), b200=(RIGHT, BLUE)))

    assert (red.label, red.evidence_for) == ("real", "real")
    assert (blue.label, blue.evidence_for) == ("generated", "generated")
    assert is_hot_only_at(red.heat, LEFT)
    assert is_hot_only_at(blue.heat, RIGHT)


def test_what_is_unsure_is_shown_with_the_evidence_for_real(settings: Settings) -> None:
    explainer = make(settings, colour_network())
    explainer.manifest = explainer.manifest.model_copy(update={"real_above": 1.0, "generated_below": 0.0})

    found = explainer.explain(picture(b100=(LEFT, RED), b200=(RIGHT, BLUE)))

    assert (found.label, found.evidence_for) == ("unsure", "real")
    assert is_hot_only_at(found.heat, LEFT)


def test_the_mirror_images_heat_is_mirrored_back(settings: Settings) -> None:
    explainer = make(settings, colour_network(), flip=True)

    found = explainer.explain(picture(b200=(LEFT, RED)))

    assert is_hot_only_at(found.heat, LEFT)


def test_an_ensembles_heat_is_the_mean_over_its_members_however_they_are_nested(settings: Settings) -> None:
    for name, network in (("red", colour_network(RED)), ("green", colour_network(GREEN))):
        make(settings, network, name)
    make(settings, colour_network(RED, bias=0.5), "other-red")
    make_ensemble(settings, ["red", "green"], name="two")
    make_ensemble(settings, ["two", "other-red"], name="nested")

    seen = picture(b200=(LEFT, RED), b100=(RIGHT, GREEN))
    two = Explainer(settings.models_dir / "two").explain(seen)
    nested = Explainer(settings.models_dir / "nested").explain(seen)

    for found, left, right in ((two, 1 / 2, 1 / 2), (nested, 2 / 3, 1 / 3)):
        assert found.heat[LEFT].max() == pytest.approx(left, abs=1e-3)
        assert found.heat[RIGHT].max() == pytest.approx(right, abs=1e-3)


def test_a_score_of_exactly_one_has_heat_too(settings: Settings) -> None:
    found = make(settings, colour_network(bias=100.0)).explain(picture(b200=(LEFT, RED)))

    assert found.p_real == 1.0
    assert is_hot_only_at(found.heat, LEFT)


@pytest.mark.parametrize(
    "end",
    [
        lambda maps: layers.Activation("sigmoid")(dense(layers.GlobalAveragePooling2D()(maps), None)),
        lambda maps: layers.Rescaling(1.0)(dense(layers.GlobalAveragePooling2D()(maps))),
        lambda maps: dense(layers.Flatten()(layers.GlobalAveragePooling2D(keepdims=True)(maps))),
        lambda maps: dense(layers.GlobalMaxPooling2D()(maps)),
    ],
    ids=["activation", "after the sigmoid", "kept dimensions", "maximum"],
)
def test_a_network_may_end_in_other_ways(end: Callable[[Any], Any], settings: Settings) -> None:
    see = colour_features(RED)

    found = make(settings, small_model(lambda pixels: end(see(pixels)))).explain(picture(b200=(LEFT, RED)))

    assert found.heat.argmax() in np.flatnonzero(picture(b200=(LEFT, RED))[..., RED])


def test_a_network_may_look_at_earlier_features_too(settings: Settings) -> None:
    pool, see = layers.GlobalAveragePooling2D(), colour_features(RED)

    def build(pixels: Any) -> Any:
        maps = see(pixels)
        later = layers.Rescaling(1.0)(layers.MaxPooling2D(2)(maps))
        return dense(layers.Add()([pool(maps), pool(later)]))

    found = make(settings, small_model(build)).explain(picture(b200=(LEFT, RED)))

    assert is_hot_only_at(found.heat, LEFT)


def test_features_may_come_from_a_model_within(settings: Settings) -> None:
    backbone = small_model(colour_features(RED))
    network = small_model(
        lambda pixels: dense(layers.GlobalAveragePooling2D()(backbone(layers.Rescaling(1.0)(pixels))))
    )

    found = make(settings, network).explain(picture(b200=(LEFT, RED)))

    assert is_hot_only_at(found.heat, LEFT)


@pytest.mark.parametrize(
    "network",
    [
        lambda: small_model(mean_of),
        lambda: small_model(lambda pixels: colour_network()(layers.Rescaling(1.0)(pixels))),
    ],
    ids=["no convolution", "out of reach"],
)
def test_a_network_without_feature_maps_within_reach_is_an_error(
    network: Callable[[], Any], settings: Settings
) -> None:
    with pytest.raises(ModelError, match="model made holds no convolution within reach"):
        make(settings, network())


def test_a_saved_model_is_an_error_with_the_fix(settings: Settings, tmp_path: Path) -> None:
    build_tiny_network().export(tmp_path / "folder", verbose=False)
    import_model(settings, tmp_path / "folder", name="saved")

    with pytest.raises(ModelError, match=r"saved is a SavedModel.*model import"):
        Explainer(settings.models_dir / "saved")


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    "build",
    [
        build_tiny_network,
        lambda: build_card_inception(stem_filters=4, stem_stride=8, module_filters=((4,), (8,)), dense_units=4),
    ],
    ids=["resnet", "inception"],
)
def test_the_score_is_the_predictors_and_the_heat_fits_the_image(
    build: Callable[[], Any], flip: bool, settings: Settings, images: NDArray[np.uint8]
) -> None:
    keras.utils.set_random_seed(1)
    explainer = make(settings, build(), flip=flip)

    found = [explainer.explain(image) for image in images[:3]]

    expected = load_predictor(settings.models_dir / "made").predict(images[:3])
    np.testing.assert_allclose([one.p_real for one in found], expected, atol=1e-6)
    assert all(one.heat.shape == (224, 224) and one.heat.dtype == np.float32 for one in found)
    assert all(one.heat.min() >= 0 and one.heat.max() <= 1 for one in found)


def test_the_drawing_leaves_cold_parts_as_they_are(images: NDArray[np.uint8]) -> None:
    heat = np.zeros((224, 224), np.float32)
    heat[LEFT] = 1

    drawn = draw_heat(images[0], heat)

    is_cold = heat == 0
    np.testing.assert_array_equal(drawn[is_cold], images[0][is_cold])
    assert np.abs(drawn[LEFT].astype(int) - images[0][LEFT]).mean() > 20


def write_image(path: Path | bytes, pixels: NDArray[np.uint8]) -> None:
    """Write RGB as PNG, whatever the name."""
    Path(os.fsdecode(path)).write_bytes(cv2.imencode(".png", pixels[..., ::-1])[1].tobytes())


@pytest.mark.parametrize("preset", ["card", "rgb-area"])
def test_the_drawing_has_the_colours_of_the_image(preset: Any, settings: Settings, tmp_path: Path) -> None:
    save_network(build_tiny_network(), settings, name="made", trained=True, source="tests", preprocess=preset)
    explainer = Explainer(settings.models_dir / "made")
    write_image(tmp_path / "red.png", picture(b200=((slice(0, 224), slice(0, 224)), RED)))

    found, target = explain_file(explainer, tmp_path / "red.png", tmp_path / "out", settings)

    drawn = cv2.imread(str(target), cv2.IMREAD_COLOR_RGB)
    assert drawn is not None
    assert drawn.shape == (224, 224, 3)
    assert drawn[..., RED].mean() > 90
    assert (drawn[found.heat == 0] == (200, 0, 0)).all()


def test_drawings_have_safe_names_of_their_own(settings: Settings, tmp_path: Path) -> None:
    explainer = make(settings, colour_network())
    names = [b"a.png", b"a.jpg", b"..png", b"-x.png", b"\x1b[31m\n.png", "späte Größe.png".encode(), b"\xff.png"]
    names += [b"n" * 200 + b".png", b"sub/a.png"]
    (tmp_path / "sub").mkdir()
    paths = [Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)) for name in names]
    for path in paths:
        write_image(path, picture(b200=(LEFT, RED)))

    drawings = [explain_file(explainer, path, tmp_path / "out", settings)[1] for path in paths]

    assert len(set(drawings)) == len(paths)
    assert sorted(drawings) == sorted((tmp_path / "out").iterdir())
    assert all(DRAWING.fullmatch(drawing.name) for drawing in drawings)
    assert {drawing.name.rpartition("-")[2] for drawing in drawings} == {"real.png"}


def test_another_model_does_not_overwrite_a_drawing(settings: Settings, tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", picture(b200=(LEFT, RED)))
    explainers = [make(settings, colour_network(), name) for name in ("first", "second")]

    drawings = {explain_file(one, tmp_path / "a.png", tmp_path / "out", settings)[1] for one in explainers}

    assert len(drawings) == 2


def test_a_bad_image_and_a_folder_that_cannot_be_written_are_errors(settings: Settings, tmp_path: Path) -> None:
    explainer = make(settings, colour_network())
    (tmp_path / "bad.png").write_bytes(b"no image")
    write_image(tmp_path / "a.png", picture())

    with pytest.raises(ImageError, match="not an image"):
        explain_file(explainer, tmp_path / "bad.png", tmp_path / "out", settings)
    with pytest.raises(UsageError, match=r"--out .*bad\.png cannot be written"):
        explain_file(explainer, tmp_path / "a.png", tmp_path / "bad.png", settings)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["explain", *words])


def test_the_command_goes_on_after_a_bad_image_and_fails_in_the_end(settings: Settings, tmp_path: Path) -> None:
    make(settings, colour_network())
    write_image(tmp_path / "a.png", picture(b200=(LEFT, RED)))
    write_image(tmp_path / "z.png", picture(b200=(LEFT, BLUE)))
    files = [str(tmp_path / name) for name in ("a.png", "gone.png", "z.png")]
    options = ["--model", "made", "--out", str(tmp_path / "out")]

    done = run(*files, *options)
    as_json = run(*files, *options, "--json")

    for result in (done, as_json):
        assert isinstance(result.exception, FacesieveError)
        assert str(result.exception) == "1 of 3 images could not be explained"
    assert [line.split()[1] for line in done.stdout.splitlines()] == ["real", "generated"]
    assert done.stderr == f"{files[1]}: the file is gone\n"
    rows = json.loads(as_json.stdout)
    assert [row["image"] for row in rows] == files
    assert [row.get("evidence_for") for row in rows] == ["real", None, "generated"]
    assert rows[1]["error"] == "the file is gone"
    assert {Path(rows[0]["drawing"]), Path(rows[2]["drawing"])} == set((tmp_path / "out").iterdir())


def test_labels_of_an_untrained_model_say_so(settings: Settings, tmp_path: Path) -> None:
    make_tiny_artifact(settings, "tiny")
    write_image(tmp_path / "a.png", picture(b200=(LEFT, RED)))

    done = run(str(tmp_path / "a.png"), "--model", "tiny", "--out", str(tmp_path / "out"))

    assert done.exit_code == 0, done.output
    assert "(untrained)" in done.stdout
