"""What the integration tests share: books on each kind of database, and one Valkey, emptied for each test."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import kombu.pools
import pytest
import redis
from celery import Celery
from sqlalchemy import Engine

from core.broker import connect, make_app
from core.embedded import EmbeddedBroker
from core.settings import load_settings
from db.engine import open_engine
from tests.integration.builders import Books, manifest
from tests.integration.producing import Producer, make_files
from tests.integration.watched import WatchFolders, watching


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """An engine of a migrated database without rows, on each kind of server."""
    engine = open_engine(load_settings(database_url=database_url))
    yield engine
    engine.dispose()


@pytest.fixture
def new_books(engine: Engine) -> Callable[..., Books]:
    """Begin a scan with a model, ``card`` unless told otherwise."""

    def begin(name: str = "card", **changes: object) -> Books:
        model = manifest(name, **changes)
        books = Books(engine, model)
        books.store.register_model(model)
        return books

    return begin


@pytest.fixture
def books(new_books: Callable[..., Books]) -> Books:
    """A scan that has begun."""
    return new_books()


@pytest.fixture(scope="session")
def _valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with EmbeddedBroker(tmp_path_factory.mktemp("broker")) as broker:
        yield broker.url


@pytest.fixture
def broker(_valkey: str) -> str:
    """The URL of a real Valkey without keys."""
    with connect(_valkey) as client:
        client.flushall()
    return _valkey


@pytest.fixture
def client(broker: str) -> Iterator["redis.Redis"]:
    """A client of that Valkey."""
    with connect(broker) as client:
        yield client


@pytest.fixture
def make_producer(engine: Engine, broker: str, client: "redis.Redis") -> Iterator[Callable[..., Producer]]:
    """Make a producer with these settings, whose messages go to the real broker or another one."""
    apps: list[Celery] = []

    def make(url: str = broker, client: "redis.Redis" = client, **settings: Any) -> Producer:
        apps.append(make_app(url))
        return Producer(engine, apps[-1], client, **{"job_size": 4} | settings)

    yield make
    kombu.pools.reset()  # all apps share it


@pytest.fixture
def producer(make_producer: Callable[..., Producer]) -> Producer:
    """A producer of jobs of four images."""
    return make_producer()


@pytest.fixture
def faces(tmp_path: Path) -> Path:
    """A folder with ten images."""
    return make_files(tmp_path / "faces", 10)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one image."""
    return make_files(tmp_path / "folder", 1)


@pytest.fixture
def watch(producer: Producer, monkeypatch: pytest.MonkeyPatch) -> WatchFolders:
    """Watch folders for the length of a block; the options are those of ``watched.watching``."""
    return partial(watching, patch=monkeypatch, by=producer)
