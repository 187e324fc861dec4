"""The review page: a small web server for one reviewer, on this machine unless told otherwise.

Any web page may make a browser talk to this machine. So nothing is answered without the token that stands in the URL of
the first request, or the cookie that it was exchanged for; nor under a name that is not this server's; and only a page
of this server may write.
"""

import json
import re
import secrets
import socket
import sys
import warnings
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from socketserver import TCPServer
from threading import BoundedSemaphore
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.cli import notice
from core.errors import DatabaseError, ImageError, StorageError, UsageError
from core.settings import Settings
from core.storage import read_image
from db.review import Session
from db.thumbnails import shrink, to_webp

PAGE = Path(__file__).parent / "templates" / "review.html"
#: Longer side of a picture, in pixels: about that of a phone's or a laptop's screen.
SIDE = 1280
QUALITY = 85
MOST_BODY = 16 * 2**10
MOST_NOTE = 2000
IDLE_SECONDS = 30.0
#: Pictures that are decoded at a time: one of 100 megapixels takes 300 MB.
DECODED_AT_ONCE = 2

_POSITION = re.compile(r"[0-9]{1,6}")
_ID = re.compile(r"[0-9a-f]{32}")
_HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_TEXT = "text/plain; charset=utf-8"


class Answer(BaseModel):
    """What a page says of an image."""

    model_config = ConfigDict(frozen=True, extra="forbid", str_strip_whitespace=True)

    image: str = Field(pattern=f"^{_ID.pattern}$")
    label: Literal["real", "generated", "unclear"]
    note: str = Field(default="", max_length=MOST_NOTE, pattern=r"^[^\x00]*$")  # PostgreSQL's text holds no NUL


class ReviewServer(ThreadingHTTPServer):
    """Serves the page of one session.

    Attributes:
        session: whose page it is.
        settings: roots and limits of what is read.
        token: that the first request must know.
        cookie: name and value of what it is exchanged for.
        is_loopback: whether only this machine can reach it.
        url: to be opened by the reviewer.
        decoding: taken while a picture is decoded.
    """

    def __init__(self, session: Session, settings: Settings, *, address: str, port: int) -> None:
        """Listen.

        Args:
            session: to be served.
            settings: roots and limits of what is read.
            address: of this machine, or its name.
            port: 0 means a free one.

        Raises:
            UsageError: the address is not of this machine, or the port is taken.
        """
        self.session = session
        self.settings = settings
        self.decoding = BoundedSemaphore(DECODED_AT_ONCE)
        try:
            self.address_family, *_, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
            super().__init__((str(place[0]), port), Exchange)
        except (OSError, UnicodeError) as error:
            raise UsageError(f"cannot listen at --address {address} --port {port}: {error}") from error
        bound = ip_address(str(self.server_address[0]))
        self.is_loopback = bound.is_loopback
        self._is_everywhere = bound.is_unspecified
        self._names = {address.lower(), str(bound), socket.gethostname().lower()}
        if bound.is_loopback:
            self._names = {address.lower(), str(bound), "localhost"}
        host = socket.gethostname() if bound.is_unspecified else str(bound)
        self.token = secrets.token_urlsafe(32)
        # Browsers send a cookie to every port of a machine: another review must have another name for its own.
        self.cookie = (f"facesieve_review_{self.server_port}", secrets.token_urlsafe(32))
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self.server_port}/?token={self.token}"

    def server_bind(self) -> None:
        """Bind without asking the network for the machine's full name, which may take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def run(self) -> None:
        """Serve until somebody interrupts."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, about large or odd files: the limits are ours
                self.serve_forever()
        except KeyboardInterrupt:
            pass
        finally:
            self.server_close()

    def is_called(self, host: str) -> bool:
        """Return whether a ``Host`` means this server. Any other name was made to lead here: DNS rebinding."""
        try:
            parts = urlsplit(f"//{host}")
            name, port = parts.hostname or "", parts.port or 80
        except ValueError:
            return False
        is_known = name in self._names or (self._is_everywhere and _is_ip_address(name))
        return is_known and port == self.server_port

    def handle_error(self, *_: object) -> None:
        """Say in a line what went wrong, unless the browser just went away."""
        error = sys.exception()
        if not isinstance(error, (ConnectionError, TimeoutError)):
            notice(f"a request failed: {type(error).__name__}: {error}")


class Refusal(Exception):  # noqa: N818 - an answer rather than an error; it never leaves this module
    """What a request gets instead of what it asked for."""

    def __init__(self, status: HTTPStatus, reason: str = "") -> None:
        super().__init__(reason or status.phrase)
        self.status = status


class Exchange(BaseHTTPRequestHandler):
    """One connection of a browser: what it asks, and what it is told."""

    server: ReviewServer
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave together

    def parse_request(self) -> bool:
        """Read the head of a request, and admit only who may ask, whatever the method."""
        if not super().parse_request():
            return False
        if self.server.is_called(self.headers.get("Host", "")) and (self._has_cookie() or self._has_token()):
            return True
        self._refuse(Refusal(HTTPStatus.FORBIDDEN, "open the address that `db review` has printed"))
        return False

    def do_GET(self) -> None:
        """Answer what only reads."""
        self._answer(self._read)

    def do_POST(self) -> None:
        """Answer what writes."""
        self._answer(self._write)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Refuse what is not HTTP, or of an unknown method."""
        self._refuse(Refusal(HTTPStatus(code)))

    def version_string(self) -> str:
        """Tell nothing of Python."""
        return "facesieve"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parent's name
        """Log nothing: the token would stand in it."""

    # --- who may ask ---------------------------------------------------------------------------------------------

    def _has_cookie(self) -> bool:
        pairs = (pair.strip().partition("=") for pair in self.headers.get("Cookie", "").split(";"))
        name, value = self.server.cookie
        return any(_are_equal(given, value) for other, _, given in pairs if other == name)

    def _has_token(self) -> bool:
        path, _, query = self.path.partition("?")
        given = parse_qs(query, max_num_fields=8).get("token", [""])[0] if len(query) < 200 else ""
        return self.command == "GET" and path == "/" and _are_equal(given, self.server.token)

    # --- what it is told -----------------------------------------------------------------------------------------

    def _answer(self, respond: Callable[[], None]) -> None:
        try:
            respond()
        except Refusal as refusal:
            self._refuse(refusal)
        except KeyError:
            self._refuse(Refusal(HTTPStatus.NOT_FOUND, "this review has no such image"))
        except ImageError as error:
            self._refuse(Refusal(HTTPStatus.NOT_FOUND, error.reason))
        except (DatabaseError, StorageError) as error:
            self._refuse(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, str(error)))

    def _read(self) -> None:
        session = self.server.session
        match self.path.partition("?")[0].split("/"):
            case ["", ""] if self._has_token():
                name, value = self.server.cookie
                cookie = f"{name}={value}; Path=/; HttpOnly; SameSite=Strict"
                self._send(HTTPStatus.SEE_OTHER, _TEXT, b"", {"Location": "/", "Set-Cookie": cookie})
            case ["", ""]:
                self._send_page()
            case ["", "session"]:
                about = {"reviewer": session.reviewer, "total": session.total, "longest_note": MOST_NOTE}
                self._send_json({**about, "next": session.next_open(0), "labels": session.labels()})
            case ["", "items", name] if _POSITION.fullmatch(name):
                self._send_json(session.item(int(name)))
            case ["", "images", name] if _ID.fullmatch(name):
                self._send_picture(*session.uri(bytes.fromhex(name)))
            case _:
                raise Refusal(HTTPStatus.NOT_FOUND)

    def _write(self) -> None:
        session, body = self.server.session, self._read_body()
        match self.path:
            case "/reviews":
                try:
                    answer = Answer.model_validate_json(body)
                except ValidationError as error:
                    raise Refusal(HTTPStatus.BAD_REQUEST, f"not a review: {error.errors()[0]['msg']}") from error
                following = session.record(bytes.fromhex(answer.image), answer.label, answer.note)
                self._send_json({"next": following, "labels": session.labels()})
            case "/undo":
                position = session.undo()
                if position is None:
                    raise Refusal(HTTPStatus.CONFLICT, "nothing was labelled since this review began")
                self._send_json({"next": position, "labels": session.labels()})
            case _:
                raise Refusal(HTTPStatus.NOT_FOUND)

    def _read_body(self) -> bytes:
        # A form of another page can send neither of these; SameSite should have kept its cookie back before.
        if self.headers.get("Origin") != f"http://{self.headers['Host']}":
            raise Refusal(HTTPStatus.FORBIDDEN, "not asked by this page")
        if self.headers.get_content_type() != "application/json":
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = self.headers.get("Content-Length", "")
        if "Transfer-Encoding" in self.headers or not re.fullmatch("[0-9]{1,9}", length):
            raise Refusal(HTTPStatus.LENGTH_REQUIRED)
        if int(length) > MOST_BODY:
            raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        return self.rfile.read(int(length))

    def _send_page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        page = PAGE.read_text(encoding="utf-8").replace("{{ nonce }}", nonce)
        allowed = f"connect-src 'self'; img-src blob: data:; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'"
        headers = {"Content-Security-Policy": f"{_POLICY}; {allowed}"}
        self._send(HTTPStatus.OK, "text/html; charset=utf-8", page.encode(), headers)

    def _send_picture(self, uri: str, fingerprint: str) -> None:
        settings = self.server.settings
        with self.server.decoding:
            content = read_image(uri, roots=settings.roots, max_bytes=settings.max_bytes, fingerprint=fingerprint)
            picture = to_webp(shrink(content, settings, SIDE), QUALITY)
        self._send(HTTPStatus.OK, "image/webp", picture)

    def _send_json(self, value: object) -> None:
        self._send(HTTPStatus.OK, "application/json", json.dumps(value).encode())

    def _refuse(self, refusal: Refusal) -> None:
        # The connection ends, as a body may be left in it that nobody will read.
        self._send(refusal.status, _TEXT, str(refusal).encode(errors="replace"), {"Connection": "close"})

    def _send(self, status: HTTPStatus, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        about = {"Content-Type": kind, "Content-Length": str(len(body)), "Content-Security-Policy": _POLICY}
        for name, value in (_HEADERS | about | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _are_equal(given: str, secret: str) -> bool:
    """Compare in a time that tells nothing of the secret."""
    return secrets.compare_digest(given.encode(errors="surrogateescape"), secret.encode())


def _is_ip_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
