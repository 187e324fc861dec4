"""One image that kills whoever decodes it, among 512."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import text

from benchmarks.simulated import NAME
from core.broker import UNACKED_KEY, connect, open_broker, queue_name
from core.settings import PREFIX
from core.verdicts import Status
from db.ledger import read_ledger
from tests.e2e.conftest import wait_for
from tests.faults.scene import Place
from tests.faults.stock import Stock


@pytest.mark.timeout(300)
def test_a_poisonous_image_costs_three_deaths_of_a_process_and_nothing_else(
    make_place: Callable[..., Place], stock: Stock, tmp_path: Path
) -> None:
    place = make_place(5000, **{f"{PREFIX}JOB_SIZE": "512"})
    expected = stock.write_images(tmp_path / "images", 512, broken=0, poison=1, chance=Random(1))
    place.ok("producer", "enqueue", tmp_path / "images")

    with place.worker("--gpus", "none", "--slots", "1") as worker:
        wait_for(lambda: read_ledger(place.engine, 1).is_complete, "the end of the scan", 200)
        assert worker.poll() is None, "the worker itself goes on"
        with open_broker(place.settings) as url, connect(url) as client:
            wait_for(lambda: not client.llen(queue_name(NAME)) and not client.hlen(UNACKED_KEY), "an empty queue")

    with place.engine.connect() as connection:
        statuses = dict(connection.execute(text("SELECT uri, status FROM image JOIN verdict ON image_id = id")).all())
        deliveries = connection.execute(text("SELECT deliveries FROM job")).scalar_one()
    assert statuses == {uri: str(status) for uri, status in expected.items()}
    assert list(statuses.values()).count(Status.CRASHED) == 1
    assert deliveries == 4, "three deaths: one unexpected, one to find the image, one to be sure"
    said = place.log()
    assert said.count("child_lost") == 3, said
    assert "backing_off" in said, "the third death without a finished job delays the next child, and says so"
    place.ok("db", "verify", "--complete")
