"""Images, manifests and archives on the web.

A host is looked up once, each of its addresses is checked, and the connection goes to just such an address. So neither
a redirect nor a second look-up leads into a private network, unless a root names the host there. (obstore would look
up by itself and follow any redirect.)
"""

import hashlib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from io import BytesIO
from tempfile import TemporaryFile
from threading import Timer
from typing import IO, BinaryIO, cast
from urllib.parse import urljoin

from core.addresses import addresses_of
from core.errors import ImageError, SourceError, StorageError, UsageError, too_large
from core.images import ImageRef
from core.uris import WEB_SCHEMES, Roots, is_named_inside, is_web
from core.verdicts import Status

try:
    import urllib3
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, ReadTimeoutError, SSLError
    from urllib3.response import HTTPResponse
    from urllib3.util import Url, parse_url
except ImportError as missing:
    raise UsageError("urllib3 is not installed: pip install 'facesieve[cloud]'") from missing

MAX_REDIRECTS = 5
#: Of a manifest or an archive that is read in parts: it is copied whole at first.
MAX_COPY = 4 * 2**30
_CHUNK = 2**16
#: To connect, between two bytes, and for the headers of an answer altogether; in seconds.
_CONNECT, _READ, _HEADERS = 10.0, 30.0, 60.0
#: For the body of an image and of anything larger altogether: servers that trickle hold up a job no longer.
_PAGE, _COPY = 120.0, 3600.0


class PageListing:
    """One image on the web; see ``producer.sources.Listing``."""

    def __init__(self, source: str) -> None:
        """Ask the server whether the image is there. A server that refuses the question leaves that to the worker.

        Args:
            source: its address. What it redirects to must be public; itself it need not be.

        Raises:
            SourceError: there is no such page, or no answer.
        """
        self.is_folder = False
        self.ignored = 0
        self.unlistable: list[str] = []
        origin = "/".join(source.split("/")[:3])
        try:
            with _answer("HEAD", source, (*WEB_SCHEMES, origin), _PAGE) as answer:
                failure = _failure(answer.status)
                if isinstance(failure, StorageError) or (failure and failure.status is Status.NOT_FOUND):
                    raise failure
                fingerprint, size = ("", 0) if failure else (_fingerprint(answer), _stated_size(answer) or 0)
        except (ImageError, StorageError) as error:
            raise SourceError(f"source {source} cannot be read: {error}") from error
        self._ref = ImageRef(source, fingerprint, size)

    def __iter__(self) -> Iterator[ImageRef]:
        yield self._ref


def read_page(uri: str, *, roots: Roots, max_bytes: int) -> bytes:
    """Read what a web address leads to.

    Args:
        uri: ``http://`` or ``https://``.
        roots: beginnings of addresses that may be read, redirects included. Only one that names a host allows what is
            no public address.
        max_bytes: larger bodies are refused, before a byte is read if the server tells their size.

    Raises:
        ImageError: the page itself is the matter; trying again would not help.
        StorageError: reading failed for a reason that may pass.
    """
    body = BytesIO()
    with _answer("GET", uri, roots, _PAGE) as answer:
        _copy(answer, body, max_bytes)
    return body.getvalue()


def open_page(uri: str, *, roots: Roots) -> tuple[BinaryIO, str]:
    """Copy what a web address leads to, to read parts of it.

    Args:
        uri: ``http://`` or ``https://``.
        roots: as for ``read_page``.

    Returns:
        The copy, a temporary file, and the fingerprint of its content.

    Raises:
        ImageError: the page itself is the matter, or it is larger than ``MAX_COPY``.
        StorageError: reading failed for a reason that may pass.
    """
    try:
        copy = TemporaryFile()  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise StorageError(f"no temporary file to copy the page to: {error.strerror}") from error
    try:
        with _answer("GET", uri, roots, _COPY) as answer:
            _copy(answer, copy, MAX_COPY)
            copy.seek(0)
            fingerprint = _fingerprint(answer)
    except BaseException:
        with suppress(OSError):  # once more: there is no room for the rest
            copy.close()
        raise
    return cast(BinaryIO, copy), fingerprint


@contextmanager
def _answer(method: str, uri: str, roots: Roots, seconds: float) -> Iterator[urllib3.BaseHTTPResponse]:
    """Follow redirects to an answer that is none; its body must be read within so many seconds."""
    before = ""
    for _ in range(1 + MAX_REDIRECTS):
        uri, url = _checked(before, uri, roots)
        answer = _send(method, url, is_trusted=_is_named_by_host(uri, roots))
        try:
            with _limited(seconds, answer.shutdown):
                location = answer.get_redirect_location()
                if not location:
                    yield answer
                    return
                before, uri = uri, location
                _skip_body(answer)
        except (HTTPError, OSError, ValueError) as error:  # the last is what TLS says when it is cut
            raise StorageError(_explained(error, url)) from error
        finally:
            answer.close()
    raise ImageError(Status.UNREADABLE, f"more than {MAX_REDIRECTS} redirects")


def _checked(before: str, uri: str, roots: Roots) -> tuple[str, Url]:
    """Return a whole address, of one that may be relative to the one before, and its parts."""
    try:
        uri = urljoin(before, uri)
        url = parse_url(uri)
    except ValueError as error:
        raise ImageError(Status.UNSUPPORTED, "the web address is malformed") from error
    if not is_web(uri) or not is_named_inside(uri, roots):
        raise ImageError(Status.UNREADABLE, "the web address is outside the allowed roots")
    if not url.host:
        raise ImageError(Status.UNSUPPORTED, "the web address names no host")
    if url.auth is not None:
        raise ImageError(Status.UNREADABLE, "the web address holds a user name, which would be stored and shown")
    return uri, url


def _is_named_by_host(uri: str, roots: Roots) -> bool:
    named = [root for root in roots if isinstance(root, str) and root.partition("://")[2].strip("/")]
    return is_named_inside(uri, tuple(named))


def _send(method: str, url: Url, *, is_trusted: bool) -> HTTPResponse:
    host = str(url.host).strip("[]")
    port = url.port or (443 if url.scheme == "https" else 80)
    headers = {"Host": str(url.netloc), "Accept-Encoding": "identity", "User-Agent": "facesieve"}
    tls = {"server_hostname": host} if url.scheme == "https" else {}
    failure: HTTPError | None = None
    for address in addresses_of(host, port, is_trusted=is_trusted):
        pool = _pools.connection_from_host(address, port, url.scheme, tls)
        try:
            return cast(
                HTTPResponse,
                pool.urlopen(
                    method, url.request_uri, headers=headers, redirect=False, retries=False, preload_content=False
                ),
            )
        except (NewConnectionError, ConnectTimeoutError) as error:
            failure = error
        except HTTPError as error:
            raise StorageError(_explained(error, url)) from error
    raise StorageError(f"no connection to {host}") from failure


class _PromptConnection(HTTPConnection):
    """Is cut when the headers do not come in time altogether: timeouts are for single reads."""

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3 itself
        line: socket.socket = self.sock
        with _limited(_HEADERS, lambda: line.shutdown(socket.SHUT_RDWR)):
            return super().getresponse()


class _PromptSecureConnection(_PromptConnection, HTTPSConnection):
    pass


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PromptConnection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _PromptSecureConnection


def _new_pools() -> urllib3.PoolManager:
    pools = urllib3.PoolManager(
        64,
        maxsize=1024,  # as many as there may be threads
        timeout=urllib3.Timeout(connect=_CONNECT, read=_READ),
        ssl_context=ssl.create_default_context(),  # one: reading the authorities takes milliseconds
    )
    pools.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
    return pools


#: Connections, kept by the address that was checked and the host whose certificate was.
_pools = _new_pools()


@contextmanager
def _limited(seconds: float, cut: Callable[[], object]) -> Iterator[None]:
    def give_up() -> None:
        with suppress(OSError, ValueError):  # it was closed meanwhile
            cut()

    timer = Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _copy(answer: urllib3.BaseHTTPResponse, target: IO[bytes], max_bytes: int) -> None:
    failure = _failure(answer.status)
    if failure is not None:
        _skip_body(answer)
        raise failure
    encoding = answer.headers.get("Content-Encoding", "identity").lower()
    # Some servers call a file that is compressed by itself an encoded one; its bytes are what is wanted.
    if encoding != "identity" and not (encoding in ("gzip", "x-gzip") and str(answer.url).endswith(".gz")):
        raise ImageError(Status.UNREADABLE, f"the server sends nothing but {encoding:.20} encoding")
    size = _stated_size(answer)
    if size is not None and size > max_bytes:
        raise too_large(size, max_bytes)
    # Not stream(): that reads the lines between chunks at any length.
    while chunk := answer.read1(_CHUNK, decode_content=False):
        target.write(chunk)
        if target.tell() > max_bytes:
            raise ImageError(Status.TOO_LARGE, f"more than {max_bytes} bytes, which is the limit")
    if size is None and target.tell() == 0:  # http.client takes headers that break off for all of them
        raise StorageError("the answer broke off before its first byte")


def _skip_body(answer: urllib3.BaseHTTPResponse) -> None:
    """Read on to the end of a short one, so that the connection can be used again."""
    if answer.length_remaining is not None and answer.length_remaining < _CHUNK:
        answer.drain_conn()


def _failure(status: int) -> ImageError | StorageError | None:
    if status == HTTPStatus.OK:
        return None
    if status in (HTTPStatus.NOT_FOUND, HTTPStatus.GONE):
        return ImageError(Status.NOT_FOUND, f"the server has no such page ({status})")
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return ImageError(Status.UNREADABLE, f"no permission ({status})")
    may_pass = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)
    if status in may_pass or (status >= HTTPStatus.INTERNAL_SERVER_ERROR and status != HTTPStatus.NOT_IMPLEMENTED):
        return StorageError(f"the server answered {status}")
    return ImageError(Status.UNREADABLE, f"the server answered {status}")


def _stated_size(answer: urllib3.BaseHTTPResponse) -> int | None:
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdecimal() and len(text) < 19 else None


def _fingerprint(answer: urllib3.BaseHTTPResponse) -> str:
    """Return the ETag, or size and time; empty if the server tells neither."""
    text = answer.headers.get("ETag", "")
    if not text and "Last-Modified" in answer.headers:
        text = f"{answer.headers.get('Content-Length', '')}-{answer.headers['Last-Modified']}"
    if text.isascii() and text.isprintable() and len(text) <= 100:
        return text
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _explained(error: Exception, url: Url) -> str:
    if isinstance(error, ReadTimeoutError):
        return f"{url.host} does not go on answering"
    if isinstance(error, SSLError):
        return f"no secure connection to {url.host}: {error!s:.200}"
    if isinstance(error, OSError):  # of the disk: those of the network come as errors of urllib3
        return f"reading failed: {error.strerror}"
    return f"the connection to {url.host} broke"
