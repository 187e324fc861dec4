"""What is cut out around a face for the network that scores."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.verdicts import Face
from model.faces import MARGIN, cut_face, square_around
from model.preprocess import SIDE, as_rgb, cut, resize

PRESETS = ["card", "rgb-area", "rgb-scaled"]


def face(x: int, y: int, width: int, height: int) -> Face:
    return Face(x, y, width, height, 0.99)


def noise(width: int, height: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def test_the_square_is_centred_on_the_face_and_has_a_margin_of_its_longer_side() -> None:
    left, top, side = square_around(face(400, 300, 80, 100), 1000, 800)
    assert side == round(100 * MARGIN)
    assert (left + side / 2, top + side / 2) == (440, 350)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (face(0, 0, 100, 100), (0, 0)),
        (face(900, 0, 100, 100), (1000 - 180, 0)),
        (face(0, 700, 100, 100), (0, 800 - 180)),
        (face(900, 700, 100, 100), (1000 - 180, 800 - 180)),
    ],
)
def test_a_square_that_reaches_beyond_the_image_is_moved_and_stays_as_large(
    where: Face, expected: tuple[int, int]
) -> None:
    assert square_around(where, 1000, 800) == (*expected, 180)


def test_a_face_that_fills_the_image_gets_the_largest_square_that_the_image_has() -> None:
    assert square_around(face(300, 0, 700, 800), 1000, 800) == (200, 0, 800)


@given(st.data())
def test_a_square_lies_within_the_image_and_holds_the_middle_of_the_face(data: st.DataObject) -> None:
    width, height = data.draw(st.integers(1, 3000)), data.draw(st.integers(1, 3000))
    x, y = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    where = face(x, y, data.draw(st.integers(1, width - x)), data.draw(st.integers(1, height - y)))

    left, top, side = square_around(where, width, height)

    assert side >= 1
    assert 0 <= left <= left + side <= width
    assert 0 <= top <= top + side <= height
    if side > max(where.width, where.height):
        assert left <= x + where.width / 2 <= left + side
        assert top <= y + where.height / 2 <= top + side


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("side", [50, 224, 300, 700])
def test_a_square_becomes_what_an_image_of_that_size_would_become(preset: str, side: int) -> None:
    image = noise(900, 800)
    alone = np.ascontiguousarray(image[40 : 40 + side, 150 : 150 + side])
    assert np.array_equal(cut(image, 150, 40, side, preset), resize(alone, preset))


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_scored_of_a_face_is_its_square_alone(preset: str) -> None:
    image = noise(600, 500)
    where = face(200, 150, 90, 100)
    left, top, side = square_around(where, 600, 500)
    other = np.zeros_like(image)
    other[top : top + side, left : left + side] = image[top : top + side, left : left + side]

    found = cut_face(image, where, preset)

    assert found.shape == (SIDE, SIDE, 3)
    assert found.dtype == np.uint8
    assert np.array_equal(found, cut_face(other, where, preset))


def test_the_detector_sees_red_green_and_blue_whatever_the_network_sees() -> None:
    image = noise(30, 20)
    assert np.array_equal(as_rgb(image, "card"), image[..., ::-1])
    assert as_rgb(image, "rgb-scaled") is image
