"""``producer run``, from a folder of images to the summary."""

import json
import os
import signal
from pathlib import Path

import pytest

from core.errors import WorkerError
from tests.e2e.conftest import Site, children_of, left_running, processes_of, wait_for, write_images

pytestmark = pytest.mark.tensorflow


def listed(site: Site, *options: str) -> list[dict[str, object]]:
    lines = site.ok("db", "list", "--json", "--limit", "0", *options).splitlines()
    return [json.loads(line) for line in lines]


def test_the_examples_become_verdicts_and_named_failures(site: Site, examples: Path) -> None:
    summary = json.loads(site.ok("producer", "run", examples, "--json"))

    assert summary["listed"] == 16
    assert summary["scored"] == 16
    assert summary["failures"] == {"truncated": 1, "unsupported": 1}
    assert sum(summary["labels"].values()) == 14
    by_name = {Path(str(row["uri"])).name: row for row in listed(site)}
    assert len(by_name) == 16
    assert by_name["corrupt.jpg"]["status"] == "truncated"
    assert by_name["not-an-image.jpg"]["status"] == "unsupported"
    assert by_name["not-an-image.jpg"]["reason"]
    assert 0 <= by_name["real-astronaut.jpg"]["p_real"] <= 1
    assert by_name["real-astronaut.jpg"]["width"] == 256
    assert "listed = 0 skipped + 14 ok" in site.ok("db", "verify", "--complete")


def test_labels_of_an_untrained_model_say_so_wherever_they_are_shown(site: Site, examples: Path) -> None:
    shown = site.ok("producer", "run", examples / "generated-01.jpg")

    assert "(untrained)" in shown
    assert "scores mean nothing" in shown
    assert "(untrained)" in site.ok("db", "list")
    assert "(untrained)" in site.ok("db", "list", "--csv")
    assert all("(untrained)" in str(row["label"]) for row in listed(site))


def test_a_second_run_computes_nothing_and_a_changed_file_is_scored_again(site: Site, tmp_path: Path) -> None:
    paths = write_images(tmp_path / "faces", 20)
    site.ok("producer", "run", tmp_path / "faces")
    before = {row["uri"]: row["scored_at"] for row in listed(site)}

    again = json.loads(site.ok("producer", "run", tmp_path / "faces", "--json"))
    assert (again["listed"], again["skipped"], again["scored"]) == (20, 20, 0)
    assert sum(again["labels"].values()) == 20

    os.utime(paths[3], (1, 1))
    changed = json.loads(site.ok("producer", "run", tmp_path / "faces", "--json"))
    assert (changed["skipped"], changed["scored"]) == (19, 1)
    after = {row["uri"]: row["scored_at"] for row in listed(site)}
    assert [uri for uri in after if after[uri] != before[uri]] == [str(paths[3])]


def test_a_run_leaves_nothing_running_and_no_log(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 5)
    site.ok("producer", "run", tmp_path / "faces")

    assert left_running(site.data_dir) == {}
    assert list((site.data_dir / "logs").iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_cancels_its_scan_and_the_next_one_goes_on(
    site: Site, tmp_path: Path, number: signal.Signals
) -> None:
    write_images(tmp_path / "faces", 3000)
    process = site.start("producer", "run", tmp_path / "faces", "--job-size", "20")
    wait_for(lambda: "queued" in _statuses(site) and "done" in _statuses(site), "a first job")

    process.send_signal(number)

    assert process.wait(60) == 130
    assert left_running(site.data_dir) == {}
    assert "cancelled" in _statuses(site)
    assert site.run("db", "verify").returncode == 0
    rest = json.loads(site.ok("producer", "run", tmp_path / "faces", "--json"))
    assert 0 < rest["skipped"] < 3000
    assert rest["skipped"] + rest["scored"] == 3000


def test_a_worker_that_is_killed_ends_the_run_and_leaves_nothing_running(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 3000)
    process = site.start("producer", "run", tmp_path / "faces", "--job-size", "20")
    wait_for(lambda: "done" in _statuses(site), "a first job")
    (parent,) = children_of(process.pid)

    os.kill(parent, signal.SIGKILL)

    assert process.wait(60) == WorkerError.exit_code
    assert "worker ended" in site.log()
    assert left_running(site.data_dir) == {}


def test_a_killed_run_takes_its_worker_with_it(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 3000)
    process = site.start("producer", "run", tmp_path / "faces", "--job-size", "20")
    wait_for(lambda: "done" in _statuses(site), "a first job")

    process.kill()
    process.wait()

    wait_for(lambda: not _workers(site), "the worker to stop")
    # The server that the killed command left behind is found and stopped by the next one.
    site.ok("producer", "run", tmp_path / "faces")
    assert left_running(site.data_dir) == {}


def test_a_model_that_does_not_load_is_one_line_and_its_exit_code(site: Site, tmp_path: Path) -> None:
    write_images(tmp_path / "faces", 2)
    weights = site.data_dir / "models" / "tiny" / "model.keras"
    weights.write_bytes(weights.read_bytes()[:1000])

    done = site.run("worker", "start")

    assert done.returncode == 7
    assert "sha256" in done.stderr
    assert "Traceback" not in done.stderr
    run = site.run("producer", "run", tmp_path / "faces")
    assert run.returncode == 8
    assert "sha256" in run.stderr
    assert "Traceback" not in run.stderr


def _statuses(site: Site) -> set[str]:
    from sqlalchemy import text

    if not (site.data_dir / "facesieve.db").exists():
        return set()
    with site.engine.connect() as connection:
        return set(connection.execute(text("SELECT DISTINCT status FROM job")).scalars())


def _workers(site: Site) -> list[int]:
    return [pid for pid, command in processes_of(site.data_dir).items() if "worker" in command]
