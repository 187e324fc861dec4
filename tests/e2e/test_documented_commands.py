"""The pages' commands run as they stand, page by page, on a small network in the place of the real one.

What stands below ``<!-- parsed only: why -->`` is not run, nor are the pages in ``PARSED_ONLY``; ``test_docs.py`` has
the command line take those apart.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, insert

from core.manifest import read_manifest
from core.settings import Settings, load_settings
from core.verdicts import Status
from db import schema
from db.engine import open_engine
from tests.buckets import Bucket
from tests.documented import PAGES, PROGRAMS, ROOT, SHELL, blocks_of, commands_in, name_of, own_words
from tests.e2e.conftest import Site, left_running
from tests.integration.builders import Books, failed, write
from tests.pictured import save_face
from tests.tiny import make_tiny_artifact

pytestmark = pytest.mark.tensorflow

#: Pages of which nothing is run.
PARSED_ONLY = {
    "benchmarks/README.md": "measures for hours",
    "docs/reference/cli.md": "the examples of --help: one for each option, of files and servers that are not here",
    "examples/README.md": "makes the example images anew, from packages that the tests do not need",
    "model/artifacts/face-efficientnet/README.md": "trains for half an hour",
    "model/artifacts/face-resnet/README.md": "trains for half an hour",
}
#: What the pages write for a server of the reader's own.
POSTGRESQL = "postgresql+psycopg://facesieve:secret@db.example/facesieve"
BUCKET = "s3://faces"
MODELS = ("face-efficientnet", "mine")


def script_of(page: Path) -> str:
    """Return what is run of a page: its blocks of commands, one after the other."""
    if name_of(page) in PARSED_ONLY:
        return ""
    return "".join(block.script for block in blocks_of(page) if block.language in SHELL and not block.reason)


RUN = [page for page in PAGES if any(own_words(words) for words in commands_in(script_of(page)))]


@pytest.fixture(scope="session")
def documented_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with small networks under the names that the pages use, the first one converted already."""
    from model.predictor import load_predictor

    settings = load_settings(data_dir=tmp_path_factory.mktemp("documented"))
    for seed, name in enumerate(MODELS):
        make_tiny_artifact(settings, name, trained=True, seed=seed)
    load_predictor(settings.models_dir / MODELS[0], engine="openvino", cache=settings.cache_dir)
    return settings.data_dir


@pytest.fixture
def reader(tmp_path: Path, documented_models: Path, sqlite_template: Path, bucket: Bucket) -> dict[str, str]:
    """The environment of somebody who follows a page in ``tmp_path``, with some results already."""
    data = tmp_path / "results"  # not the one that servers of the tests were started with
    shutil.copytree(documented_models, data)
    shutil.copy(sqlite_template, data / "facesieve.db")
    engine = open_engine(load_settings(data_dir=data))
    _score(engine, data, tmp_path / "faces")
    engine.dispose()
    for name, place in (("real", 100), ("generated", 200)):
        for number in range(12):
            save_face(tmp_path / "labelled" / "train" / name / f"{number}.jpg", place + number, 0.5)
    face = (tmp_path / "faces" / "generated-01.jpg").read_bytes()
    bucket.put("2025/one.jpg", face)
    shards = shutil.make_archive(str(tmp_path / "shard"), "tar", tmp_path / "faces")
    bucket.put("shards/0001.tar", Path(shards).read_bytes())
    # As many as make it next to impossible that a sample is empty: it depends on their paths, which are new each time.
    faces = sorted((tmp_path / "labelled").rglob("*.jpg"))
    (tmp_path / "list.csv").write_text("url\n" + "".join(f"{path}\n" for path in faces))

    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        _write_program(programs / name, f'exec "{sys.executable}" -m {name} "$@"')
    _write_program(programs / "pip", "")  # everything is installed; that the extras exist is another test's
    settings = {"HOME": str(tmp_path), "FACESIEVE_DATA_DIR": str(data), "COLUMNS": "200"}
    return os.environ | settings | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", RUN, ids=name_of)
def test_what_a_page_says_can_be_done(
    page: Path, reader: dict[str, str], bucket: Bucket, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    script = script_of(page).replace(BUCKET, bucket.uri)
    if POSTGRESQL in script:
        script = script.replace(POSTGRESQL, request.getfixturevalue("postgresql_url"))
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-x"], input=script, env=reader, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert left_running(tmp_path / "results") == {}


def test_the_pages_of_which_nothing_is_run_are_there() -> None:
    assert set(PARSED_ONLY) <= {name_of(page) for page in PAGES}


def test_the_first_pages_are_run() -> None:
    assert {"README.md", "docs/how-to/buckets.md", "docs/how-to/postgresql.md"} <= {name_of(page) for page in RUN}


@pytest.mark.timeout(600)
def test_the_demo_gives_what_the_readme_shows(make_site: Callable[..., Site], examples: Path) -> None:
    (shown,) = [block.text for block in blocks_of(ROOT / "README.md") if block.text.startswith("scan 1: ")]
    site = make_site()
    del site.environment["FACESIEVE_MODEL"]  # the shipped model is what one gets without any setting
    done = site.run("producer", "run", examples, timeout=500)
    assert done.returncode == 0, done.stderr

    assert Settings.model_fields["model"].default in site.ok("db", "models")
    assert _counts_of(done.stdout) == _counts_of(shown)
    scores = {name: (score, label) for score, label, name in _scores_of(done.stdout)}
    assert _scores_of(shown)
    for score, label, name in _scores_of(shown):
        assert scores[name] == (pytest.approx(score, abs=0.02), label)  # bf16 or float32, as the CPU has it


def _score(engine: Engine, data: Path, folder: Path) -> None:
    names = [*(f"generated-0{number}.jpg" for number in range(1, 5)), "real-1.jpg", "real-2.jpg", "unsure.jpg"]
    scores = (0.01, 0.02, 0.2, 0.3, 0.97, 0.99, 0.5)
    for shift, name in enumerate(MODELS):
        model = read_manifest(data / "models" / name)
        books = Books(engine, model)
        books.store.register_model(model)
        outcomes = [
            save_face(folder / file, seed, score * (1 - 0.1 * shift))
            for seed, (file, score) in enumerate(zip(names, scores, strict=True))
        ]
        cut = save_face(folder / "cut.jpg", 99, 0.5)
        books.save([*outcomes, failed(cut.ref, Status.TRUNCATED)])
        books.store.finish_scan(books.scan_id, "listed")
    said = {"label": "real", "note": "", "reviewer": "ann", "reviewed_at": datetime.now(UTC)}
    write(engine, insert(schema.review).values({"image_id": outcomes[-2].ref.id, **said}))


def _counts_of(text: str) -> tuple[str, set[str]]:
    """The first line of a summary without its times, and the lines of its table, whatever their order."""
    first, _, rest = text[text.index("scan ") :].partition("\n")  # progress stands before it
    table = rest.partition("p_real")[0].splitlines()
    return first.partition(" in ")[0], {" ".join(line.split()) for line in table}


def _scores_of(text: str) -> list[tuple[float, str, str]]:
    """The score, the label and the file's name in each line of a summary that has them."""
    found = re.findall(r"^([01]\.\d+) +(\w+) +(\S+)", text, re.MULTILINE)
    return [(float(score), label, Path(name).name) for score, label, name in found]


def _write_program(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
