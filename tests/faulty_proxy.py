"""A proxy that does to HTTP what networks and overloaded servers do to it, and counts what passes."""

import random
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import unquote, urlsplit

SLOW_DOWN = b'<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>'
DENIED = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
#: Of one connection, not of a message: not for the next hop.
_HOP_BY_HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length", "date", "server"))
#: A connection closed with this setting is reset, rather than ended in order.
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Fault:
    """What becomes of one request.

    Attributes:
        status: answered instead of asking the server, 0 for the server's answer.
        body: of that answer.
        wait_seconds: before the answer.
        resets: the connection is reset and nothing is answered.
        keeps: share of the answer's body that is sent before the connection is closed.
    """

    status: int = 0
    body: bytes = b""
    wait_seconds: float = 0.0
    resets: bool = False
    keeps: float = 1.0


NO_FAULT = Fault()
ERROR_500 = Fault(500)
BUSY_503 = Fault(503, SLOW_DOWN)
FORBIDDEN = Fault(403, DENIED)
RESET = Fault(resets=True)
TRUNCATED = Fault(keeps=0.5)
LATE = Fault(wait_seconds=0.3)

#: Returns what becomes of a request: its method, its path without the query, and how many there were of it before.
Schedule = Callable[[str, str, int], Fault]


def never(method: str, path: str, before: int) -> Fault:
    """Pass everything on."""
    return NO_FAULT


def seeded(seed: int, shares: Mapping[Fault, float]) -> Schedule:
    """Return a schedule that deals out faults by chance: the same for the same seed, in whatever order requests come.

    Args:
        seed: other faults for another.
        shares: of the requests that meet each fault; one in all at most.
    """

    def draw(method: str, path: str, before: int) -> Fault:
        key = path.split("/", 2)[2:]  # without the bucket, whose name is another one in each test
        chance = random.Random(f"{seed} {method} {key} {before}").random()
        for fault, share in shares.items():
            chance -= share
            if chance < 0:
                return fault
        return NO_FAULT

    return draw


class FaultyProxy:
    """Stands before an HTTP server, for the length of a ``with``.

    Attributes:
        url: of the proxy, for a client.
        schedule: what becomes of each request; may be changed at any time.
        counts: requests so far, by method and path.
        faults: how often each fault was dealt out.
        signers: who signed the requests, as S3 does it; empty for nobody.
        most_at_once: the most requests that were under way at the same time.
    """

    def __init__(self, upstream: str, schedule: Schedule = never) -> None:
        """Take the server's URL and the faults."""
        self.schedule = schedule
        self.counts = Counter[tuple[str, str]]()
        self.faults = Counter[Fault]()
        self.signers = Counter[str]()
        self.most_at_once = 0
        self._under_way = 0
        self._lock = threading.Lock()
        self._server = _Server(self, upstream)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forget(self) -> None:
        """Count from zero again."""
        with self._lock:
            self.counts.clear()
            self.faults.clear()
            self.signers.clear()
            self.most_at_once = 0

    def begin(self, method: str, path: str, signature: str) -> Fault:
        """Count a request and return what becomes of it."""
        signer = re.search(r"Credential=([^/]+)/", signature)
        with self._lock:
            self.signers[signer[1] if signer else ""] += 1
            before = self.counts[method, path]
            self.counts[method, path] += 1
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
            fault = self.schedule(method, path, before)
            self.faults.update([fault] if fault != NO_FAULT else [])
            return fault

    def end(self) -> None:
        """Count a request's end."""
        with self._lock:
            self._under_way -= 1


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # all threads of a reader may come at once

    def __init__(self, proxy: FaultyProxy, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.proxy = proxy
        self.upstream = urlsplit(upstream).netloc

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that went away is no news here


class _Connection(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.upstream = HTTPConnection(self.server.upstream, timeout=60)

    def finish(self) -> None:
        self.upstream.close()
        with suppress(OSError):
            super().finish()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the base class's
        pass

    def _pass_on(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        proxy = self.server.proxy
        fault = proxy.begin(self.command, unquote(self.path.partition("?")[0]), self.headers.get("Authorization", ""))
        try:
            threading.Event().wait(fault.wait_seconds)
            if fault.resets:
                self._reset()
            elif fault.status:
                self._answer(fault.status, {}, fault.body, len(fault.body))
            else:
                status, headers, body = self._ask(content)
                length = int(headers.get("Content-Length", len(body))) if self.command == "HEAD" else len(body)
                kept = body[: int(len(body) * fault.keeps)] if fault.keeps < 1 else body
                self._answer(status, headers, kept, length)
                self.close_connection |= len(kept) < len(body)
        finally:
            proxy.end()

    def _ask(self, content: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        for is_last in (False, True):
            try:
                self.upstream.request(self.command, self.path, content or None, headers)
                answer = self.upstream.getresponse()
                return answer.status, dict(answer.getheaders()), answer.read()
            except (HTTPException, OSError):
                self.upstream.close()  # an idle connection may have been closed by the server
                if is_last:
                    raise
        raise AssertionError("not reached")

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes, length: int) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.connection.close()
        self.close_connection = True

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - the library asks for these names
