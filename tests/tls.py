"""TLS in front of servers whose binaries were built without it: what is tested is the side of the client."""

import asyncio
import ssl
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trustme

from core.broker import connect
from core.embedded import EmbeddedBroker

#: What a user of Redis must be allowed for the sake of facesieve, see SECURITY.md.
RULES = ("~*", "&*", "+@all", "-@admin", "-@dangerous", "+info")
#: What libpq asks before it begins TLS: eight bytes.
_POSTGRESQL_REQUEST = b"\0\0\0\x08\x04\xd2\x16\x2f"


class Authority:
    """Certificates for ``localhost`` alone, and the file with what vouches for them.

    Attributes:
        file: PEM, for clients.
        context: for servers.
    """

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        folder.mkdir()
        self.file = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.file))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("localhost").configure_cert(self.context)


@contextmanager
def behind_tls(authority: Authority, socket_path: Path, *, asks_first: bool = False) -> Iterator[int]:
    """Yield a port of the loopback where the server of a Unix socket speaks TLS.

    Args:
        authority: whose certificate is shown.
        socket_path: of the server.
        asks_first: whether clients ask in the clear for TLS, as PostgreSQL's do.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: "Coroutine[None, None, asyncio.Server]") -> asyncio.Server:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Also what a client says that distrusts us, and the end of the test.
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            if asks_first:
                if await reader.readexactly(8) != _POSTGRESQL_REQUEST:
                    writer.close()
                    return
                writer.write(b"S")
                await writer.start_tls(authority.context)
            inner_reader, inner_writer = await asyncio.open_unix_connection(str(socket_path))
            try:
                await asyncio.gather(_pass_on(reader, inner_writer), _pass_on(inner_reader, writer))
            finally:
                for end in (inner_writer, writer):  # not closed: that would wait for the other side to say goodbye
                    end.transport.abort()

    server = run(
        asyncio.start_server(serve, "127.0.0.1", 0, ssl=None if asks_first else authority.context)  # type: ignore[arg-type]
    )
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        try:
            asyncio.run_coroutine_threadsafe(_close(server), loop).result(30)
        finally:
            loop.call_soon_threadsafe(loop.stop)
            thread.join(30)
            loop.close()


@contextmanager
def guarded_valkey(folder: Path, authority: Authority, user: str, password: str) -> Iterator[int]:
    """Yield the port of a real Valkey behind TLS that wants this user and password, and lets nobody else in."""
    with EmbeddedBroker(folder) as broker, connect(broker.url) as administrator:
        administrator.execute_command("ACL", "SETUSER", user, "on", f">{password}", *RULES)  # type: ignore[no-untyped-call]
        administrator.execute_command("ACL", "SETUSER", "default", "resetpass", ">another")  # type: ignore[no-untyped-call]
        try:
            with behind_tls(authority, Path(broker.url.removeprefix("redis+socket://"))) as port:
                yield port
        finally:  # so that it can be stopped
            administrator.execute_command("ACL", "SETUSER", "default", "nopass")  # type: ignore[no-untyped-call]


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(65_536):
            writer.write(some)
            await writer.drain()
    with suppress(OSError, RuntimeError):  # what stands behind it is closed already
        writer.close()


async def _close(server: asyncio.Server) -> None:
    server.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
