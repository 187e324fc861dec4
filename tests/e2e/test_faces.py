"""``--faces detect``, as a user asks for it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Site, wait_for, write_images
from tests.framed import EXAMPLES, draw_background, draw_frame, save_frame

pytestmark = pytest.mark.tensorflow


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """A folder with a frame of two people, one of one, one of nobody, and a broken file."""
    folder = tmp_path / "frames"
    two = [("real-astronaut.jpg", 60, 90, 300), ("generated-03.jpg", 700, 250, 180)]
    save_frame(folder / "two.jpg", draw_frame(1200, 700, two))
    save_frame(folder / "one.jpg", draw_frame(700, 500, [("generated-06.jpg", 100, 100, 300)]))
    save_frame(folder / "nobody.jpg", draw_background(640, 480))
    shutil.copy(EXAMPLES / "corrupt.jpg", folder / "broken.jpg")
    return folder


def run(site: Site, *words: str | Path) -> dict[str, Any]:
    return json.loads(site.ok("producer", "run", *words, "--json"))


def listed(site: Site, model: str) -> dict[str, dict[str, Any]]:
    """Return the verdicts of a model by the names of their files."""
    lines = site.ok("db", "list", "--model", model, "--json", "--limit", "0").splitlines()
    return {Path(row["uri"]).name: row for row in map(json.loads, lines)}


def test_faces_are_found_and_scored_beside_the_whole_images_and_only_once(site: Site, frames: Path) -> None:
    summary = run(site, frames, "--faces", "detect")

    assert (summary["model"], summary["listed"], summary["scored"]) == ("tiny.faces", 4, 4)
    assert summary["failures"] == {"no_face": 1, "truncated": 1}
    assert sum(summary["labels"].values()) == 2
    shown = json.loads(site.ok("db", "show", frames / "two.jpg", "--json"))
    (verdict,) = shown["verdicts"]
    assert [face["number"] for face in verdict["faces"]] == [1, 2]
    assert verdict["p_real"] == min(face["p_real"] for face in verdict["faces"])
    centres = [(face["x"] + face["width"] / 2, face["y"] + face["height"] / 2) for face in verdict["faces"]]
    assert centres == [pytest.approx((210, 240), abs=45), pytest.approx((790, 340), abs=27)]
    assert "face 2" in site.ok("db", "show", frames / "two.jpg")

    again = run(site, frames, "--faces", "detect")
    assert (again["skipped"], again["scored"]) == (4, 0)
    tried = run(site, frames, "--faces", "detect", "--retry-failures")
    assert (tried["skipped"], tried["scored"]) == (3, 1), "an image without a face is an answer"

    whole = run(site, frames)
    assert (whole["model"], whole["skipped"], whole["failures"]) == ("tiny", 0, {"truncated": 1})
    assert {name: row["status"] for name, row in listed(site, "tiny.faces").items()} == {
        "two.jpg": "ok", "one.jpg": "ok", "nobody.jpg": "no_face", "broken.jpg": "truncated",
    }  # fmt: skip
    assert {name: row["status"] for name, row in listed(site, "tiny").items()} == {
        "two.jpg": "ok", "one.jpg": "ok", "nobody.jpg": "ok", "broken.jpg": "truncated",
    }  # fmt: skip
    assert json.loads(site.ok("db", "compare", "tiny", "tiny.faces", "--json"))["images"] == 2
    site.ok("db", "verify", "--all", "--complete")


def test_one_worker_takes_both_kinds_of_jobs_from_one_queue(site: Site, frames: Path) -> None:
    site.ok("producer", "enqueue", frames, "--faces", "detect")
    site.ok("producer", "enqueue", frames)
    with site.worker("--slots", "1"):
        wait_for(lambda: site.run("db", "verify", "--all", "--complete").returncode == 0, "both scans")
    assert (len(listed(site, "tiny")), len(listed(site, "tiny.faces"))) == (4, 4)


def test_a_worker_without_the_detector_fails_these_jobs_with_what_to_install_and_does_the_others(
    make_site: Callable[..., Site], tmp_path: Path
) -> None:
    write_images(tmp_path / "images", 3)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mtcnn.py").write_text("raise AssertionError('it is never imported')")
    site = make_site()
    site.environment["PYTHONPATH"] = str(tmp_path / "site")

    done = site.run("producer", "run", tmp_path / "images", "--faces", "detect")

    assert done.returncode == 1
    assert "pip install 'facesieve[faces]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert run(site, tmp_path / "images")["scored"] == 3
    lines = site.run("worker", "check").stdout
    assert "FAIL faces" in lines
