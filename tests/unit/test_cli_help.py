"""Every command explains itself, and the exit codes are the documented ones."""

import importlib
import re

import pytest
import typer

from core import errors

PROGRAMS = ("producer", "worker", "db", "model")
DOCUMENTED = re.compile(r"^\s*[│├└─ ]*(?P<name>[A-Z]\w+Error) +(?P<code>\d+)? +\S")


def commands_of(program: str) -> dict[str, str]:
    """Return the help of each command of a program, by its name."""
    app = importlib.import_module(f"{program}.cli").app
    group = typer.main.get_command(app)
    return {name: command.help or "" for name, command in group.commands.items()}  # type: ignore[attr-defined]


def documented_errors() -> dict[str, int | None]:
    """Return the exit code beside each exception in the tree that the module draws."""
    found = (DOCUMENTED.match(line) for line in (errors.__doc__ or "").splitlines())
    return {match["name"]: int(match["code"]) if match["code"] else None for match in found if match}


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_command_has_help_with_an_example_of_itself(program: str) -> None:
    commands = commands_of(program)
    assert commands
    without = [name for name, text in commands.items() if not re.search(rf"Examples?:\s.*\b{program} ", text, re.S)]
    assert without == []


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_example_names_the_command_that_it_stands_under(program: str) -> None:
    for name, text in commands_of(program).items():
        examples = re.findall(rf"^ *({program} .*)$", text.partition("Example")[2], re.M)
        assert examples
        assert [line for line in examples if name not in line.split()] == []


def test_every_exception_is_documented_with_its_exit_code() -> None:
    defined = {
        name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
    }
    documented = documented_errors()
    assert documented.keys() == defined.keys()
    for name, code in documented.items():
        assert defined[name].exit_code == (code or errors.FacesieveError.exit_code), name


def test_the_tree_is_drawn_as_it_is() -> None:
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if match := DOCUMENTED.match(line):
            depth = (match.start("name") - 4) // 4
            parents[depth:] = [match["name"]]
            parent = parents[depth - 1] if depth else "Exception"
            assert getattr(errors, match["name"]).__base__.__name__ == parent
    assert parents[0] == "FacesieveError"
