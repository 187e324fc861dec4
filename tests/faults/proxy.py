"""A TCP proxy that behaves as badly as it is told to: it cuts, delays, swallows and refuses."""

import asyncio
import socket
import struct
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Self

#: A close with this option sends RST, as a firewall that forgot a connection does.
_RESET = struct.pack("ii", 1, 0)
CHUNK = 65_536


class Proxy:
    """Passes connections on to a server, from a thread of its own.

    Attributes:
        port: where it listens, on the loopback.
        delay: seconds that each piece of a stream waits on its way, in either direction.
    """

    def __init__(self, target: tuple[str, int] | Path) -> None:
        """Make a proxy.

        Args:
            target: host and port, or the Unix socket, of the server.
        """
        self.port = 0
        self.delay = 0.0
        self._target = target
        self._is_refusing = False
        self._flows = asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._do(self._start())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Reset all connections; new ones are welcome."""
        self._call(self._cut)

    def refuse(self) -> None:
        """Reset all connections, and new ones at once, until ``pass_on``."""
        self._is_refusing = True
        self._call(self._cut)

    def swallow(self) -> None:
        """Let nothing through, and say nothing, until ``pass_on``."""
        self._call(self._flows.clear)

    def pass_on(self) -> None:
        """Behave."""
        self.delay, self._is_refusing = 0.0, False
        self._call(self._flows.set)

    async def _start(self) -> None:
        self._flows.set()
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        self._cut()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _cut(self) -> None:
        for writer in self._writers:
            _reset(writer)
        self._writers.clear()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_refusing:
            _reset(writer)
            return
        try:
            if isinstance(self._target, Path):
                ahead = await asyncio.open_unix_connection(str(self._target))
            else:
                ahead = await asyncio.open_connection(*self._target)
        except OSError:  # the server is away
            _reset(writer)
            return
        both = {writer, ahead[1]}
        self._writers |= both
        with suppress(asyncio.CancelledError):  # the proxy is closed
            await asyncio.gather(self._pump(reader, ahead[1]), self._pump(ahead[0], writer))
        self._writers -= both

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await source.read(CHUNK):
                await self._flows.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                sink.write(piece)
                await sink.drain()
        sink.close()

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    def _call(self, action: Callable[[], None]) -> None:
        async def act() -> None:
            action()

        self._do(act())


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.family == socket.AF_INET and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
