"""Reading the web, over sockets: what comes back, what fails by which name, and where no connection is ever made."""

import gzip
import socket
import ssl
import tarfile
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import trustme

from core import addresses, web
from core.errors import ImageError, SourceError, StorageError
from core.settings import load_settings
from core.storage import Reader, open_any, read_image
from core.verdicts import Status
from core.web import PageListing, open_page, read_page
from producer.scan import Scan
from tests.site import Page, Site, in_turn, page, raw, reset, running, silent, trickle

ANY = ("https://", "http://")
SPELLINGS = [
    "127.0.0.1",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0177.0.0.1",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[::]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "169.254.169.254",
    "10.0.0.5",
    "192.168.0.1",
    "[fe80::1]",
    "[fd00:ec2::254]",
]


@pytest.fixture(autouse=True)
def _fresh_pools(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    addresses._look_up.cache_clear()
    monkeypatch.setattr(web, "_pools", web._new_pools())
    yield
    web._pools.clear()
    addresses._look_up.cache_clear()


@pytest.fixture
def site() -> Iterator[Site]:
    """A server on 127.0.0.1."""
    with running(Site()) as site:
        yield site


@pytest.fixture
def other() -> Iterator[Site]:
    """A server on 127.0.0.2."""
    with running(Site("127.0.0.2")) as site:
        yield site


def read(site: Site, path: str = "/a.jpg", max_bytes: int = 10**6) -> bytes:
    return read_page(site.origin + path, roots=(site.origin,), max_bytes=max_bytes)


def failure(call: Callable[[], object]) -> tuple[Status, str]:
    with pytest.raises(ImageError) as caught:
        call()
    assert "\n" not in caught.value.reason
    return caught.value.status, caught.value.reason


def hosts_are(monkeypatch: pytest.MonkeyPatch, **answers: list[str]) -> list[str]:
    """Let hosts, ``_`` for a dot, have these addresses, one after the other; returns the names that were looked up."""
    real = socket.getaddrinfo
    asked: list[str] = []

    def look_up(host: str, *arguments: object, **options: object) -> object:
        found = answers.get(str(host).replace(".", "_"))
        if found is None:
            return real(host, *arguments, **options)
        asked.append(str(host))
        return real(found.pop(0) if len(found) > 1 else found[0], *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return asked


@pytest.fixture
def no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail the test if anything connects."""
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was made"))


def test_a_page_is_read_whole_and_as_it_is(site: Site) -> None:
    site.pages["/a%20b.jpg?x=1%2F2&y"] = page(bytes(300_000) + b"end")
    assert read(site, "/a%20b.jpg?x=1%2F2&y#part") == bytes(300_000) + b"end"
    assert site.headers[0]["Host"] == f"127.0.0.1:{site.port}"
    assert site.headers[0]["Accept-Encoding"] == "identity"


def test_the_storage_reads_and_opens_web_addresses(site: Site) -> None:
    site.pages["/a.jpg"] = page(b"image", ETag='"1"')
    assert read_image(f"{site.origin}/a.jpg", roots=(site.origin,), max_bytes=10) == b"image"
    file, fingerprint = open_any(f"{site.origin}/a.jpg", roots=(site.origin,))
    with file:
        assert (file.read(), fingerprint) == (b"image", '"1"')


def test_connections_are_used_again_after_pages_failures_and_redirects(site: Site) -> None:
    site.pages |= {"/a.jpg": page(b"image"), "/to": page(b"elsewhere", 302, Location="/a.jpg")}
    for path in ("/a.jpg", "/gone", "/to", "/gone", "/a.jpg"):
        if path == "/gone":
            failure(lambda: read(site, "/gone"))
        else:
            assert read(site, path) == b"image"
    assert len(site.callers) == 1


def test_many_threads_read_at_once(site: Site) -> None:
    site.pages |= {f"/{number}": page(b"%d" % number * 1000) for number in range(400)}
    with ThreadPoolExecutor(32) as threads:
        found = list(threads.map(lambda number: read(site, f"/{number}"), range(400)))
    assert found == [b"%d" % number * 1000 for number in range(400)]
    assert len(site.callers) <= 32


def test_proxies_of_the_environment_are_not_asked(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    site.pages["/a.jpg"] = page(b"image")
    assert read(site) == b"image"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_to_relative_addresses_too(status: int, site: Site) -> None:
    site.pages |= {"/x/a.jpg": page(b"", status, Location="../b.jpg"), "/b.jpg": page(b"image")}
    assert read(site, "/x/a.jpg") == b"image"


def test_five_redirects_are_followed_and_no_more(site: Site) -> None:
    site.pages |= {f"/{number}": page(b"", 302, Location=f"/{number - 1}") for number in range(1, 7)}
    site.pages["/0"] = page(b"image")
    assert read(site, "/5") == b"image"
    assert failure(lambda: read(site, "/6")) == (Status.UNREADABLE, "more than 5 redirects")


def test_a_redirect_out_of_the_roots_is_not_followed(site: Site, other: Site) -> None:
    site.pages["/a.jpg"] = page(b"", 302, Location=f"{other.origin}/a.jpg")
    other.pages["/a.jpg"] = page(b"secret")
    status, reason = failure(lambda: read(site))
    assert (status, "outside the allowed roots" in reason) == (Status.UNREADABLE, True)
    assert other.callers == set()


def test_a_redirect_to_a_private_address_is_not_followed_though_any_address_is_allowed(site: Site, other: Site) -> None:
    site.pages["/a.jpg"] = page(b"", 302, Location=f"{other.origin}/a.jpg")
    uri = f"{site.origin}/a.jpg"
    status, reason = failure(lambda: read_page(uri, roots=(*ANY, site.origin), max_bytes=10))
    assert (status, "127.0.0.2, which is not public" in reason) == (Status.UNREADABLE, True)
    assert other.callers == set()


@pytest.mark.parametrize(
    "target",
    [
        "file:///etc/passwd",
        "s3://bucket/a.jpg",
        "ftp://127.0.0.1/a",
        "//user@127.0.0.1/a",
        "http://",
        "http://[",
        "a\tb:/",
    ],
)
def test_a_redirect_to_something_else_is_not_followed(target: str, site: Site) -> None:
    site.pages["/a.jpg"] = page(b"", 302, Location=target)
    uri = f"{site.origin}/a.jpg"
    status, _ = failure(lambda: read_page(uri, roots=(*ANY, "s3://", Path("/"), site.origin), max_bytes=10))
    assert status in (Status.UNREADABLE, Status.UNSUPPORTED, Status.NOT_FOUND)
    assert {path for _, path in site.seen} <= {"/a.jpg", "/a%09b:/", "/ab:/"}


@pytest.mark.parametrize("host", SPELLINGS)
@pytest.mark.parametrize("scheme", ANY)
@pytest.mark.usefixtures("no_connection")
def test_no_spelling_of_a_private_address_is_connected_to(scheme: str, host: str) -> None:
    for port in ("", ":8080"):
        uri = f"{scheme}{host}{port}/a.jpg"
        status, reason = failure(lambda uri=uri: read_page(uri, roots=ANY, max_bytes=10))
        assert status in (Status.UNREADABLE, Status.NOT_FOUND)
        assert status is Status.NOT_FOUND or "not public" in reason
        failure(lambda uri=uri: open_page(uri, roots=ANY))


@pytest.mark.usefixtures("no_connection")
def test_a_public_name_with_a_private_address_is_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts_are(monkeypatch, evil_test=["10.1.2.3"])
    status, reason = failure(lambda: read_page("https://evil.test/a.jpg", roots=ANY, max_bytes=10))
    assert (status, "10.1.2.3" in reason) == (Status.UNREADABLE, True)


def test_a_root_that_names_a_host_allows_its_address_there_and_nowhere_else(site: Site) -> None:
    site.pages |= {"/x/a.jpg": page(b"image"), "/y/a.jpg": page(b"secret")}
    for roots in ((f"{site.origin}/x",), (*ANY, f"{site.origin}/x/")):
        assert read_page(f"{site.origin}/x/a.jpg", roots=roots, max_bytes=10) == b"image"
        assert failure(lambda roots=roots: read_page(f"{site.origin}/y/a.jpg", roots=roots, max_bytes=10))
    assert site.seen == [("GET", "/x/a.jpg")] * 2


@pytest.mark.parametrize("root", ["http://", "http:///", "http:////"])
def test_a_root_without_a_host_allows_no_private_address(root: str, site: Site) -> None:
    status, _ = failure(lambda: read_page(f"{site.origin}/a.jpg", roots=(root,), max_bytes=10))
    assert status is Status.UNREADABLE
    assert site.callers == set()


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(Site("127.0.0.1")) as first, running(Site("127.0.0.2", first.port)) as second:
        first.pages["/a.jpg"] = page(b"checked")
        second.pages["/a.jpg"] = page(b"rebound")
        asked = hosts_are(monkeypatch, images_test=["127.0.0.1", "127.0.0.2"])
        uri = f"http://images.test:{first.port}/a.jpg"
        assert read_page(uri, roots=(f"http://images.test:{first.port}",), max_bytes=10) == b"checked"
        assert asked == ["images.test"]
        assert first.headers[0]["Host"] == f"images.test:{first.port}"
        assert second.callers == set()


def test_a_name_that_turns_private_later_is_refused_then(monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[str] = []

    def connect(_: socket.socket, address: tuple[str, int]) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError

    monkeypatch.setattr(socket.socket, "connect", connect)
    hosts_are(monkeypatch, evil_test=["93.184.216.34", "127.0.0.1"])
    for _ in range(2):
        with pytest.raises((StorageError, ImageError)):
            read_page("http://evil.test/a.jpg", roots=ANY, max_bytes=10)
        addresses._look_up.cache_clear()
    assert connected == ["93.184.216.34"]


def test_the_next_address_is_tried_if_one_does_not_answer(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/a.jpg"] = page(b"image")
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, site.port)) for address in ("127.0.0.3", "127.0.0.1")
    ]
    real = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **k: found if host == "two.test" else real(host, *a, **k)
    )
    origin = f"http://two.test:{site.port}"
    assert read_page(f"{origin}/a.jpg", roots=(origin,), max_bytes=10) == b"image"


@pytest.mark.parametrize("user", ["user", "user:password", "127.0.0.1:80", "a%40b"])
def test_user_names_in_addresses_are_refused(user: str, site: Site) -> None:
    uri = f"http://{user}@127.0.0.1:{site.port}/a.jpg"
    status, reason = failure(lambda: read_page(uri, roots=(f"http://{user}@127.0.0.1:{site.port}",), max_bytes=10))
    assert (status, "user name" in reason) == (Status.UNREADABLE, True)
    assert site.callers == set()


@pytest.mark.parametrize(
    "rest", ["", "/", ":port/a", ":99999/a", "a..b/x", ".", "a" * 64 + ".test/x", "[::1/a", "\n/a"]
)
def test_a_malformed_address_has_a_named_failure(rest: str) -> None:
    status, _ = failure(lambda: read_page(f"http://{rest}", roots=ANY, max_bytes=10))
    assert status in (Status.UNSUPPORTED, Status.NOT_FOUND)


@pytest.mark.parametrize(
    ("status", "becomes"),
    [
        (401, Status.UNREADABLE),
        (403, Status.UNREADABLE),
        (404, Status.NOT_FOUND),
        (410, Status.NOT_FOUND),
        (400, Status.UNREADABLE),
        (418, Status.UNREADABLE),
        (501, Status.UNREADABLE),
        (204, Status.UNREADABLE),
        (304, Status.UNREADABLE),
    ],
)
def test_an_answer_that_is_no_page_has_a_named_failure_with_its_number(
    status: int, becomes: Status, site: Site
) -> None:
    site.pages["/a.jpg"] = page(b"", status)
    found, reason = failure(lambda: read(site))
    assert (found, str(status) in reason) == (becomes, True)
    assert ("no permission" in reason) == (status in (401, 403))


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 529])
def test_an_answer_that_may_pass_is_no_fault_of_the_image(status: int, site: Site) -> None:
    site.pages["/a.jpg"] = in_turn(page(b"", status), page(b"image"))
    with pytest.raises(StorageError, match=str(status)):
        read(site)
    assert read(site) == b"image"


@pytest.mark.parametrize(
    "broken",
    [
        reset,
        raw(b""),
        raw(b"nonsense\r\n\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Le"),
        raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef"),
        raw(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 1000 + b"\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nA: " + b"b" * 10**6 + b"\r\n\r\n"),
        page(b"1234567", length=8),
        page(b"", length=8),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n1234"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1" * 10**6),
    ],
)
def test_an_answer_that_breaks_may_pass(broken: Page, site: Site) -> None:
    site.pages["/a.jpg"] = in_turn(broken, page(b"image"))
    with pytest.raises(StorageError):
        read(site)
    assert read(site) == b"image"


@pytest.mark.parametrize(
    "whole",
    [
        page(b"12345", length=-1),
        raw(b"HTTP/1.0 200 OK\r\n\r\n12345"),
        raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n12\r\n3\r\n345\r\n0\r\n\r\n"),
    ],
    ids=["until it closes", "of old", "in chunks"],
)
@pytest.mark.parametrize("max_bytes", [5, 4])
def test_a_body_of_unknown_length_is_read_up_to_the_limit(whole: Page, max_bytes: int, site: Site) -> None:
    site.pages["/a.jpg"] = whole
    if max_bytes == 5:
        assert read(site, max_bytes=5) == b"12345"
    else:
        assert failure(lambda: read(site, max_bytes=4)) == (
            Status.TOO_LARGE,
            "more than 4 bytes, which is the limit",
        )


def test_a_body_that_is_announced_as_too_large_is_refused_before_a_byte_is_read(site: Site) -> None:
    site.pages["/a.jpg"] = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000001\r\n\r\n")
    assert failure(lambda: read(site)) == (Status.TOO_LARGE, "1000001 bytes, the limit is 1000000")


def test_a_body_without_end_is_given_up_at_the_limit(site: Site) -> None:
    site.pages["/a.jpg"] = trickle(b"HTTP/1.1 200 OK\r\n\r\n", bytes(200_000))
    assert failure(lambda: read(site))[0] is Status.TOO_LARGE


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "gzip, gzip", "\u00e9"])
def test_compressed_answers_are_refused(encoding: str, site: Site) -> None:
    site.pages["/a.jpg"] = page(gzip.compress(bytes(10**6)), Content_Encoding=encoding)
    status, reason = failure(lambda: read(site))
    assert (status, "encoding" in reason) == (Status.UNREADABLE, True)


def test_a_compressed_manifest_that_the_server_calls_encoded_is_opened_as_it_is(site: Site) -> None:
    site.pages["/m.csv.gz"] = page(gzip.compress(b"uri\n"), Content_Encoding="x-gzip")
    file, _ = open_page(f"{site.origin}/m.csv.gz", roots=(site.origin,))
    with file, gzip.open(file) as lines:
        assert lines.read() == b"uri\n"


@pytest.mark.timeout(30)
@pytest.mark.parametrize(
    ("limit", "slow"),
    [
        ("_READ", silent),
        ("_READ", lambda visit: (page(b"1", length=2)(visit), silent(visit))),
        ("_HEADERS", trickle(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n")),
        ("_HEADERS", trickle(b"HTTP/1.1 200 OK\r\nA: ", b"b")),
        ("_PAGE", trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"1")),
        ("_PAGE", trickle(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0")),
    ],
    ids=["silent", "half a body", "headers", "a header", "a body", "a chunk"],
)
@pytest.mark.parametrize("is_secure", [False, True])
def test_a_slow_answer_is_given_up(
    limit: str, slow: Page, is_secure: bool, monkeypatch: pytest.MonkeyPatch, tls: ssl.SSLContext
) -> None:
    monkeypatch.setattr(web, limit, 0.3)
    monkeypatch.setattr(web, "_pools", web._new_pools())
    with running(Site("127.0.0.1", tls=tls if is_secure else None)) as site:
        site.pages["/a.jpg"] = slow
        before = time.monotonic()
        with pytest.raises(StorageError):
            read(site)
        assert time.monotonic() - before < 10  # seconds; the limits that are not under test are above


@pytest.mark.timeout(30)
def test_a_redirect_is_followed_though_its_own_page_does_not_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "_PAGE", 0.3)
    for length in (b"50000", b"99999999"):
        site.pages["/a.jpg"] = trickle(
            b"HTTP/1.1 302 Found\r\nLocation: /b.jpg\r\nContent-Length: " + length + b"\r\n\r\n", b"1"
        )
        site.pages["/b.jpg"] = page(b"image")
        assert read(site) == b"image"


def test_a_port_where_nobody_listens_may_pass() -> None:
    with running(Site()) as site:
        pass
    with pytest.raises(StorageError, match="no connection"):
        read(site)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    """An authority that issues certificates."""
    return trustme.CA()


@pytest.fixture
def tls(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server for images.test and 127.0.0.1 needs; its authority is trusted by the clients of the test."""
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    monkeypatch.setattr(web, "_pools", web._new_pools())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("images.test", "127.0.0.1").configure_cert(context)
    return context


def test_a_secure_host_is_asked_by_its_name_and_its_certificate_checked(
    tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str | None] = []
    tls.sni_callback = lambda _socket, name, _context: named.append(name)
    hosts_are(monkeypatch, images_test=["127.0.0.1"], other_test=["127.0.0.1"])
    with running(Site(tls=tls)) as site:
        site.pages["/a.jpg"] = page(b"image")
        origins = [f"https://{host}:{site.port}" for host in ("images.test", "127.0.0.1", "other.test")]
        assert read_page(f"{origins[0]}/a.jpg", roots=(origins[0],), max_bytes=10) == b"image"
        assert read_page(f"{origins[1]}/a.jpg", roots=(origins[1],), max_bytes=10) == b"image"
        with pytest.raises(StorageError, match=r"certificate is not valid for 'other\.test'"):
            read_page(f"{origins[2]}/a.jpg", roots=(origins[2],), max_bytes=10)
        assert named == ["images.test", None, "other.test"]
        assert [headers["Host"] for headers in site.headers] == [f"images.test:{site.port}", f"127.0.0.1:{site.port}"]


def test_a_certificate_of_an_unknown_authority_is_refused(
    tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "another.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "another.pem"))
    monkeypatch.setattr(web, "_pools", web._new_pools())
    with running(Site(tls=tls)) as site, pytest.raises(StorageError, match="certificate verify failed"):
        read(site)
    assert site.seen == []


def test_a_redirect_from_a_secure_host_to_an_open_one_needs_a_root_for_it(tls: ssl.SSLContext, other: Site) -> None:
    other.pages["/a.jpg"] = page(b"image")
    with running(Site(tls=tls)) as site:
        site.pages["/a.jpg"] = page(b"", 302, Location=f"{other.origin}/a.jpg")
        assert failure(lambda: read(site))[0] is Status.UNREADABLE
        uri = f"{site.origin}/a.jpg"
        assert read_page(uri, roots=(site.origin, other.origin), max_bytes=10) == b"image"


def archive_of(kind: str, members: dict[str, bytes]) -> bytes:
    packed = BytesIO()
    if kind == "parquet":
        pq.write_table(pa.table({"image": list(members.values())}), packed)
    elif kind == "zip":
        with zipfile.ZipFile(packed, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, BytesIO(content))
    return packed.getvalue()


def test_an_archive_is_copied_and_can_be_sought_in(site: Site) -> None:
    packed = archive_of("tar", {f"{number}.jpg": bytes([number]) * 10**6 for number in range(3)})
    site.pages["/a.tar"] = page(packed, Last_Modified="Mon, 01 Jan 2024 00:00:00 GMT")
    file, fingerprint = open_page(f"{site.origin}/a.tar", roots=(site.origin,))
    with file, tarfile.open(fileobj=file) as archive:
        assert archive.extractfile("1.jpg").read() == bytes([1]) * 10**6
    assert fingerprint == f"{len(packed)}-Mon, 01 Jan 2024 00:00:00 GMT"


def test_a_copy_has_a_limit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MAX_COPY", 100)
    site.pages["/a.tar"] = page(bytes(101))
    assert failure(lambda: open_page(f"{site.origin}/a.tar", roots=(site.origin,)))[0] is Status.TOO_LARGE


def test_a_disk_that_takes_no_copy_is_named_and_may_pass(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/a.tar"] = page(bytes(1000))
    full = open("/dev/full", "wb")  # noqa: SIM115, PTH123
    with monkeypatch.context() as patched:
        patched.setattr(web, "TemporaryFile", lambda: full)
        with pytest.raises(StorageError, match="No space left on device"):
            open_page(f"{site.origin}/a.tar", roots=(site.origin,))
    assert full.closed
    monkeypatch.setattr("tempfile.tempdir", "/proc")  # where no file can be made
    with pytest.raises(StorageError, match="no temporary file"):
        open_page(f"{site.origin}/a.tar", roots=(site.origin,))


@pytest.mark.parametrize(
    ("headers", "fingerprint"),
    [
        ({"ETag": '"abc"', "Last_Modified": "then"}, '"abc"'),
        ({"ETag": 'W/"abc"'}, 'W/"abc"'),
        ({"Last_Modified": "then"}, "5-then"),
        ({}, ""),
    ],
)
def test_one_page_is_listed_with_its_size_and_fingerprint(
    headers: dict[str, str], fingerprint: str, site: Site
) -> None:
    site.pages["/a"] = page(b"12345", **headers)
    listing = PageListing(f"{site.origin}/a")
    (ref,) = listing
    assert (ref.uri, ref.fingerprint, ref.size_bytes) == (f"{site.origin}/a", fingerprint, 5)
    assert (listing.is_folder, listing.ignored, listing.unlistable) == (False, 0, [])
    assert [method for method, _ in site.seen] == ["HEAD"]


@pytest.mark.parametrize("tag", ["\x01", "\u00e9", "x" * 5000])
def test_an_odd_tag_becomes_a_fingerprint_that_every_database_holds(tag: str, site: Site) -> None:
    site.pages["/a"] = page(b"12345", ETag=tag)
    (ref,) = PageListing(f"{site.origin}/a")
    assert ref.fingerprint.isalnum()
    assert len(ref.fingerprint) == 32


@pytest.mark.parametrize("status", [400, 401, 403, 405, 501])
def test_a_server_that_refuses_the_question_leaves_it_to_the_worker(status: int, site: Site) -> None:
    site.pages["/a"] = page(b"", status, ETag='"of the refusal"')
    (ref,) = PageListing(f"{site.origin}/a")
    assert (ref.fingerprint, ref.size_bytes) == ("", 0)


@pytest.mark.parametrize(("status", "message"), [(404, "no such page"), (410, "no such page"), (503, "answered 503")])
def test_a_page_that_does_not_exist_or_has_no_answer_is_an_error(status: int, message: str, site: Site) -> None:
    site.pages["/a"] = page(b"", status)
    with pytest.raises(SourceError, match=message):
        PageListing(f"{site.origin}/a")


def test_a_source_may_be_private_but_not_what_it_redirects_to(site: Site, other: Site) -> None:
    site.pages["/a"] = page(b"", 302, Location=f"{other.origin}/a")
    with pytest.raises(SourceError, match="not public"):
        PageListing(f"{site.origin}/a")
    assert other.callers == set()


def test_a_page_is_one_image_of_a_scan(site: Site) -> None:
    site.pages["/a.jpg"] = page(b"12345", ETag='"1"')
    assert [ref.fingerprint for ref in Scan([f"{site.origin}/a.jpg"])] == ['"1"']
    with pytest.raises(SourceError, match=r"b\.jpg cannot be read"):
        Scan([f"{site.origin}/a.jpg", f"{site.origin}/b.jpg"])


@pytest.mark.parametrize("kind", ["tar", "zip", "parquet"])
def test_archives_on_the_web_are_listed_and_their_members_read(kind: str, site: Site) -> None:
    members = {f"{number}.jpg": bytes([number]) * 1000 for number in range(3)}
    site.pages[f"/a.{kind}"] = page(archive_of(kind, members), ETag='"1"')
    refs = list(Scan([f"{site.origin}/a.{kind}"]))
    with Reader(roots=(site.origin,), max_bytes=1000) as reader:
        assert sorted(reader.read(ref) for ref in refs) == sorted(members.values())
    assert len(site.seen) <= 3  # whole copies, not one for each member


def test_a_manifest_on_the_web_is_listed(site: Site) -> None:
    site.pages["/m.csv.gz"] = page(gzip.compress(b"uri\nhttps://host/a.jpg\ns3://bucket/b.jpg\n"))
    uris = {ref.uri for ref in Scan([f"{site.origin}/m.csv.gz"])}
    assert uris == {"https://host/a.jpg", "s3://bucket/b.jpg"}


def test_addresses_that_are_allowed_come_from_the_settings(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.pages["/a.jpg"] = page(b"image")
    uri = f"{site.origin}/a.jpg"
    assert failure(lambda: read_image(uri, roots=load_settings().roots, max_bytes=10))[0] is Status.UNREADABLE
    monkeypatch.setenv("FACESIEVE_ROOTS", f"/data:{site.origin}")
    assert read_image(uri, roots=load_settings().roots, max_bytes=10) == b"image"
