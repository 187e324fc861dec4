"""A few of the randomised runs, and that the runner would notice what it is there to notice."""

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import text

from core.settings import load_settings
from core.verdicts import Status
from db.engine import make_engine
from tests.faults.catalogue import FAULTS
from tests.faults.demands import count_verdicts
from tests.faults.plan import draw
from tests.faults.report import summarise, tables, write_between
from tests.faults.run import Stage
from tests.faults.stock import Stock

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


def test_lost_and_wrong_images_are_noticed(stock: Stock) -> None:
    engine = make_engine(load_settings(data_dir=stock.data_dir))
    expected = {"/a.jpg": Status.OK, "/b.jpg": Status.CRASHED}
    with engine.connect() as connection:
        model = connection.execute(text("SELECT count(*) FROM verdict")).scalar_one()
    assert model == 0

    count = count_verdicts(engine, expected)
    engine.dispose()

    assert count.lost == 2
    assert count.complaints() == ["2 images are lost"]


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
