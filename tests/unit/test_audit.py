"""What gives the class of labelled images away, measured on images that are drawn to do so."""

import json
import os
import sys
from collections.abc import Callable
from math import isnan
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from typer.testing import CliRunner, Result

from core.errors import FacesieveError, ImageError, SourceError
from core.settings import Settings
from model.audit import Audit, Finding, audit
from model.cli import app
from model.data import Box, Sample
from model.traits import TRAITS, measure

Image = NDArray[np.uint8]


def draw(seed: int, *, side: int = 48) -> Image:
    """Coarse noise: no two alike, none with a detail finer than a few pixels."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return cv2.resize(noise, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.uint8)


def encode(image: Image, suffix: str = ".jpg", *options: int) -> bytes:
    return cv2.imencode(suffix, image, list(options))[1].tobytes()


def write(
    folder: Path, *, per_class: int, real: Callable[[int], bytes], generated: Callable[[int], bytes]
) -> list[Sample]:
    """Write as many images of each class, each made from a seed of its own; half of each is another source."""
    samples = []
    for number in range(2 * per_class):
        is_real = number % 2 == 0
        path = folder / ("real" if is_real else "generated") / f"{number:04}.image"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((real if is_real else generated)(number))
        samples.append(Sample(path, is_real, "train", f"{path.parent.name}{number // 2 % 2}"))
    return samples


def plain(seed: int) -> bytes:
    return encode(draw(seed))


def by_name(found: Audit) -> dict[str, Finding]:
    return {finding.name: finding for finding in found.findings}


def measured(content: bytes, box: Box | None = None) -> dict[str, float | str | None]:
    return measure(content, box, max_pixels=10**6)


def test_a_format_for_each_class_gives_everything_away(settings: Settings, tmp_path: Path) -> None:
    samples = write(tmp_path, per_class=30, real=plain, generated=lambda seed: encode(draw(seed), ".png"))
    found = audit(samples, settings)
    finding = by_name(found)["format"]
    assert (finding.auc, finding.level) == (1.0, "warning")
    assert (finding.real, finding.generated) == ("JPEG", "PNG")
    assert "re-encode" in finding.advice
    assert (found.together.auc, found.together.level) == (1.0, "warning")


def test_classes_that_were_treated_alike_give_nothing_away(settings: Settings, tmp_path: Path) -> None:
    found = audit(write(tmp_path, per_class=150, real=plain, generated=plain), settings)
    worst = max(found.findings, key=lambda finding: finding.auc or 0)
    assert worst.auc == pytest.approx(0.5, abs=0.12)
    assert found.together.auc == pytest.approx(0.5, abs=0.12)
    assert by_name(found)["format"].auc == 0.5


def test_a_blurred_class_is_found_by_its_sharpness(settings: Settings, tmp_path: Path) -> None:
    def sharp(seed: int) -> bytes:
        image = draw(seed).astype(np.int16) + np.random.default_rng(seed).integers(-9, 9, (48, 48, 3), np.int16)
        return encode(image.clip(0, 255).astype(np.uint8), ".png")

    samples = write(tmp_path, per_class=30, real=lambda seed: encode(draw(seed), ".png"), generated=sharp)
    finding = by_name(audit(samples, settings))["sharpness"]
    assert finding.auc is not None
    assert finding.auc > 0.99
    assert (finding.higher, finding.level) == ("generated", "warning")
    assert "blur" in finding.advice


def test_a_class_on_both_sides_of_the_other_is_found_though_neither_is_higher(
    settings: Settings, tmp_path: Path
) -> None:
    def real(seed: int) -> bytes:
        return encode(draw(seed, side=(40, 80)[seed // 2 % 2]))

    samples = write(tmp_path, per_class=40, real=real, generated=lambda seed: encode(draw(seed, side=60)))
    finding = by_name(audit(samples, settings))["width"]
    assert finding.auc == 1.0
    assert finding.higher is None


def test_a_property_that_only_one_class_has_is_not_judged(settings: Settings, tmp_path: Path) -> None:
    samples = write(tmp_path, per_class=5, real=plain, generated=lambda seed: encode(draw(seed), ".png"))
    quality = by_name(audit(samples, settings))["jpeg_quality"]
    assert (quality.auc, quality.images, quality.level) == (None, 5, "")


def test_the_worst_property_comes_first(settings: Settings, tmp_path: Path) -> None:
    samples = write(tmp_path, per_class=30, real=plain, generated=lambda seed: encode(draw(seed, side=50)))
    found = [(finding.auc or 0, finding.name) for finding in audit(samples, settings).findings]
    assert (1.0, "width") in found[:5]
    assert [auc for auc, _ in found] == sorted((auc for auc, _ in found), reverse=True)


def test_a_source_stands_out_against_the_others(settings: Settings, tmp_path: Path) -> None:
    def real(seed: int) -> bytes:
        return encode(draw(seed, side=(48, 96)[seed // 2 % 2]))

    sources = {
        one.source: one for one in audit(write(tmp_path, per_class=8, real=real, generated=plain), settings).sources
    }
    assert list(sources) == ["generated0", "generated1", "real0", "real1"]
    wide = sources["real1"]
    assert (wide.label, wide.images, wide.means["width"], wide.stands_out["width"]) == ("real", 4, 96, 48)
    assert "jpeg_quality" not in sources["generated0"].stands_out


def test_few_images_make_an_audit_uncertain(settings: Settings, tmp_path: Path) -> None:
    few = audit(write(tmp_path / "few", per_class=10, real=plain, generated=plain), settings)
    many = audit(write(tmp_path / "many", per_class=90, real=plain, generated=plain), settings)
    assert few.uncertainty > 0.2
    assert many.uncertainty < 0.1


def test_an_image_that_cannot_be_decoded_is_named_and_the_others_are_measured(
    settings: Settings, tmp_path: Path
) -> None:
    samples = write(tmp_path, per_class=5, real=plain, generated=plain)
    samples[0].path.write_bytes(b"")
    samples[1].path.write_text("no image")
    samples[2].path.write_bytes(plain(0)[:-50])
    samples[3].path.unlink()
    samples[4].path.unlink()
    os.mkfifo(samples[4].path)
    calls: list[tuple[int, int]] = []
    found = audit(samples, settings, report=lambda done, total: calls.append((done, total)))
    assert (found.real, found.generated) == (2, 3)
    assert [path for path, _ in found.failures] == [sample.path for sample in samples[:5]]
    assert [reason.split(",")[0] for _, reason in found.failures] == [
        "the file is empty",
        "not an image of a known format (JPEG",
        "the JPEG file ends before the image does",
        "the file is gone",
        "not a regular file",
    ]
    assert calls == [(done, 10) for done in range(1, 11)]


def test_a_class_of_which_nothing_can_be_decoded_is_an_error_with_a_reason(settings: Settings, tmp_path: Path) -> None:
    samples = write(tmp_path, per_class=3, real=plain, generated=lambda _: b"")
    with pytest.raises(SourceError, match=r"0 of the generated images.*the file is empty"):
        audit(samples, settings)


@pytest.mark.parametrize("quality", [20, 50, 75, 90, 95])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(quality: int) -> None:
    assert measured(encode(draw(0), ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality))["jpeg_quality"] == pytest.approx(
        quality, abs=1
    )


def test_the_tables_and_the_sampling_of_jpegs_are_told_apart() -> None:
    half, full = (
        measured(encode(draw(0), ".jpg", cv2.IMWRITE_JPEG_SAMPLING_FACTOR, factor))
        for factor in (cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)
    )
    assert (half["jpeg_sampling"], full["jpeg_sampling"]) == ("2x2 1x1 1x1", "1x1 1x1 1x1")
    assert half["jpeg_tables"] == full["jpeg_tables"]
    coarse = measured(encode(draw(0), ".jpg", cv2.IMWRITE_JPEG_QUALITY, 30))
    assert coarse["jpeg_tables"] != full["jpeg_tables"]


def test_a_png_has_no_properties_of_a_jpeg() -> None:
    found = measured(encode(draw(0), ".png"))
    assert (found["format"], found["jpeg_tables"], found["jpeg_sampling"]) == ("PNG", None, None)
    assert isnan(float(found["jpeg_quality"] or 0))


def test_exif_is_noticed() -> None:
    content = plain(0)
    block = b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"
    with_exif = content[:2] + b"\xff\xe1" + (len(block) + 2).to_bytes(2, "big") + block + content[2:]
    assert (measured(content)["exif"], measured(with_exif)["exif"]) == (0, 1)


def test_sizes_colours_and_light_are_in_pixels_and_of_255() -> None:
    found = measured(encode(np.full((40, 60, 3), (0, 0, 200), np.uint8), ".png"))
    assert (found["width"], found["height"], found["aspect"]) == (60, 40, 1.5)
    assert (found["red"], found["green"], found["blue"], found["saturation"]) == (200, 0, 0, 255)
    assert found["brightness"] == pytest.approx(0.299 * 200, abs=0.5)
    assert (found["contrast"], found["sharpness"]) == (0, 0)


def test_sharpness_is_the_mean_second_difference_at_the_networks_size() -> None:
    stripes = np.zeros((224, 224, 3), np.uint8)
    stripes[:, ::2] = 10  # along a row 10, 0, 10, 0: each second difference is 20; along a column 0
    assert measured(encode(stripes, ".png"))["sharpness"] == pytest.approx(10)


def test_a_black_border_is_measured_in_shares_of_the_border() -> None:
    image = np.full((224, 224, 3), 128, np.uint8)
    image[:8] = 0
    assert measured(encode(image, ".png"))["black_border"] == pytest.approx(8 * 224 / (224**2 - 208**2))


def test_a_face_is_measured_in_shares_of_the_image() -> None:
    content = encode(np.zeros((100, 200, 3), np.uint8), ".png")
    found = measured(content, (50, -10, 150, 70))
    assert (found["face_size"], found["face_x"], found["face_y"]) == (0.8, 0.5, 0.3)
    assert isnan(float(measured(content)["face_size"] or 0))


def test_every_trait_is_measured_and_nothing_else() -> None:
    assert sorted(measured(plain(0))) == sorted(trait.name for trait in TRAITS)


def test_an_image_above_the_limit_of_pixels_is_refused() -> None:
    with pytest.raises(ImageError, match="the limit is 100"):
        measure(plain(0), None, max_pixels=100)


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["audit", *words])


@pytest.fixture
def unlike(tmp_path: Path) -> Path:
    """A data set whose generated images are PNGs."""
    folder = tmp_path / "unlike"
    for sample in write(folder, per_class=6, real=plain, generated=lambda seed: encode(draw(seed), ".png")):
        sample.path.rename(sample.path.with_suffix(".jpg"))
    return folder


def test_the_command_prints_a_table_and_what_to_do(unlike: Path) -> None:
    done = run(str(unlike))
    assert done.exit_code == 0, done.output
    (line,) = (line for line in done.stdout.splitlines() if line.strip().startswith("format"))
    assert line.split()[1:4] == ["1.000", "JPEG", "PNG"]
    assert "warning: re-encode both classes alike" in line
    assert "may be chance" in done.stderr


def test_the_command_prints_json_that_has_no_nan(unlike: Path) -> None:
    found = json.loads(run(str(unlike), "--json").stdout, parse_constant=pytest.fail)
    assert {"real", "generated", "findings", "together", "sources", "failures"} == set(found)
    assert found["sources"][0]["means"]["face_size"] is None
    assert found["findings"][0]["auc"] == 1.0


def test_the_command_fails_where_the_class_is_given_away_more_than_allowed(unlike: Path) -> None:
    done = run(str(unlike), "--fail-above", "0.75")
    assert isinstance(done.exception, FacesieveError)
    assert done.exception.exit_code == 1
    assert "AUC 1.000 is above 0.75" in str(done.exception)
    assert run(str(unlike), "--fail-above", "1").exit_code == 0


def test_names_with_control_characters_and_markup_are_printed_as_text(unlike: Path) -> None:
    evil = unlike / "real" / "[red]\x1b[2J"
    evil.mkdir()
    (evil / "no\nimage.jpg").write_bytes(b"")
    (evil / "a.jpg").write_bytes(plain(0))
    done = run(str(unlike))
    assert done.exit_code == 0, done.output
    assert "[red]\\x1b[2J" in done.stdout
    assert "no\\nimage.jpg: the file is empty" in done.stderr
    assert "\x1b[2J" not in done.output


def test_a_missing_package_is_named_with_the_line_that_installs_it(
    unlike: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "model.audit")
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    assert "pip install 'facesieve[train]'" in str(run(str(unlike)).exception)


def test_a_split_that_holds_nothing_is_an_error(unlike: Path) -> None:
    (unlike / "manifest.csv").write_text("file,label,split\na.jpg,real,train\nb.jpg,generated,train\n")
    assert isinstance(run(str(unlike), "--split", "val").exception, SourceError)
