"""Faces are found in frames of several people, and what is scored of a frame is its faces."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from core.errors import ModelError
from core.images import ImageRef
from core.manifest import DETECTOR
from core.settings import Settings
from core.uris import path_to_uri
from core.verdicts import Face, Outcome, Status
from db.store import Delivery
from model import faces as module
from model import mtcnn
from model.faces import MAX_SIDE, MIN_FACE, FaceDetector, cut_face
from model.predictor import load_predictor
from model.preprocess import decode, decode_whole
from tests.framed import EXAMPLES, Pasted, draw_background, draw_frame, save_frame
from worker import check
from worker.fetch import Fetched, Fetcher
from worker.runner import Runner

MAX_PIXELS = 10**8
TWO: Sequence[Pasted] = [("real-astronaut.jpg", 60, 90, 300), ("generated-03.jpg", 700, 250, 180)]


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector(threads=2)


def is_of(face: Face, pasted: Pasted) -> bool:
    """Tell whether a face is where a portrait was pasted, in its middle, and of the size that faces have in one."""
    _, x, y, side = pasted
    off_x, off_y = (
        face.x + face.width / 2 - (x + side / 2),
        face.y + face.height / 2 - (y + side / 2),
    )
    return max(abs(off_x), abs(off_y)) < 0.15 * side and 0.4 * side < max(face.width, face.height) < 0.95 * side


def assert_found(faces: Sequence[Face], pasted: Sequence[Pasted]) -> None:
    """Check that the faces are those that were pasted, the largest first."""
    assert [sum(is_of(face, portrait) for face in faces) for portrait in pasted] == [1] * len(pasted), faces
    areas = [face.width * face.height for face in faces]
    assert len(faces) == len(pasted)
    assert areas == sorted(areas, reverse=True)


def ref_of(path: Path) -> ImageRef:
    return ImageRef(path_to_uri(str(path)), "1-1", path.stat().st_size)


def fetch(path: Path, settings: Settings, detector: FaceDetector | None, preset: str = "rgb-scaled") -> object:
    fetcher, ref = Fetcher(settings, preset), ref_of(path)
    with fetcher.job([ref], detector):
        return fetcher(ref)


@pytest.mark.parametrize(
    ("size", "pasted"),
    [
        ((1200, 700), TWO),
        ((1600, 1200), [("real-grace-hopper.jpg", 100, 60, 1000), ("generated-07.jpg", 1300, 900, 110)]),
        ((600, 800), [("generated-01.jpg", 20, 20, 90), ("generated-02.jpg", 300, 400, 250)]),
        ((4000, 3000), [("generated-05.jpg", 200, 300, 900), ("real-astronaut.jpg", 3000, 2200, 400)]),
        ((300, 300), [("generated-09.jpg", 0, 0, 300)]),
        ((256, 256), [("real-astronaut.jpg", 0, 0, 256)]),
    ],
)
def test_faces_of_any_size_are_found_where_they_are_the_largest_first(
    size: tuple[int, int], pasted: Sequence[Pasted], detector: FaceDetector
) -> None:
    assert_found(detector.find(draw_frame(*size, pasted)), pasted)


def test_everybody_in_a_group_is_found(detector: FaceDetector) -> None:
    names = [f"generated-{number:02}.jpg" for number in range(1, 13)]
    group = [(name, 30 + 250 * (i % 4), 30 + 250 * (i // 4), 150 + 5 * i) for i, name in enumerate(names)]
    assert_found(detector.find(draw_frame(1050, 800, group)), group)


@pytest.mark.parametrize("size", [(1200, 700), (256, 256), (2500, 1800)])
def test_nothing_is_found_where_nobody_is(size: tuple[int, int], detector: FaceDetector) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8)
    text = draw_background(*size)
    cv2.putText(text, "no face here :-)", (20, size[1] // 2), cv2.FONT_HERSHEY_SIMPLEX, 2, (0, 0, 0), 3)
    for image in (draw_background(*size), noise, text, np.zeros_like(noise), np.full_like(noise, 255)):
        assert detector.find(image) == []


def test_a_face_that_is_too_small_to_be_scored_is_not_found(detector: FaceDetector) -> None:
    small = ("real-astronaut.jpg", 200, 200, MIN_FACE)  # its face is about half of that
    assert detector.find(draw_frame(800, 600, [small])) == []


@pytest.mark.parametrize("size", [(1, 1), (MIN_FACE - 1, MIN_FACE - 1), (3000, 30), (5, 4000), (20_000, 2), (41, 40)])
def test_images_of_odd_shapes_are_searched_without_complaint(size: tuple[int, int], detector: FaceDetector) -> None:
    assert detector.find(draw_background(*size)) == []


def test_a_face_at_the_edge_has_a_box_within_the_image(detector: FaceDetector) -> None:
    frame = draw_frame(700, 500, [("real-astronaut.jpg", 0, 0, 400)])[60:, 110:]
    (face,) = detector.find(np.ascontiguousarray(frame))
    assert face.x >= 0
    assert face.y >= 0
    assert face.x + face.width <= 590
    assert face.y + face.height <= 440


def test_only_the_largest_faces_are_taken(detector: FaceDetector, monkeypatch: pytest.MonkeyPatch) -> None:
    third = ("generated-04.jpg", 950, 20, 120)
    monkeypatch.setattr(module, "MOST_FACES", 2)
    assert_found(detector.find(draw_frame(1200, 700, [*TWO, third])), TWO)


def test_a_large_image_is_reduced_first_and_its_boxes_are_in_its_own_pixels(detector: FaceDetector) -> None:
    large = [(name, 3 * x, 3 * y, 3 * side) for name, x, y, side in TWO]
    width = 3 * 1200
    assert width > MAX_SIDE
    assert_found(detector.find(draw_frame(width, 3 * 700, large)), large)


def test_many_threads_find_what_one_finds(detector: FaceDetector) -> None:
    frames = [draw_frame(900 + 10 * i, 700, [(f"generated-{i + 1:02}.jpg", 40 * i, 30, 250)]) for i in range(8)]
    alone = [detector.find(frame) for frame in frames]
    assert all(alone)
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(detector.find, frames * 4)) == alone * 4


def test_without_its_package_the_detector_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtcnn, "find_spec", lambda _: None)
    with pytest.raises(ModelError, match=r"is not installed: pip install 'facesieve\[faces\]'"):
        FaceDetector(threads=1)


def test_a_check_of_a_worker_tells_whether_it_can_find_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check._check_faces() == f"can be found, by {DETECTOR}"
    monkeypatch.setattr(mtcnn, "find_spec", lambda _: None)
    assert "pip install 'facesieve[faces]'" in check._check_faces()


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04other weights"])
def test_other_weights_are_neither_used_nor_unpickled(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mtcnn" / "assets" / "weights").mkdir(parents=True)
    (tmp_path / "mtcnn" / "__init__.py").write_text("raise AssertionError('it is never imported')")
    if content is not None:
        (tmp_path / "mtcnn" / "assets" / "weights" / "pnet.lz4").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match=r"pnet\.lz4 .*: pip install 'facesieve\[faces\]'"):
        FaceDetector(threads=1)


@pytest.mark.parametrize("preset", ["card", "rgb-area", "rgb-scaled"])
def test_a_frame_is_fetched_as_the_squares_around_its_faces(
    preset: str, tmp_path: Path, settings: Settings, detector: FaceDetector
) -> None:
    path = save_frame(tmp_path / "two.jpg", draw_frame(1200, 700, TWO))

    found = fetch(path, settings, detector, preset)

    assert isinstance(found, Fetched)
    assert_found(found.faces, TWO)
    assert (found.width, found.height) == (1200, 700)
    whole = decode_whole(path.read_bytes(), preset, max_pixels=MAX_PIXELS)
    for crop, face in zip(found.crops, found.faces, strict=True):
        assert np.array_equal(crop, cut_face(whole, face, preset))


@pytest.mark.parametrize("preset", ["card", "rgb-area", "rgb-scaled"])
def test_without_a_detector_the_whole_image_is_fetched_as_ever(preset: str, tmp_path: Path, settings: Settings) -> None:
    path = save_frame(tmp_path / "two.jpg", draw_frame(1200, 700, TWO))

    found = fetch(path, settings, None, preset)

    assert isinstance(found, Fetched)
    assert found.faces == ()
    (pixels,) = found.crops
    assert np.array_equal(pixels, decode(path.read_bytes(), preset, max_pixels=MAX_PIXELS).pixels)


def test_a_fetcher_forgets_the_detector_of_the_job_before(
    tmp_path: Path, settings: Settings, detector: FaceDetector
) -> None:
    path = save_frame(tmp_path / "nobody.jpg", draw_background(640, 480))
    fetcher, ref = Fetcher(settings, "rgb-scaled"), ref_of(path)
    with fetcher.job([ref], detector):
        assert isinstance(fetcher(ref), Outcome)
    with fetcher.job([ref]):
        assert isinstance(fetcher(ref), Fetched)


def test_an_image_without_a_face_has_a_status_of_its_own_and_all_else_is_known(
    tmp_path: Path, settings: Settings, detector: FaceDetector
) -> None:
    path = save_frame(tmp_path / "nobody.jpg", draw_background(640, 480))
    whole = fetch(path, settings, None)

    found = fetch(path, settings, detector)

    assert isinstance(found, Outcome)
    assert isinstance(whole, Fetched)
    assert (found.status, found.p_real, found.faces) == (Status.NO_FACE, None, ())
    assert found.reason
    assert (found.digest, found.width, found.height, found.phash) == (whole.digest, 640, 480, whole.phash)


@pytest.mark.parametrize(
    ("name", "status"), [("corrupt.jpg", Status.TRUNCATED), ("not-an-image.jpg", Status.UNSUPPORTED)]
)
def test_what_cannot_be_decoded_fails_as_it_does_without_a_detector(
    name: str, status: Status, settings: Settings, detector: FaceDetector
) -> None:
    found = fetch(EXAMPLES / name, settings, detector)
    assert isinstance(found, Outcome)
    assert found.status is status
    assert found == fetch(EXAMPLES / name, settings, None)


def test_boxes_are_in_pixels_of_the_image_as_its_orientation_shows_it(
    tmp_path: Path, settings: Settings, detector: FaceDetector
) -> None:
    frame = draw_frame(1200, 700, TWO)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise
    lying = Image.fromarray(np.ascontiguousarray(np.rot90(frame)))
    lying.save(tmp_path / "lying.jpg", quality=95, exif=exif)

    found = fetch(tmp_path / "lying.jpg", settings, detector)

    assert isinstance(found, Fetched)
    assert (found.width, found.height) == (1200, 700)
    assert_found(found.faces, TWO)


@pytest.mark.tensorflow
def test_the_verdict_of_a_frame_is_that_of_its_most_generated_face(
    tmp_path: Path, settings: Settings, detector: FaceDetector, tiny_folder: Path
) -> None:
    predictor = load_predictor(tiny_folder, engine="tensorflow", precision="float32", batch_size=4)
    paths = [
        save_frame(tmp_path / "two.jpg", draw_frame(1200, 700, TWO)),
        save_frame(tmp_path / "nobody.jpg", draw_background(640, 480)),
        save_frame(tmp_path / "one.jpg", draw_frame(500, 500, [("generated-06.jpg", 100, 100, 300)])),
    ]
    fetcher = Fetcher(settings, predictor.manifest.preprocess)
    refs = [ref_of(path) for path in paths]
    with fetcher.job(refs, detector):
        outcomes, _ = Runner(fetcher, predictor, threads=2).run(refs, Delivery(is_over=False), lambda _: None)

    assert [outcome.status for outcome in outcomes] == [Status.OK, Status.NO_FACE, Status.OK]
    assert [len(outcome.faces) for outcome in outcomes] == [2, 0, 1]
    for path, outcome in zip(paths, outcomes, strict=True):
        alone = [_score(predictor, path, found.face) for found in outcome.faces]
        assert [found.p_real for found in outcome.faces] == pytest.approx(alone, abs=1e-5)
        assert outcome.p_real == (min(found.p_real for found in outcome.faces) if alone else None)
    assert len({found.p_real for outcome in outcomes for found in outcome.faces}) == 3


def _score(predictor: object, path: Path, face: Face) -> float:
    preset = predictor.manifest.preprocess
    image: NDArray[np.uint8] = decode_whole(path.read_bytes(), preset, max_pixels=MAX_PIXELS)
    return float(predictor.predict(cut_face(image, face, preset)[None])[0])
