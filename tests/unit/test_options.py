"""Options that choose images: what they mean, and what is said of values that mean nothing."""

from datetime import datetime
from time import time

import pytest
from typer.testing import CliRunner

from core.errors import UsageError
from producer.cli import app
from producer.options import read_moment, read_selection, read_share, read_size


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("17", 17), ("10k", 10_240), ("10K", 10_240), ("5M", 5 * 2**20), ("1.5g", 3 * 2**29), (" 1T ", 2**40)],
)
def test_a_size_is_bytes_or_has_a_unit(text: str, size: int) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "10kb", "1e6", "ten", "٣", "1" * 400])
def test_what_is_no_size_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="is no size: give bytes, or a number such as 10k"):
        read_size(text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2025-01-31", datetime(2025, 1, 31).timestamp()),
        ("2025-01-31T12:30", datetime(2025, 1, 31, 12, 30).timestamp()),
        ("2025-01-31 12:30:05", datetime(2025, 1, 31, 12, 30, 5).timestamp()),
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T02:00:10+02:00", 10.0),
        ("999999999w", 0.0),
        ("0001-01-01T00:00+23:59", 0.0),
        ("9999-12-31T23:59-23:59", datetime(9999, 1, 1).timestamp()),
    ],
)
def test_a_moment_is_a_date_or_a_time(text: str, moment: float) -> None:
    assert read_moment(text) == moment


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("1.5d", 129_600), ("2w", 1_209_600)],
)
def test_a_moment_is_an_age(text: str, seconds: int) -> None:
    before = time()
    assert before - seconds <= read_moment(text) <= time() - seconds


@pytest.mark.parametrize("text", ["", "yesterday", "7", "7y", "-7d", "2025-13-01", "31.1.2025", "2025-01-31T25:00"])
def test_what_is_no_moment_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="is no moment: give a date such as 2025-01-31"):
        read_moment(text)


@pytest.mark.parametrize("text", ["0", "-0.1", "1.01", "nan", "1%", ""])
def test_what_is_no_share_is_named(text: str) -> None:
    with pytest.raises(UsageError, match="is no share: give a number above 0"):
        read_share(text)


def test_a_share_may_be_all() -> None:
    assert (read_share("0.01"), read_share("1")) == (0.01, 1.0)


def test_sizes_and_times_that_nothing_can_have_are_refused() -> None:
    with pytest.raises(UsageError, match="--min-size 2 is more than --max-size 1"):
        read_selection(min_size=2, max_size=1)
    with pytest.raises(UsageError, match=r"--newer-than 20.* is not before --older-than 20"):
        read_selection(newer_than=1.7e9, older_than=1.6e9)


def test_without_options_all_images_are_wanted() -> None:
    wanted = read_selection()
    assert (wanted.min_bytes, wanted.max_bytes, wanted.sample) == (0, None, 1.0)
    assert wanted.takes_name("a.jpg")
    assert not wanted.takes_name("a.txt")


@pytest.mark.parametrize("command", ["enqueue", "run"])
@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--min-size", "ten"], "'ten' is no size"),
        (["--max-size", "-1"], "'-1' is no size"),
        (["--newer-than", "never"], "'never' is no moment"),
        (["--older-than", "\x1b[31m"], "is no moment"),
        (["--sample", "2"], "'2' is no share"),
        (["--min-size", "2k", "--max-size", "1k"], "--min-size 2048"),
    ],
    ids=str,
)
def test_a_command_refuses_what_it_cannot_use(command: str, words: list[str], value: str) -> None:
    done = CliRunner().invoke(app, [command, ".", *words])
    assert isinstance(done.exception, UsageError)
    assert value in str(done.exception)
