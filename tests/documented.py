"""What the pages of the project say: their commands, links and names, taken out of the Markdown."""

import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).parents[1]
#: All but the changelog, which tells of what there was, too.
PAGES = sorted(
    [
        *{*ROOT.glob("*.md")} - {ROOT / "CHANGELOG.md"},
        *(ROOT / "examples").glob("*.md"),
        *(ROOT / "benchmarks").glob("*.md"),
    ]
    + [page for folder in ("docs", "deploy", "model/artifacts") for page in (ROOT / folder).rglob("*.md")]
)
PROGRAMS = ("producer", "worker", "db", "model")
SHELL = ("bash", "sh", "shell", "console")
#: What may stand before a command of ours in a line: its own words are not looked at.
WRAPPERS = ("docker", "kubectl", "srun", "sudo", "nohup", "time", "xargs", "watch", "exec", "env", "flock")
_BLOCK = re.compile(
    r"(?:^ *<!-- parsed only: (?P<reason>[^\n]+) -->\n)?^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_REDIRECTION = re.compile(r"[<>]+&?")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: that it stands on.
        language: behind the fence; may be empty.
        text: between the fences.
        reason: why its commands are parsed and not run; empty if they are run.
    """

    page: Path
    language: str
    text: str
    reason: str

    @property
    def script(self) -> str:
        """What a shell would run: of a ``console`` block, what stands behind the prompts."""
        if self.language != "console":
            return self.text
        return "".join(line.removeprefix("$ ") for line in self.text.splitlines(keepends=True) if line.startswith("$ "))


def name_of(page: Path) -> str:
    """Return a page's path below the project's root."""
    return str(page.relative_to(ROOT))


def blocks_of(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    return [
        Block(page, found["language"], found["text"], found["reason"] or "")
        for found in _BLOCK.finditer(page.read_text())
    ]


def prose_of(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text())


def indented_of(page: Path) -> str:
    """Return the indented lines of a page that are commands of ours."""
    return "\n".join(re.findall(rf"^ {{4}}((?:{'|'.join(PROGRAMS)}) .*)$", prose_of(page), re.MULTILINE))


def spans_of(page: Path) -> list[str]:
    """Return the code within the lines of a page, with its line breaks as blanks."""
    return [" ".join(span.split()) for span in re.findall(r"(?<!`)`([^`]+)`(?!`)", prose_of(page))]


def commands_in(script: str) -> Iterator[list[str]]:
    """Take a shell script apart into simple commands: their words, without redirections and comments."""
    script = re.sub(r"(^|\s)#.*$", r"\1", script.replace("\\\n", " "), flags=re.MULTILINE)
    script = re.sub(r"\s\d>(&\d|\s*\S+)", " ", script)  # or the number would be a word
    lexer = shlex.shlex(script, posix=True, punctuation_chars=";&|()<>\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    words: list[str] = []
    is_target = False
    for token in lexer:
        if is_target:
            is_target = False
        elif _REDIRECTION.fullmatch(token):
            is_target = True
        elif set(token) <= set(";&|()<>\n"):
            if words:
                yield words
            words = []
        else:
            words.append(token)
    if words:
        yield words


def own_words(words: list[str]) -> list[str]:
    """Return a command of ours, its program first, without what stands before it; empty if it is another one's."""
    while words and re.fullmatch(r"\w+=.*", words[0], re.DOTALL):
        words = words[1:]
    if not words:
        return []
    if words[0].rpartition("/")[2] in PROGRAMS:
        return [words[0].rpartition("/")[2], *words[1:]]
    if words[:2] in (["python", "-m"], ["python3", "-m"]) and words[2:3] and words[2] in PROGRAMS:
        return words[2:]
    if words[0] in WRAPPERS:
        for position in range(len(words) - 2, 0, -1):
            if words[position] in PROGRAMS and words[position + 1] in command_of(words[position]).commands:
                return words[position:]
    return []


@cache
def command_of(program: str) -> Any:
    """Return a program's group of commands."""
    return typer.main.get_command(importlib.import_module(f"{program}.cli").app)


def parse(words: list[str]) -> None:
    """Let the real command line take a command apart, without running it.

    Raises:
        typer.BadParameter: or another usage error of its family: the command line would refuse the command.
    """
    program, *rest = words
    command = command_of(program)
    context = None
    try:
        context = command.make_context(program, rest, resilient_parsing=False)
        while hasattr(command, "commands"):
            name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
            context = command.make_context(name, list(rest), parent=context)
    except typer.Exit:  # --help
        pass


def known_options(program: str, names: list[str]) -> set[str]:
    """Return the options of a command and of the groups above it; raises KeyError if there is no such command."""
    command = command_of(program)
    options = {"--help", "-h"}
    while True:
        options |= {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
        if not hasattr(command, "commands") or not names:
            return options
        command, names = command.commands[names[0]], names[1:]
