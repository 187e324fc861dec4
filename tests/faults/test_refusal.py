"""A server that answers, but does not do what it is asked to."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from redis import Redis

from core.settings import PREFIX, load_settings
from db.engine import make_engine
from db.ledger import read_ledger
from tests.e2e.conftest import wait_for
from tests.faults.scene import Place
from tests.faults.servers import Valkey
from tests.faults.stock import Stock


@pytest.mark.timeout(300)
def test_a_worker_outlasts_a_redis_that_refuses_to_write(
    make_place: Callable[..., Place], stock: Stock, tmp_path: Path
) -> None:
    """As one does whose disk is full, or that has lost its replicas."""
    stock.write_images(tmp_path / "images", 60, broken=0, poison=0, chance=Random(1))
    with Valkey(tmp_path / "valkey", tmp_path / "valkey.sock") as valkey:
        url = f"redis+socket://{valkey.socket}"
        place = make_place(20, **{f"{PREFIX}BROKER_URL": url, f"{PREFIX}JOB_SIZE": "6"})
        place.ok("producer", "enqueue", tmp_path / "images")
        with (
            place.worker("--gpus", "none", "--slots", "1") as worker,
            Redis(unix_socket_path=str(valkey.socket)) as client,
        ):
            wait_for(lambda: read_ledger(place.engine, 1).running, "a first job")
            client.config_set("min-replicas-to-write", 1)
            wait_for(lambda: "NOREPLICAS" in place.log(), "a refusal")
            client.config_set("min-replicas-to-write", 0)
            wait_for(lambda: read_ledger(place.engine, 1).scored >= 48, "the other jobs")
            assert worker.poll() is None, place.log()
            place.ok("producer", "retry")  # what Redis lost when it refused
            wait_for(lambda: read_ledger(place.engine, 1).is_complete, "all jobs")
            place.ok("db", "verify", "1", "--complete")


def test_connections_ask_the_kernel_to_give_up_a_silent_database_server_within_two_minutes(postgresql_url: str) -> None:
    engine = make_engine(load_settings(database_url=postgresql_url))
    with engine.connect() as connection:
        parameters = connection.connection.driver_connection.info.get_parameters()
    engine.dispose()
    assert 0 < int(parameters["tcp_user_timeout"]) <= 120_000
    quiet = int(parameters["keepalives_idle"]) + int(parameters["keepalives_interval"]) * int(
        parameters["keepalives_count"]
    )
    assert 0 < quiet <= 120
