"""The README says what the program does: settings, exit codes and statuses are all in it."""

import re
from pathlib import Path

import pytest

from core import errors
from core.settings import PREFIX, Settings
from core.verdicts import Status

README = (Path(__file__).parents[2] / "README.md").read_text()


def table_keys(heading: str) -> list[str]:
    """The first column of the first table below a heading."""
    below = README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [cell.strip("` ") for cell in re.findall(r"^\|([^|]+)\|", below, re.MULTILINE)][2:]


def test_every_setting_is_in_the_readme_and_nothing_else() -> None:
    assert sorted(table_keys("Settings")) == sorted(PREFIX + name.upper() for name in Settings.model_fields)


@pytest.mark.parametrize("name", [name for name in Settings.model_fields if name not in ("data_dir", "database_url")])
def test_the_default_of_a_setting_is_the_one_in_the_readme(name: str) -> None:
    default = Settings.model_fields[name].default
    shown = (
        ":".join(map(str, default))
        if isinstance(default, tuple)
        else f"{default:g}"
        if isinstance(default, float)
        else default
    )
    assert re.search(rf"^\| `{PREFIX}{name.upper()}` \| `?{re.escape(str(shown))}`? \|", README, re.MULTILINE)


def test_every_exit_code_is_in_the_readme() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.FacesieveError)
    ]
    assert {int(code) for code in table_keys("Exit codes")} == {kind.exit_code for kind in kinds} | {0, 130}


def test_every_status_is_in_the_readme() -> None:
    assert table_keys("Ask") == [str(status) for status in Status]
