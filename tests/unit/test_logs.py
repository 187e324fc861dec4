"""What is logged: actions that are written down, in lines that nobody can forge."""

import ast
import json
import logging
import re
import string
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.logs import ACTIONS, JsonLines, PrettyLines, say

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "logs.md").read_text()
#: Of a JSON line itself.
TAKEN = {"time", "level", "action", "message", "traceback", "logger"}
HOSTILE = "a\n2026-01-01 00:00:00,000 INFO job_done forged\r\x1b[31m\u202e\x85\u2028\udcff{reason}%s"


class Kept(logging.Handler):
    """Keeps the lines of one form."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(form)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))


@pytest.fixture
def pretty() -> Iterator[Kept]:
    yield from attached(Kept(PrettyLines()))


@pytest.fixture
def machine() -> Iterator[Kept]:
    yield from attached(Kept(JsonLines()))


def attached(kept: Kept) -> Iterator[Kept]:
    logger = logging.getLogger("facesieve")
    before = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(kept)
    yield kept
    logger.removeHandler(kept)
    logger.setLevel(before)


def said() -> dict[str, list[set[str]]]:
    """The actions that the code says, each with the fields that it gives them, once for each place."""
    found: dict[str, list[set[str]]] = {}
    for package in ("core", "db", "model", "producer", "worker"):
        for file in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                    action = ast.literal_eval(node.args[0])
                    found.setdefault(action, []).append({word.arg or "" for word in node.keywords} - {"with_traceback"})
    return found


def fields_of(sentence: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(sentence) if name}


def documented() -> dict[str, tuple[str, str]]:
    """Level and fields that the page gives each action."""
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| .* \| (.*) \|$", PAGE, re.MULTILINE)
    return {action: (level, fields) for action, level, fields in rows}


def test_every_action_of_the_code_is_in_the_table_and_every_one_of_the_table_in_the_code() -> None:
    assert set(said()) == set(ACTIONS)


def test_every_action_is_on_the_page_with_its_level_and_no_other_is() -> None:
    levels = {action: logging.getLevelName(level).lower() for action, (level, _) in ACTIONS.items()}
    assert {action: level for action, (level, _) in documented().items()} == levels | {"library": "any"}


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_given_the_fields_that_its_sentence_names_and_the_page_names_all(action: str) -> None:
    on_the_page = set(re.findall(r"`(\w+)`", documented()[action][1]))
    for given in said()[action]:
        assert given >= fields_of(ACTIONS[action][1])
        assert given <= on_the_page
        assert not given & TAKEN


def test_a_line_for_people_has_time_level_action_and_sentence(pretty: Kept) -> None:
    say("job_failed", job="0123456789abcdef", scan=1, images=2, reason="the disk is gone")
    assert re.fullmatch(r"[-\d]+ [:,\d]+ ERROR job_failed job 01234567 failed: the disk is gone", pretty.lines[0])


def test_a_line_for_machines_has_the_fields_under_their_names(machine: Kept) -> None:
    say("job_failed", job="0123456789abcdef", scan=1, images=2, reason="the disk is gone")
    found = json.loads(machine.lines[0])
    assert found.pop("time").endswith("+00:00")
    assert found == {
        "level": "error", "action": "job_failed", "message": "job 01234567 failed: the disk is gone",
        "job": "0123456789abcdef", "scan": 1, "images": 2, "reason": "the disk is gone",
    }  # fmt: skip


def test_no_name_begins_a_line_of_its_own(pretty: Kept, machine: Kept) -> None:
    say("path_refused", job=HOSTILE, uri=HOSTILE)
    say("job_refused", job=HOSTILE, reason=ValueError(HOSTILE))
    logging.getLogger("facesieve.elsewhere").error("%s", HOSTILE)
    for kept in (pretty, machine):
        assert len(kept.lines) == 3
        assert all(line.isprintable() for line in kept.lines)
    assert [json.loads(line)["action"] for line in machine.lines] == ["path_refused", "job_refused", "library"]
    assert json.loads(machine.lines[0])["uri"] == HOSTILE


def fail(text: str) -> None:
    raise ValueError(text)


def test_a_traceback_is_indented_or_an_array(pretty: Kept, machine: Kept) -> None:
    try:
        fail(HOSTILE)
    except ValueError:
        say("job_fault", with_traceback=True, job="j", scan=1)
    first, *rest = pretty.lines[0].split("\n")
    assert first.endswith(" job_fault job j met a fault")
    assert len(rest) >= 4
    assert all(line.startswith("    ") and line.isprintable() for line in rest)
    assert any("ValueError" in line for line in json.loads(machine.lines[0])["traceback"])


def test_what_is_not_text_is_logged_as_text(machine: Kept) -> None:
    say("database_away", seconds=1.5, reason=OSError("gone"))
    assert json.loads(machine.lines[0])["reason"] == "gone"
