"""Flower is open to nobody who has no password, and whoever has one gave it in a file or in the environment."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from core.errors import FacesieveError, SettingsError, UsageError
from worker.cli import app
from worker.cli_flower import CREDENTIALS, read_credentials

pytest.importorskip("flower")


def refusal(*arguments: str) -> FacesieveError:
    """Return the error that the command ends with."""
    error = CliRunner().invoke(app, ["flower", *arguments]).exception
    assert isinstance(error, FacesieveError), error
    return error


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "::", "", "10.0.0.1", "flower.example", "localhost.example", "127.1.evil"]
)
def test_an_address_that_is_open_to_others_needs_a_password(address: str) -> None:
    error = refusal("--address", address)
    assert isinstance(error, UsageError)
    assert "--auth-file" in str(error)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_the_loopback_needs_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACESIEVE_BROKER_URL", "nonsense")  # the next thing that is looked at
    assert isinstance(refusal("--address", address), SettingsError)


@pytest.mark.parametrize("text", ["eve", ":", "eve:", ":s3cret", "eve:s3c\x07ret", "eve:s3crét", "\n"])
def test_what_is_no_user_and_password_is_refused_and_not_shown(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "auth").write_text(text)
    with pytest.raises(UsageError, match="USER:PASSWORD") as from_file:
        read_credentials(tmp_path / "auth")
    monkeypatch.setenv(CREDENTIALS, text)
    with pytest.raises(SettingsError, match="USER:PASSWORD") as from_environment:
        read_credentials(None)
    assert "s3c" not in str(from_file.value) + str(from_environment.value)


def test_a_file_may_hold_several_and_wins_over_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CREDENTIALS, "mallory:other")
    (tmp_path / "auth").write_text("eve:one,two\n\n  adam:three \n")
    assert read_credentials(tmp_path / "auth") == ["eve:one,two", "adam:three"]
    assert read_credentials(None) == ["mallory:other"]


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe:\xff")
    for name in ("missing", "bytes", "."):
        with pytest.raises(UsageError, match="cannot be read"):
            read_credentials(tmp_path / name)
