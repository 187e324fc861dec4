"""Write the pages that follow from the code: ``python docs/generate.py`` writes them, a test compares them.

The reference of the commands is what ``--help`` says, that of the settings what stands beside their defaults.
"""

import importlib
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer

from core import errors, verdicts
from core import settings as settings_module
from core.settings import PREFIX, Settings
from db.describe import describe

DOCS = Path(__file__).parent
PROGRAMS = ("producer", "worker", "db", "model")

_CLI = """# Commands

What `--help` says of every command, as one page. Options of the program stand before the command, options of the
command behind it. An option wins over the environment variable of the same meaning, see [settings](settings.md). What
exit codes mean is in [codes](codes.md).

This page is made from the code: `make docs`.
"""
_SETTINGS = """# Settings

Each setting is an environment variable. A variable that begins with `FACESIEVE_` and is not in this table is an error,
so that a slip of the pen is noticed. `--data-dir`, `--database` and `--broker`, before the command, win over three of
them. All machines of one installation must agree on the broker, the database and the model.

| variable | default | values | meaning |
| --- | --- | --- | --- |
"""
_SETTINGS_END = """
`FACESIEVE_SECRETS_DIR` names a folder of files such as `facesieve_broker_url`, each the value of a setting, as Docker
and Kubernetes mount secrets. A variable wins over such a file.

What opens buckets (`AWS_*`, `GOOGLE_*`, `AZURE_*`) is read by producers and workers alike, see
[buckets, the web and archives](../how-to/buckets.md).

This page is made from `core/settings.py`: `make docs`.
"""
_CODES = """# Exit codes and statuses

What a command says with its exit code. A mistake is one line on stderr that names the value and the fix.

| code | meaning |
| --- | --- |
"""
_STATUSES = """
What becomes of an image, in the column `status` of every answer. `ok` and `no_face` are answers, the others are
failures by name; the reason of each stands beside it.

| status | meaning |
| --- | --- |
"""
_CODES_END = """
This page is made from `core/errors.py` and `core/verdicts.py`: `make docs`.
"""


def commands() -> str:
    """Return the reference of all commands as Markdown."""
    sections = [line for program in PROGRAMS for line in _program(program)]
    return "\n".join([_CLI, *sections])


def settings() -> str:
    """Return the reference of all settings as Markdown."""
    comments = _comments()
    rows = [
        f"| `{PREFIX}{name.upper()}` | {_default(name)} | {_values(name)} | {_escaped(comments[name])} |"
        for name in Settings.model_fields
    ]
    return _SETTINGS + "\n".join(rows) + "\n" + _SETTINGS_END


def codes() -> str:
    """Return the exit codes and the statuses as Markdown."""
    tree = re.findall(r"^ {4}(?:[├└]── )?\w+Error +(\d+)   (.+)$", errors.__doc__ or "", re.MULTILINE)
    rows = [("0", "done; images that failed by name are results"), *tree, ("130", "interrupted: Ctrl+C or SIGTERM")]
    found = re.findall(r'^ {4}[A-Z_]+ = "(\w+)"  # (.+)$', inspect.getsource(verdicts.Status), re.MULTILINE)
    return (
        _CODES
        + "".join(f"| {code} | {_escaped(meaning)} |\n" for code, meaning in rows)
        + _STATUSES
        + "".join(f"| `{status}` | {_escaped(meaning)} |\n" for status, meaning in found)
        + _CODES_END
    )


#: The generated pages, by their paths below docs/.
PAGES: dict[str, Callable[[], str]] = {
    "schema.md": describe,
    "reference/cli.md": commands,
    "reference/settings.md": settings,
    "reference/codes.md": codes,
}


def _program(name: str) -> Iterator[str]:
    group: Any = typer.main.get_command(importlib.import_module(f"{name}.cli").app)
    context = group.make_context(name, [], resilient_parsing=True)
    yield f"## {name}\n\n{_escaped(group.help)}\n"
    yield from _options(group, context)
    yield from _group(group, context)


def _group(group: Any, parent: Any) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        context = command.make_context(name, [], parent=parent, resilient_parsing=True)
        if hasattr(command, "commands"):
            yield f"### {context.command_path}\n\n{_escaped(command.help or '')}\n"
            yield from _group(command, context)
        else:
            yield from _command(command, context)


def _command(command: Any, context: Any) -> Iterator[str]:
    text, _, examples = inspect.cleandoc(command.help or "").partition("Example")
    yield f"### {context.command_path}\n"
    yield f"{_escaped(text.strip())}\n"
    arguments = [_argument(one) for one in command.params if one.param_type_name == "argument"]
    yield f"`{' '.join([context.command_path, *arguments, '[OPTIONS]'])}`\n"
    yield from _options(command, context)
    lines = [line.strip() for line in examples.partition(":")[2].splitlines() if line.strip()]
    yield "\n".join(["```bash", *lines, "```\n"])


def _argument(argument: Any) -> str:
    name = argument.metavar or argument.name.upper()
    return name if argument.required else f"[{name}]"


def _options(command: Any, context: Any) -> Iterator[str]:
    yield "| option | meaning |"
    yield "| --- | --- |"
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is None:  # hidden
            continue
        name, meaning = record
        if parameter.param_type_name == "argument":
            name = _argument(parameter)
        name = name.replace(" range>", ">").replace("<list[str]>", "<str>")
        meaning = re.sub(r"\s*\[([^\[\]]*)\]$", r" (\1)", meaning)  # the default, and what is allowed
        yield f"| `{_cell(name)}` | {_escaped(meaning.strip())} |"
    yield ""


def _comments() -> dict[str, str]:
    """Return what stands above each setting in the source, as one line."""
    found, lines = {}, []
    for line in inspect.getsource(settings_module.Settings).splitlines():
        if line.startswith("    #: "):
            lines.append(line.removeprefix("    #: "))
        elif lines:
            found[line.strip().partition(":")[0]] = " ".join(lines).replace("``", "`")
            lines = []
    return found


def _default(name: str) -> str:
    field = Settings.model_fields[name]
    if field.default_factory is not None:  # only the data directory: it differs from user to user
        return "`~/.local/share/facesieve`"
    default = ":".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    default = f"{default:g}" if isinstance(default, float) else default
    return f"`{default}`" if str(default) else "empty"


def _values(name: str) -> str:
    field = Settings.model_fields[name]
    if typing.get_origin(field.annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in typing.get_args(field.annotation))
    bounds = [
        f"{word} {getattr(bound, key):,}"
        for bound in field.metadata
        for key, word in (("ge", "from"), ("gt", "above"), ("le", "to"), ("lt", "below"))
        if hasattr(bound, key)
    ]
    return " ".join(bounds)


def _escaped(text: str) -> str:
    """Escape what Markdown would take for its own, but for code spans."""
    parts = re.split(r"(`+[^`]+`+)", text.replace("\\[", "["))  # which is escaped for Rich
    return "".join(
        _cell(part) if index % 2 else re.sub(r"([*<|\[\]])", r"\\\1", part) for index, part in enumerate(parts)
    )


def _cell(code: str) -> str:
    return code.replace("|", "\\|")


if __name__ == "__main__":
    for page, make in PAGES.items():
        path = DOCS / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make())
