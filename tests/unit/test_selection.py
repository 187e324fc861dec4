"""Which images are wanted."""

from math import sqrt

import pytest

from core.images import ImageRef
from core.selection import Selection


def image(size: int = 100, uri: str = "/faces/a.jpg") -> ImageRef:
    return ImageRef(uri, "1", size)


@pytest.mark.parametrize(("size", "is_taken"), [(99, False), (100, True), (200, True), (201, False)])
def test_both_ends_of_a_range_of_sizes_are_in_it(size: int, is_taken: bool) -> None:
    assert Selection(min_bytes=100, max_bytes=200).takes(image(size), 1.0) is is_taken


@pytest.mark.parametrize(("modified", "is_taken"), [(99.9, False), (100.0, True), (199.9, True), (200.0, False)])
def test_a_range_of_times_has_its_beginning_but_not_its_end(modified: float, is_taken: bool) -> None:
    assert Selection(newer_than=100, older_than=200).takes(image(), modified) is is_taken


def test_a_limit_of_zero_bytes_is_a_limit() -> None:
    assert Selection(max_bytes=0).takes(image(0), 1.0)
    assert not Selection(max_bytes=0).takes(image(1), 1.0)


def test_an_empty_file_is_smaller_than_a_limit_but_an_unknown_size_is_not() -> None:
    assert not Selection(min_bytes=1).takes(image(0), 1.0)
    assert Selection(min_bytes=1).takes(image(0), None)


def test_a_known_size_counts_where_the_time_is_not_known() -> None:
    assert not Selection(min_bytes=101).takes(image(100), None)
    assert Selection(newer_than=1e9).takes(image(100), None)


@pytest.mark.parametrize(
    ("path", "options", "is_taken"),
    [
        ("a.dat", {}, True),
        ("a.dat", {"exclude": ["*.jpg"]}, True),
        ("a.jpg", {"exclude": ["*.jpg"]}, False),
        ("a.dat", {"include": ["*.jpg"]}, False),
        ("s3://b/x/a.jpg", {"include": ["*/x/*"]}, True),
        ("s3://b/a.tar#x/1.jpg", {"include": ["*.jpg"]}, True),
    ],
    ids=str,
)
def test_a_name_on_a_list_needs_no_suffix_but_must_pass_the_globs(
    path: str, options: dict[str, list[str]], is_taken: bool
) -> None:
    assert Selection(**options).takes_name(path, is_explicit=True) is is_taken


def sample(share: float, number: int = 20_000) -> set[int]:
    """Return which of so many images are in a sample."""
    wanted = Selection(sample=share)
    return {index for index in range(number) if wanted.takes(image(uri=f"s3://faces/{index}.jpg"), None)}


def test_a_sample_has_about_its_share_of_the_images() -> None:
    # Five standard deviations; the names are fixed, so this never fails by chance.
    assert abs(len(sample(0.1)) - 2000) < 5 * sqrt(20_000 * 0.1 * 0.9)


def test_a_sample_is_the_same_every_time_and_in_every_larger_one() -> None:
    assert sample(0.01) == sample(0.01)
    assert sample(0.01) < sample(0.1) < sample(1.0) == set(range(20_000))


def test_the_keys_of_a_sample_are_spread_like_those_of_all_images() -> None:
    """The database estimates by the beginnings of keys: a sample by these would be taken for all images."""
    keys = [image(uri=f"s3://faces/{index}.jpg").id[0] for index in sample(0.1)]
    assert abs(sum(key < 128 for key in keys) - len(keys) / 2) < 5 * sqrt(len(keys) / 4)
