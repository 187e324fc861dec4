"""Kombu's Redis transport, where facesieve mends it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kombu.pools
import pytest
from kombu.common import ignore_errors
from kombu.transport import redis

from core.broker import UNACKED_KEY, connect, make_app
from core.embedded import EmbeddedBroker
from worker.transport import TolerantChannel, tolerate_foreign_messages


@pytest.fixture(autouse=True)
def tolerant(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use our channel in this process, for the length of a test."""
    monkeypatch.setattr(redis.Transport, "Channel", redis.Transport.Channel)
    tolerate_foreign_messages()
    yield
    kombu.pools.reset()


def wait_for_more(channel: Any, queue: str) -> None:
    """Ask for a message as the event loop does, without waiting for the answer."""
    channel.basic_consume(queue, no_ack=False, callback=print, consumer_tag=queue)
    channel.client.connection = channel.client.connection_pool.get_connection()
    channel._brpop_start()


def test_a_connection_that_is_lost_with_its_server_is_closed_and_its_message_kept(tmp_path: Path) -> None:
    """Celery closes such a connection twice; the second time, kombu alone fails with what ends a worker."""
    with EmbeddedBroker(tmp_path) as server:
        connection = make_app(server.url).connection_for_read()
        with connection.SimpleQueue("some") as queue:
            queue.put({"method": "ping"})
        channel = connection.default_channel
        assert isinstance(channel, TolerantChannel)
        assert channel.basic_get("some") is not None  # one child is busy with it
        wait_for_more(channel, "some")
        wait_for_more(connection.channel(), "other")
        with connect(server.url) as client:
            client.shutdown()

        ignore_errors(connection, connection.collect)
        ignore_errors(connection, connection.close)

        server.revive()
        with connect(server.url) as client:
            assert client.hlen(UNACKED_KEY) == 1
