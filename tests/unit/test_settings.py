"""Settings: where they come from, and what is said when they are wrong."""

from pathlib import Path

import pytest

from core.errors import SettingsError
from core.settings import Settings, load_settings, make_data_dir, redact


def test_a_variable_in_the_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACESIEVE_JOB_SIZE", "17")
    assert load_settings().job_size == 17


def test_an_override_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACESIEVE_JOB_SIZE", "17")
    assert load_settings(job_size=18).job_size == 18


def test_an_override_of_none_leaves_the_environment_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACESIEVE_JOB_SIZE", "17")
    assert load_settings(job_size=None).job_size == 17


@pytest.mark.parametrize("name", ["FACESIEVE_JOBSIZE", "facesieve_jobsize"])
def test_an_unknown_variable_is_an_error_that_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "17")
    with pytest.raises(SettingsError, match=f"{name}.*FACESIEVE_JOB_SIZE"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FACESIEVE_JOB_SIZE", "many"),
        ("FACESIEVE_JOB_SIZE", "0"),
        ("FACESIEVE_BATCH_SIZE", "-1"),
        ("FACESIEVE_MAX_PIXELS", "1e999"),
        ("FACESIEVE_DRAIN_SECONDS", "-0.1"),
        ("FACESIEVE_ROOTS", ""),
        ("FACESIEVE_ROOTS", ":"),
    ],
)
def test_a_wrong_value_is_one_line_that_names_the_variable(
    name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_cannot_be_changed(settings: Settings) -> None:
    with pytest.raises(ValueError, match="frozen"):
        settings.job_size = 1  # type: ignore[misc]


def test_urls_stay_out_of_the_representation() -> None:
    settings = load_settings(broker_url="redis://:hush@host", database_url="postgresql://me:hush@host/db")
    assert "hush" not in repr(settings)


def test_roots_are_split_at_colons(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FACESIEVE_ROOTS", f"{tmp_path}/one:{tmp_path}/two")
    assert load_settings().roots == (tmp_path / "one", tmp_path / "two")


def test_a_relative_root_is_below_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FACESIEVE_ROOTS", "faces/../photos")
    assert load_settings().roots == (tmp_path / "photos",)


def test_a_root_that_is_a_link_counts_by_its_name_and_by_its_target(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "target").mkdir()
    (tmp_path / "link").symlink_to("target")
    monkeypatch.setenv("FACESIEVE_ROOTS", str(tmp_path / "link"))
    assert load_settings().roots == (tmp_path / "link", tmp_path / "target")


def test_without_a_database_url_results_are_in_the_data_directory(settings: Settings) -> None:
    assert settings.sql_url == f"sqlite:///{settings.data_dir}/facesieve.db"
    assert settings.is_broker_embedded


def test_the_data_directory_is_made_for_its_owner_alone(settings: Settings) -> None:
    folder = make_data_dir(settings)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []


def test_a_data_directory_that_cannot_be_made_is_an_error_that_names_the_variable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match=r"file/data is not writable .*FACESIEVE_DATA_DIR"):
        make_data_dir(load_settings(data_dir=tmp_path / "file" / "data"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hush@host:6379/0", "redis://:***@host:6379/0"),
        ("redis://me:hush@host", "redis://me:***@host"),
        ("redis://me:hu@sh@host", "redis://me:***@host"),
        ("redis://me:hu:sh@host", "redis://me:***@host"),
        ("redis://me:hu/sh@host", "redis://me:***@host"),
        ("redis://me:hu?sh#@host", "redis://me:***@host"),
        ("postgresql+psycopg://me:@hush@host/db", "postgresql+psycopg://me:***@host/db"),
        ("redis://host:6379/0", "redis://host:6379/0"),
        ("sqlite:////data/facesieve.db", "sqlite:////data/facesieve.db"),
        ("embedded", "embedded"),
    ],
)
def test_a_password_is_redacted_and_nothing_else(url: str, shown: str) -> None:
    assert redact(url) == shown


@pytest.mark.parametrize(
    "url",
    ["redis://host/0?password=hush", "postgresql://host/db?user=me&password=hush", "redis://host?password=hush&db=1"],
)
def test_a_password_among_the_parameters_of_a_url_is_redacted(url: str) -> None:
    assert "hush" not in redact(url)


def test_secrets_are_read_from_files_and_the_environment_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "facesieve_broker_url").write_text("redis://:hush@host/0\n")
    (tmp_path / "facesieve_database_url").write_text("postgresql://me:hush@host/db\n")
    (tmp_path / "facesieve_signing_key").write_text(f"{'k' * 32},\n {'o' * 32}\n")
    (tmp_path / "another_programs_secret").write_text("x")
    monkeypatch.setenv("FACESIEVE_SECRETS_DIR", str(tmp_path))
    monkeypatch.setenv("facesieve_database_url", "sqlite:///mine")

    settings = load_settings()
    assert settings.broker_url == "redis://:hush@host/0"
    assert settings.database_url == "sqlite:///mine"
    assert settings.signing_keys == ("k" * 32, "o" * 32)
    assert load_settings(broker_url="embedded").is_broker_embedded


def test_a_folder_of_secrets_as_kubernetes_mounts_it_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "..2025").mkdir()
    (tmp_path / "..2025" / "facesieve_broker_url").write_text("redis://host/0")
    (tmp_path / "..data").symlink_to("..2025")
    (tmp_path / "facesieve_broker_url").symlink_to("..data/facesieve_broker_url")
    monkeypatch.setenv("FACESIEVE_SECRETS_DIR", str(tmp_path))
    assert load_settings().broker_url == "redis://host/0"


def test_secrets_that_cannot_be_read_are_one_line_that_names_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FACESIEVE_SECRETS_DIR", str(tmp_path / "absent"))
    with pytest.raises(SettingsError, match=r"FACESIEVE_SECRETS_DIR: .*absent cannot be read"):
        load_settings()
    monkeypatch.setenv("FACESIEVE_SECRETS_DIR", str(tmp_path))
    (tmp_path / "facesieve_broker_url").mkdir()
    with pytest.raises(SettingsError, match="facesieve_broker_url cannot be read"):
        load_settings()
    (tmp_path / "facesieve_broker_url").rmdir()
    (tmp_path / "facesieve_signing_key").write_bytes(b"hush\xff")
    with pytest.raises(SettingsError, match="facesieve_signing_key is not UTF-8"):
        load_settings()
    (tmp_path / "facesieve_signing_key").rename(tmp_path / "facesieve_singing_key")
    with pytest.raises(SettingsError, match=r"'facesieve_singing_key'.*named like no setting"):
        load_settings()


@pytest.mark.parametrize(
    "key", ["hush", "hush," + "k" * 32, "k" * 32 + ",hush", "k" * 32 + ",", ",", "hush" * 7 + " " * 9]
)
def test_a_key_that_could_be_guessed_is_refused_and_not_shown(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FACESIEVE_SIGNING_KEY", key)
    with pytest.raises(SettingsError, match=r"FACESIEVE_SIGNING_KEY cannot be used: .* 32 characters") as caught:
        load_settings()
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_without_a_key_messages_are_not_signed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().signing_keys == ()
    monkeypatch.setenv("FACESIEVE_SIGNING_KEY", "")
    assert load_settings().signing_keys == ()


def test_another_process_gets_the_same_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "facesieve_signing_key").write_text("k" * 32)
    monkeypatch.setenv("FACESIEVE_SECRETS_DIR", str(tmp_path))
    settings = load_settings(broker_url="redis://:hush@host")
    assert "k" * 32 not in repr(settings)
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert load_settings() == settings


def test_a_password_with_a_line_break_is_redacted() -> None:
    assert "hush" not in redact("redis://me:hu\nhush@host/0")
