"""Random views of images."""

import numpy as np
import pytest

from model.augment import augment
from model.preprocess import SIDE, resize

_CHANCE = np.random.default_rng(0)
IMAGE = _CHANCE.integers(0, 256, (190, 240, 3), dtype=np.uint8)
BOXES = [None, (60.0, 40.0, 180.0, 160.0), (-20.0, -30.0, 300.0, 260.0), (235.0, 185.0, 239.0, 189.0)]


@pytest.mark.parametrize("recipe", ["default", "card", "none"])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize("shape", [(190, 240), (16, 16), (1, 300), (700, 500)])
def test_every_view_is_a_square_of_bytes(recipe: str, box: tuple[float, ...] | None, shape: tuple[int, int]) -> None:
    image = _CHANCE.integers(0, 256, (*shape, 3), dtype=np.uint8)
    for seed in range(30):
        view = augment(image, box, recipe, np.random.default_rng(seed), 64)  # type: ignore[arg-type]
        assert view.shape == (64, 64, 3)
        assert view.dtype == np.uint8


@pytest.mark.parametrize("recipe", ["default", "card"])
def test_the_same_chance_gives_the_same_view_and_another_another(recipe: str) -> None:
    first, again, other = (augment(IMAGE, BOXES[1], recipe, np.random.default_rng(seed), SIDE) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_image_itself_is_never_changed() -> None:
    before = IMAGE.copy()
    for seed in range(50):
        augment(IMAGE, BOXES[1], "default", np.random.default_rng(seed), 96)
    assert np.array_equal(IMAGE, before)


def test_without_augmentation_a_view_is_what_serving_gives() -> None:
    view = augment(IMAGE, BOXES[1], "none", np.random.default_rng(0), SIDE)
    assert np.array_equal(view, resize(IMAGE, "rgb-area"))


def test_views_show_the_face_larger_and_as_large_as_in_the_picture() -> None:
    """A white face on black: its share of the view tells how it was framed."""
    image = np.zeros((200, 200, 3), np.uint8)
    image[60:140, 60:140] = 255
    shares = [
        float((augment(image, (60, 60, 140, 140), "default", np.random.default_rng(seed), 100) > 128).mean())
        for seed in range(300)
    ]
    assert np.quantile(shares, 0.1) < 0.25  # about the picture's own 0.16
    assert np.quantile(shares, 0.9) > 0.5


def test_both_classes_lose_their_sharpness_alike() -> None:
    """The views of a sharp and of a soft image overlap in sharpness, so that it tells less than in the pictures."""
    soft = resize(resize(IMAGE, "rgb-area", 60), "rgb-area", 200)

    def sharpness(image: np.ndarray) -> float:
        return float(np.abs(np.diff(image.astype(int), 2, axis=0)).mean())

    views = [
        sorted(sharpness(augment(one, None, "default", np.random.default_rng(seed), SIDE)) for seed in range(100))
        for one in (soft, IMAGE)
    ]
    assert sharpness(soft) < sharpness(IMAGE) / 2
    assert views[0][90] > views[1][10]


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ValueError, match="'wild'"):
        augment(IMAGE, None, "wild", np.random.default_rng(0), SIDE)
