"""Fixtures for all tests: no test sees the settings or data of whoever runs it."""

import os
from collections.abc import Generator
from pathlib import Path

import pytest

from core.settings import PREFIX, Settings, load_settings

pytest_plugins = ["tests.browser", "tests.buckets", "tests.servers"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIX):
            monkeypatch.delenv(name)
    monkeypatch.setenv(f"{PREFIX}DATA_DIR", str(tmp_path / "data"))


@pytest.fixture
def settings() -> Settings:
    """Settings whose data directory is the test's own."""
    return load_settings()


@pytest.fixture
def examples() -> Path:
    """The example images that come with the project."""
    return Path(__file__).parent.parent / "examples" / "faces"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Spell out what is no UTF-8, such as names of files, in what tests print: pytest-xdist cannot hand it on."""
    report = yield
    report.sections = [(title, text.encode(errors="backslashreplace").decode()) for title, text in report.sections]
    return report


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers."""
    config.addinivalue_line("markers", "tensorflow: needs TensorFlow, and seconds")
