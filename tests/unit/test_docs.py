"""The pages say what the program does: each command parses, each name is known, each link leads somewhere."""

import re
import runpy
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core import errors
from core.settings import PREFIX, SECRETS_DIR, Settings
from core.verdicts import Status
from tests.documented import (
    PAGES,
    PROGRAMS,
    ROOT,
    SHELL,
    Block,
    blocks_of,
    command_of,
    commands_in,
    indented_of,
    known_options,
    name_of,
    own_words,
    parse,
    prose_of,
    spans_of,
)

GENERATED: dict[str, Callable[[], str]] = runpy.run_path(str(ROOT / "docs" / "generate.py"))["PAGES"]
#: Options of others that our pages name.
FOREIGN = {"--scale", "--timeout", "--gpus", "--build", "--profile", "--from-literal", "--from-file", "--index-url"}
every_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


def all_options() -> set[str]:
    """Every option of every command."""

    def below(program: str, names: list[str]) -> Iterator[str]:
        yield from known_options(program, names)
        command = command_of(program)
        for name in names:
            command = command.commands[name]
        for name in getattr(command, "commands", {}):
            yield from below(program, [*names, name])

    return {option for program in PROGRAMS for option in below(program, [])}


def names_among(program: str, words: list[str]) -> list[str]:
    """The command, and the command below it if it is a group, that words name; options may stand before them."""
    names: list[str] = []
    command = command_of(program)
    for word in words:
        if word in getattr(command, "commands", {}):
            names.append(word)
            command = command.commands[word]
    return names


def refused_in(page: Path) -> list[str]:
    """What the command line refuses of the commands in a page's blocks, each with its reason."""
    scripts = [block.script for block in blocks_of(page) if block.language in SHELL]
    refused = []
    for words in (words for script in (*scripts, indented_of(page)) for words in commands_in(script)):
        try:
            if own := own_words(words):
                parse(own)
        except Exception as error:
            refused.append(f"{' '.join(words)}: {error}")
    return refused


def unknown_in(page: Path) -> list[str]:
    """The commands in a page's text that do not exist, or have no such option; their arguments may be made up."""
    unknown = []
    for span in spans_of(page):
        program, *words = span.split()
        if program in PROGRAMS and words:
            names = names_among(program, words)
            options = {found[0] for word in words if (found := re.match(r"--?[a-z][-\w]*", word))}
            is_known = bool(names) or words[0].startswith("-")
            if not is_known or not options <= known_options(program, names):
                unknown.append(span)
    return unknown


def heading_anchors(page: Path) -> set[str]:
    """What a link to a heading of a page may end in, as GitHub spells it."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", GENERATED)
def test_a_generated_page_is_up_to_date(page: str) -> None:
    assert (ROOT / "docs" / page).read_text() == GENERATED[page](), "run `make docs`"


def test_the_reference_has_every_command_setting_exit_code_and_status() -> None:
    cli, settings, codes = (GENERATED[f"reference/{page}.md"]() for page in ("cli", "settings", "codes"))
    assert {f"### {program} {name}" for program in PROGRAMS for name in command_of(program).commands} <= set(
        cli.splitlines()
    )
    assert re.findall(rf"^\| `({PREFIX}\w+)` \|", settings, re.MULTILINE) == [
        PREFIX + name.upper() for name in Settings.model_fields
    ]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", codes, re.MULTILINE)} == {
        *(kind.exit_code for kind in kinds), 0, 130,
    }  # fmt: skip
    assert re.findall(r"^\| `(\w+)` \|", codes, re.MULTILINE) == [str(status) for status in Status]


@every_page
def test_the_command_line_takes_every_command_of_a_page(page: Path) -> None:
    assert refused_in(page) == []


@every_page
def test_commands_stand_in_blocks_that_say_so(page: Path) -> None:
    said = re.compile(rf"^(?:\$ )?(?:{'|'.join(PROGRAMS)}) [a-z]+( .*)?$", re.MULTILINE)
    assert [block.text for block in blocks_of(page) if block.language == "" and said.search(block.text)] == []


@every_page
def test_the_commands_that_the_text_names_exist_with_their_options(page: Path) -> None:
    assert unknown_in(page) == []


@every_page
def test_the_options_that_the_text_names_exist(page: Path) -> None:
    named = {span.split()[0].partition("=")[0] for span in spans_of(page) if re.match(r"--[a-z]", span)}
    assert named - all_options() - FOREIGN == set()


@every_page
def test_the_settings_extras_and_targets_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    settings = {PREFIX + name.upper() for name in Settings.model_fields} | {SECRETS_DIR}
    assert set(re.findall(rf"\b{PREFIX}[A-Z]\w*", text)) <= settings
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = {extra for found in re.findall(r"(?:facesieve|['\"]\.)\[([a-z,]+)\]", text) for extra in found.split(",")}
    assert asked <= extras.keys()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = [*spans_of(page), *(line for block in blocks_of(page) for line in block.script.splitlines())]
    assert {found[1] for line in named if (found := re.match(r"make ([a-z-]+)\b", line))} <= set(targets)


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in heading_anchors(target)):
            dead.append(link)
    assert dead == []


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link).resolve() for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", index.read_text())}
    assert {page for page in PAGES if page.is_relative_to(ROOT / "docs")} - linked == {index}


@pytest.mark.parametrize(
    "command",
    [
        "db lst",
        "db list --no-such-option",
        "producer enqueue",
        "producer cancel SCAN",
        "producer --databse x status",
        "db list --limit -1",
        "docker compose run --rm worker worker start --gpu all",
    ],
)
def test_a_page_with_a_command_that_does_not_exist_is_noticed(command: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n\n```bash\ndb stats\n{command} | cat\n```\n")
    (refused,) = refused_in(page)
    assert refused.startswith(command)


def test_a_text_that_names_a_command_that_does_not_exist_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("`db list --lable x`, `db lst`, `model export NAME --format keras`, `db`, `worker start --gpus 0`")
    assert unknown_in(page) == ["db list --lable x", "db lst"]


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("db list --csv > a.csv  # all of it\ndb stats", [["db", "list", "--csv"], ["db", "stats"]]),
        ("find . -name '*.jpg' | producer enqueue -", [["producer", "enqueue", "-"]]),
        ("A=1 worker start &", [["worker", "start"]]),
        ("producer run shard.tar#1 \\\n  --limit 2 2>&1", [["producer", "run", "shard.tar#1", "--limit", "2"]]),
        ('db sql "SELECT 1;\nSELECT 2"', [["db", "sql", "SELECT 1;\nSELECT 2"]]),
        ("docker compose run --rm worker worker check", [["worker", "check"]]),
        ("docker compose up -d worker && kubectl exec deploy/worker -- db stats", [["db", "stats"]]),
        (".venv/bin/db list; python -m model list", [["db", "list"], ["model", "list"]]),
        ("pip install x; cd db", []),
    ],
)
def test_a_script_is_taken_apart_as_a_shell_does(script: str, found: list[list[str]]) -> None:
    assert [own for words in commands_in(script) if (own := own_words(words))] == found


def test_the_prompts_of_a_session_are_no_part_of_its_commands() -> None:
    block = Block(ROOT, "console", "$ db list\nno verdicts\n$ db stats\n", "")
    assert block.script == "db list\ndb stats\n"


def test_the_table_of_false_alarms_adds_up_and_has_the_figures_of_the_card() -> None:
    card = (ROOT / "model" / "artifacts" / "face-efficientnet" / "README.md").read_text()
    rates = dict(re.findall(r"^\| generated found at (\d+) % false alarms \| ([\d.]+)% ", card, re.MULTILINE))
    page = (ROOT / "docs" / "faq.md").read_text()
    rows = re.findall(r"^\| ([\d.]+) % \| (\d+) % \| ([\d.]+) % \| (\d+) % \|$", page, re.MULTILINE)
    assert len(rows) >= 5
    for share, false_alarms, found, right in rows:
        assert rates[false_alarms] == found
        good, bad = float(share) * float(found), (100 - float(share)) * float(false_alarms)
        assert round(100 * good / (good + bad)) == int(right)


def test_the_readme_has_the_figures_of_the_card() -> None:
    card = (ROOT / "model" / "artifacts" / "face-efficientnet" / "README.md").read_text()
    said = " ".join((ROOT / "README.md").read_text().split())
    (right,) = re.findall(r"^\| accuracy \| ([\d.]+)% ", card, re.MULTILINE)
    (always,) = re.findall(r"^\| accuracy of always naming the larger class \| ([\d.]+)% ", card, re.MULTILINE)
    (found,) = re.findall(r"^\| generated found at 1 % false alarms \| (\d+)", card, re.MULTILINE)
    assert (
        f'right on {right} % (always saying "real" is right on {always} %), and finds {found} % of the generated'
        in said
    )
