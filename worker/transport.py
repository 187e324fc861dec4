"""One message that is not even Celery's must not end a worker, as it does with kombu alone."""

from queue import Empty
from typing import Any

from kombu.transport import redis
from redis.exceptions import DataError

from core.logs import say
from worker.envelope import PlainMessage

#: What reading a message can raise that says nothing of the connection.
_FLAWS = (ValueError, TypeError, LookupError, AttributeError, RecursionError, DataError)


class TolerantChannel(redis.Channel):  # type: ignore[misc]  # kombu has no types
    """A Redis channel that drops and logs what it cannot read.

    Attributes:
        taken: messages that came in this process, those that it could not read among them.
    """

    Message = PlainMessage
    taken = 0

    def _receive_one(self, c: Any) -> Any:
        try:
            return super()._receive_one(c)
        except _FLAWS as error:  # in what remote control has sent to all workers
            say("message_dropped", reason=f"{type(error).__name__}: {error}")
            raise Empty from error

    def _brpop_read(self, **options: Any) -> Any:
        try:
            is_read = super()._brpop_read(**options)  # raises Empty if nothing came
        except _FLAWS as error:
            TolerantChannel.taken += 1
            say("message_dropped", reason=f"{type(error).__name__}: {error}")
            raise Empty from error
        TolerantChannel.taken += 1
        return is_read

    def _connparams(self, asynchronous: bool = False) -> Any:
        # Celery closes a lost connection twice; kombu then wants to connect once more to hand messages back, does not
        # know where to, and that would end the worker. This error is one that both expect.
        if getattr(self.connection, "client", None) is None:
            raise ConnectionError("the connection to Redis is closed already")
        return super()._connparams(asynchronous=asynchronous)


def tolerate_foreign_messages() -> None:
    """Make every connection of this process use ``TolerantChannel``.

    The class is set, not passed: a broker URL with a ``+`` overrides Celery's ``broker_transport``.
    """
    redis.Transport.Channel = TolerantChannel
