"""A few of the randomised runs, and that the runner would notice what it is there to notice."""

from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.simulated import NAME
from core.settings import load_settings
from core.verdicts import Status
from db.engine import make_engine
from db.store import Store
from tests.faults import probe
from tests.faults.catalogue import FAULTS
from tests.faults.demands import count_verdicts
from tests.faults.plan import draw
from tests.faults.report import summarise, tables, write_between
from tests.faults.run import Stage
from tests.faults.scene import Place
from tests.faults.stock import Stock, copy_stock
from tests.integration.builders import Books, failed, manifest, refs, scored

EVERYTHING = frozenset({"disk", "clock", "postgresql"})


@pytest.mark.timeout(300)
def test_nothing_is_lost_in_a_short_run_under_faults(here: Stage) -> None:
    # A producer killed, PostgreSQL crashed, a child killed, an allocation that fails.
    plan = replace(draw(4920, frozenset({"postgresql"})), images=150)

    result = here.run(plan)

    assert result["complaints"] == [], result
    assert result["images"] == 150
    assert 1 not in result["producer_exits"], "no job has failed as a whole"


def test_a_seed_draws_one_plan_and_another_seed_another() -> None:
    assert draw(7, EVERYTHING) == draw(7, EVERYTHING)
    assert len({draw(seed, EVERYTHING) for seed in range(50)}) == 50


def test_every_fault_is_drawn_and_suits_the_servers_that_it_is_drawn_for() -> None:
    plans = [draw(seed, EVERYTHING) for seed in range(500)]
    assert {event.fault for plan in plans for event in plan.events} == set(FAULTS)
    assert all(FAULTS[event.fault].suits(plan.setting, EVERYTHING) for plan in plans for event in plan.events)
    assert not any(FAULTS[event.fault].needs for seed in range(99) for event in draw(seed, frozenset()).events)


def test_lost_and_wrong_images_are_noticed(stock: Stock, tmp_path: Path) -> None:
    copy_stock(stock, tmp_path / "data")
    engine = make_engine(load_settings(data_dir=tmp_path / "data"))
    lost, wrong, right = refs(3)
    Store(engine).register_model(manifest())
    Books(engine, manifest()).save([failed(wrong, Status.TRUNCATED), scored(right)])

    count = count_verdicts(engine, {lost.uri: Status.OK, wrong.uri: Status.CRASHED, right.uri: Status.OK})
    engine.dispose()

    assert (count.lost, count.wrong) == (1, {"crashed -> truncated": 1})
    assert count.complaints() == ["1 images are lost", "1 images crashed -> truncated"]


def test_jobs_that_are_not_done_after_the_last_fault_are_noticed_even_if_every_worker_begins_some(
    stock: Stock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, NAME, {}, None)
    copy_stock(stock, place.data_dir)
    expected = stock.write_images(tmp_path / "images", 1, broken=0, poison=0, chance=Random(1))
    scene: Any = SimpleNamespace(
        site=place, engine=place.engine, images=tmp_path / "images", expected=expected, model=NAME,
        supervise=lambda: None, complaints=[],
    )  # fmt: skip
    begun = iter([[1]])
    monkeypatch.setattr(probe, "_idle", lambda *_: next(begun, []))
    monkeypatch.setattr(probe, "PATIENCE_SECONDS", 0.5)

    assert probe.idle_workers(scene) == []
    place.close()

    assert scene.complaints == ["jobs sent after the last fault were not done"]


def test_the_report_has_every_run_and_its_longest_recovery(tmp_path: Path) -> None:
    trial = {"fault": "child killed (SIGKILL)", "lasted": 0.0, "recovery": 3.5, "repair": None}
    well = {
        "seed": 1, "plan": {"poison": 1}, "images": 10, "lost": 0, "duplicated": 0, "wrong": {}, "stuck": 0,
        "redelivered": 2, "restarts": 0, "trials": [trial, trial | {"recovery": 1.5}], "complaints": [],
    }  # fmt: skip
    broken = {"seed": 2, "plan": {"poison": 0}, "complaints": ["the runner failed"]}

    figures = summarise([well, well | {"seed": 3, "lost": 4, "complaints": ["4 images are lost"]}, broken])

    assert (figures["runs"], figures["runs_with_complaints"], figures["lost"], figures["faults"]) == (3, 2, 4, 4)
    assert figures["longest_recovery_s"] == 3.5
    assert [found["seed"] for found in figures["complaints"]] == [3, 2]
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- faults -->\nold\n<!-- end of faults -->\nafter\n")
    write_between(page, "faults", tables(figures))
    text_of_page = page.read_text()
    assert "| images lost | 4 |" in text_of_page
    assert "| child killed (SIGKILL) | 4 | 2.5 | 3.5 |" in text_of_page
    assert text_of_page.startswith("before\n")
    assert text_of_page.endswith("after\n")
    assert "old" not in text_of_page
