"""What the commands of the producer need open: broker, database, model."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import redis
from celery import Celery
from sqlalchemy import Engine

from core.broker import connect, make_app, open_broker
from core.errors import ModelNotFoundError
from core.manifest import NAME_PATTERN, artifact_name, faces_name, find_artifact, read_manifest
from core.settings import Settings
from db.engine import open_engine
from db.queries import find_model
from producer.enqueue import Enqueuer, Target


@dataclass(frozen=True, slots=True)
class Session:
    """Open connections.

    Attributes:
        settings: of this process.
        engine: of the database.
        app: Celery, to send with.
        client: of the broker, to count with.
    """

    settings: Settings
    engine: Engine
    app: Celery
    client: "redis.Redis"

    @property
    def enqueuer(self) -> Enqueuer:
        """Sends scans and retries."""
        return Enqueuer(self.settings, self.engine, self.app, self.client)


@contextmanager
def open_session(settings: Settings) -> Iterator[Session]:
    """Open the database and the broker, the embedded ones if nothing else is configured.

    Raises:
        SettingsError: a URL or the data directory is wrong.
        DatabaseError: the database does not answer or has another schema.
        BrokerError: the broker does not answer.
    """
    engine = open_engine(settings)
    try:
        with open_broker(settings) as url, connect(url) as client:
            yield Session(settings, engine, make_app(url), client)
    finally:
        engine.dispose()


def find_target(settings: Settings, engine: Engine, *, skip: str, faces: bool = False) -> Target:
    """Return the model that the settings name, as far as this host knows it.

    A producer's host need not hold the artifact: a name that a worker has registered will do, and a name that nobody
    knows yet means that nothing is scored yet.

    Args:
        settings: name the model.
        engine: of the database.
        skip: see ``Target``.
        faces: whether the faces of the images are scored, which is another model with the same artifact.

    Raises:
        ModelNotFoundError: a path was given, and it leads to no artifact; or the name cannot be one.
    """
    try:
        manifest = read_manifest(find_artifact(settings.model, settings))
    except ModelNotFoundError:
        artifact = artifact_name(settings.model)
        if "/" in artifact or not re.fullmatch(NAME_PATTERN, artifact):
            raise
        name = faces_name(artifact) if faces else settings.model
        return Target(name, find_model(engine, name), skip)
    model = manifest.with_faces() if faces else manifest
    return Target(model.name, model.id, skip)
