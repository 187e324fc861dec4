"""What the tests share: a stage for runs, set up once, and an installation for tests that do one thing."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.simulated import NAME, RATE
from core.settings import PREFIX
from tests.e2e.conftest import left_running
from tests.faults.launcher import Launcher
from tests.faults.run import Stage, stage
from tests.faults.scene import ROOT, Place
from tests.faults.stock import Stock
from tests.faults.worker import ENGINE, HUNGER, SIMULATED


@pytest.fixture(scope="session")
def here() -> Iterator[Stage]:
    """Where runs take place, one at a time."""
    with stage(lanes=1) as opened:
        yield opened


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    """An artifact of the simulated engine, a database, and images."""
    return Stock(tmp_path_factory.mktemp("stock"))


@pytest.fixture(scope="session")
def launcher() -> Launcher:
    """Starts commands without importing everything anew."""
    return Launcher()


@pytest.fixture
def make_place(tmp_path: Path, stock: Stock, launcher: Launcher) -> Iterator[Callable[..., Place]]:
    """Make an installation with the simulated engine and an SQLite database, of which nothing may run afterwards."""
    made: list[Place] = []

    def make(rate: float, **environment: str) -> Place:
        broker = {"broker_url": url} if (url := environment.get(f"{PREFIX}BROKER_URL")) else {}
        edges = {HUNGER: str(tmp_path / "hunger"), ENGINE: SIMULATED, RATE: str(rate)}
        settings = {f"{PREFIX}MODEL": NAME} | environment
        made.append(Place(tmp_path, NAME, broker, launcher, PYTHONPATH=str(ROOT), **edges, **settings))
        shutil.copytree(stock.data_dir, made[-1].data_dir)
        return made[-1]

    yield make
    for place in made:
        place.close()
        assert not left_running(place.data_dir), place.log()
