"""A web server of the tests' own, which behaves as badly as it is told to."""

import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

Page = Callable[["Visit"], None]


class Visit(BaseHTTPRequestHandler):
    """One connection; each page of the site writes what it likes to it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "Site"

    def do_GET(self) -> None:
        self.server.seen.append((self.command, self.path))
        self.server.headers.append(dict(self.headers))
        self.server.callers.add(self.client_address)
        self.server.pages.get(self.path, page(status=404))(self)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


class Site(ThreadingHTTPServer):
    """Pages by their paths, on a free port of a local address.

    Attributes:
        pages: what to answer; anything else is 404.
        seen: method and path of every request.
        headers: of every request.
        callers: the connections that were made.
        closing: set when the test is over, for pages that wait.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.pages: dict[str, Page] = {}
        self.seen: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.callers: set[object] = set()
        self.closing = Event()
        super().__init__((address, port), Visit)
        self.port = self.server_address[1]
        self.origin = f"{'https' if tls else 'http'}://{address}:{self.port}"
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_: object) -> None:
        """Callers that go away are what the tests are about."""


@contextmanager
def running(site: Site) -> Iterator[Site]:
    """Let a site answer within a ``with``."""
    thread = Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield site
    finally:
        site.closing.set()
        site.shutdown()
        thread.join()
        site.server_close()


def page(body: bytes = b"", status: int = 200, *, length: int | None = None, **headers: str) -> Page:
    """Answer with a body.

    Args:
        body: as it is.
        status: as it is.
        length: the Content-Length, if not that of the body; -1 for none, and a body that ends with the connection.
        headers: more of them, ``_`` for ``-``.
    """

    def answer(visit: Visit) -> None:
        visit.send_response(status)
        for name, value in headers.items():
            visit.send_header(name.replace("_", "-"), value)
        if length == -1:
            visit.close_connection = True
        else:
            visit.send_header("Content-Length", str(len(body) if length is None else length))
        visit.end_headers()
        if visit.command != "HEAD":
            visit.wfile.write(body)
        if length not in (None, -1):
            visit.close_connection = True

    return answer


def raw(*parts: bytes) -> Page:
    """Send these bytes and close."""

    def answer(visit: Visit) -> None:
        for part in parts:
            visit.wfile.write(part)
        visit.close_connection = True

    return answer


def reset(visit: Visit) -> None:
    """Reset the connection."""
    visit.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visit.close_connection = True


def in_turn(*pages: Page) -> Page:
    """Answer with one page after the other, the last one ever after."""
    waiting = list(pages)

    def answer(visit: Visit) -> None:
        following = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        following(visit)

    return answer


def silent(visit: Visit) -> None:
    """Say nothing."""
    visit.server.closing.wait()
    visit.close_connection = True


def trickle(before: bytes, drop: bytes) -> Page:
    """Send something, then a few bytes every now and then, for ever."""

    def answer(visit: Visit) -> None:
        visit.close_connection = True
        visit.wfile.write(before)
        while not visit.server.closing.wait(0.02):
            visit.wfile.write(drop)

    return answer
