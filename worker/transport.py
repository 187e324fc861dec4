"""One message that is not even Celery's must not end a worker, as it does with kombu alone."""

import logging
from queue import Empty
from typing import Any

from kombu.transport import redis

log = logging.getLogger("facesieve.worker")


class TolerantChannel(redis.Channel):  # type: ignore[misc]  # kombu has no types
    """A Redis channel that drops and logs what it cannot read."""

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.error("message rejected: it is not one of Celery's: %s: %s", type(error).__name__, error)
            raise Empty from error


def tolerate_foreign_messages() -> None:
    """Make every connection of this process use ``TolerantChannel``.

    The class is set, not passed: a broker URL with a ``+`` overrides Celery's ``broker_transport``.
    """
    redis.Transport.Channel = TolerantChannel
