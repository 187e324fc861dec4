"""A worker's sign of life: what it says is wrong, who may read it, and what becomes of the signs of the dead."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from core.settings import Settings, load_settings
from tests.unit.test_start_up import MODEL_LIBRARIES, loaded_by
from worker.alive import LOOP_SECONDS, MAX_RESTARTS, STALE_SECONDS, STALL_SECONDS, Child, Sign, SignFile, read_signs

NOW = 10_000.0
HERE = socket.gethostname()
FINE = Sign(
    node=f"card-7@{HERE}",
    pid=7,
    state="working",
    written_at=NOW - 3,
    turned_at=NOW - 4,
    heard_at=NOW - 4,
    waiting=12,
    stalled_at=None,
    last_job_at=NOW - 1000,
    busy_limit=600,
    children=(Child(8, "abc", NOW - 599), Child(9)),
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(data_dir=tmp_path)


@pytest.fixture
def claim(settings: Settings) -> Iterator[Callable[[str], SignFile]]:
    """Claim the file of a node, until the test ends."""
    with ExitStack() as stack:

        def make(node: str) -> SignFile:
            file = SignFile(settings, node)
            stack.callback(file.remove)
            return file

        yield make


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"stalled_at": NOW - STALL_SECONDS},
        {"state": "reconnecting", "turned_at": NOW - 9000, "heard_at": NOW - 9000},
        {"state": "stopping", "turned_at": NOW - 9000},
        {"state": "starting", "turned_at": None, "heard_at": None, "children": ()},
        {"written_at": NOW - STALE_SECONDS},
    ],
    ids=["working", "stalled-for-a-moment", "broker-away", "stopping", "starting", "rarely-scheduled"],
)
def test_a_worker_that_gets_on_or_waits_for_others_is_not_at_fault(changes: dict[str, object]) -> None:
    assert replace(FINE, **changes).fault(NOW) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"written_at": NOW - STALE_SECONDS - 1}, "its sign of life is 46 s old: it hangs"),
        ({"written_at": NOW + 1}, "hangs"),
        ({"turned_at": NOW - LOOP_SECONDS - 1}, "its event loop has not turned for 121 s"),
        (
            {"stalled_at": NOW - STALL_SECONDS * (MAX_RESTARTS + 1) - 1},
            "12 jobs wait, and it has taken none for 61 s",
        ),
        (
            {"children": (Child(9), Child(8, "abc", NOW - 601))},
            "process 8 has run job abc for 601 s, longer than the 600 s that one may take",
        ),
    ],
    ids=["silent", "from-before-the-boot", "loop", "deaf", "child"],
)
def test_a_stuck_worker_is_named_with_its_reason_in_one_line(changes: dict[str, object], expected: str) -> None:
    fault = replace(FINE, **changes).fault(NOW)  # type: ignore[arg-type]
    assert fault
    assert expected in fault
    assert "\n" not in fault


def test_what_is_written_is_read_until_its_writer_ends(claim: Callable[[str], SignFile], settings: Settings) -> None:
    file = claim(FINE.node)
    assert list(read_signs(settings)) == [], "nothing is written yet"
    long = replace(FINE, children=tuple(Child(pid) for pid in range(100)))
    for sign in (long, FINE, replace(long, state="stopping")):  # a shorter one leaves nothing of a longer one
        file.write(sign)
        assert list(read_signs(settings)) == [sign]


def test_workers_of_one_host_are_told_apart_and_those_of_others_left_alone(
    claim: Callable[[str], SignFile], settings: Settings
) -> None:
    nodes = [f"a-1@{HERE}", f"b-2@{HERE}", "c-3@elsewhere.example"]
    for node in nodes:
        claim(node).write(replace(FINE, node=node))
    assert [sign.node for sign in read_signs(settings)] == nodes[:2]
    assert [sign.node for sign in read_signs(settings, nodes[1])] == [nodes[1]]
    assert list(read_signs(settings, nodes[2])) == []


def test_what_a_killed_worker_left_is_no_sign_of_life_and_goes_when_the_next_one_starts(
    claim: Callable[[str], SignFile], settings: Settings
) -> None:
    folder = settings.data_dir / "alive"
    folder.mkdir()
    left, foreign = folder / f"a-1@{HERE}.json", folder / "a-1@elsewhere.json"
    for path in (left, foreign):
        path.write_text('{"node": "a"}\n')
    assert list(read_signs(settings)) == []

    claim(FINE.node).write(FINE)

    assert sorted(folder.iterdir()) == sorted([foreign, folder / f"{FINE.node}.json"])
    assert list(read_signs(settings)) == [FINE]


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"node": 1}', "\x00\xff"])
def test_a_sign_that_cannot_be_read_is_none(content: str, claim: Callable[[str], SignFile], settings: Settings) -> None:
    claim(FINE.node)
    (settings.data_dir / "alive" / f"{FINE.node}.json").write_text(content)
    assert list(read_signs(settings)) == []


def test_scripts_get_ages_which_mean_something_elsewhere_too() -> None:
    ages = json.loads(json.dumps(replace(FINE, heard_at=None).ages(NOW)))
    assert ages["written_seconds_ago"] == 3
    assert ages["heard_seconds_ago"] is None
    assert ages["children"] == [
        {"pid": 8, "job": "abc", "busy_seconds": 599},
        {"pid": 9, "job": None, "busy_seconds": None},
    ]
    assert not [name for name in ages if name.endswith("_at")]


def test_a_probe_loads_neither_celery_nor_the_database_nor_a_model() -> None:
    loaded = loaded_by("import worker.cli, worker.alive, core.settings")
    assert loaded.isdisjoint((*MODEL_LIBRARIES, "celery", "redis", "sqlalchemy", "numpy"))
