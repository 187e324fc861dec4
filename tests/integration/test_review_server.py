"""The review page's server: whom it answers, what it shows, and what it lets be written."""

import json
import re
import shutil
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image
from sqlalchemy import Engine

from core.errors import UsageError
from core.images import ImageRef
from core.settings import load_settings
from db.review_server import MOST_BODY, MOST_NOTE, ReviewServer
from tests.integration.builders import Books, scored
from tests.integration.reviewing import HOSTILE, Visitor, paint, paint_three, review_of, review_rows, served, session_of


@pytest.fixture
def database_url(sqlite_template: Path, tmp_path: Path) -> str:
    """SQLite: what is asked of a database is tested on both kinds in ``test_review.py``."""
    shutil.copy(sqlite_template, tmp_path / "facesieve.db")
    return f"sqlite:///{tmp_path / 'facesieve.db'}"


@pytest.fixture
def pictures(tmp_path: Path) -> list[ImageRef]:
    """Two images, and a third that is no image."""
    return paint_three(tmp_path)


@pytest.fixture
def server(pictures: list[ImageRef], books: Books, engine: Engine, tmp_path: Path) -> Iterator[ReviewServer]:
    """The server of a session on the three, which may read the test's own folder."""
    books.save([scored(ref, score) for ref, score in zip(pictures, (0.1, 0.2, 0.3), strict=True)])
    with served(ReviewServer(session_of(engine), load_settings(roots=(tmp_path,)), address="127.0.0.1", port=0)) as it:
        yield it


@pytest.fixture
def visitor(server: ReviewServer) -> Visitor:
    """Somebody with the cookie."""
    return Visitor(server)


def test_the_printed_address_is_exchanged_for_a_cookie_that_opens_the_page(visitor: Visitor) -> None:
    parts = urlsplit(visitor.server.url)
    first = visitor.get(f"{parts.path}?{parts.query}", Cookie=None)
    assert (first.status, first.headers["location"]) == (303, "/")
    assert first.headers["set-cookie"].endswith("; Path=/; HttpOnly; SameSite=Strict")
    assert visitor.server.token not in str(first.headers)
    page = visitor.get("/", Cookie=f"other=1; {first.headers['set-cookie'].partition(';')[0]}")
    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    (nonce,) = set(re.findall(rb'nonce="([^"]+)"', page.body))
    assert f"'nonce-{nonce.decode()}'" in page.headers["content-security-policy"]
    assert nonce not in visitor.get("/").body


@pytest.mark.parametrize(
    "changes",
    [
        {"Cookie": None},
        {"Cookie": ""},
        {"Cookie": "facesieve_review"},
        {"Cookie": "{name}={token}"},
        {"Cookie": "{name}=\xe9"},
        {"Cookie": "other={value}"},
        {"Host": "evil.example:{port}"},
        {"Host": "127.0.0.1"},
        {"Host": "127.0.0.1:1"},
        {"Host": "127.0.0.1.evil.example:{port}"},
        {"Host": "127.0.0.1:{port}@evil.example"},
        {"Host": "[::1"},
        {"Host": ""},
        {"Host": None},
    ],
    ids=str,
)
def test_nobody_is_answered_without_the_cookie_or_under_another_name(
    changes: dict[str, str | None], visitor: Visitor, pictures: list[ImageRef]
) -> None:
    name, value = visitor.server.cookie
    known = {"name": name, "value": value, "token": visitor.server.token, "port": visitor.server.server_port}
    headers = {header: text and text.format(**known) for header, text in changes.items()}
    for path in ("/", "/session", "/items/0", f"/images/{pictures[0].id.hex()}", "/nothing"):
        for method in ("GET", "POST", "HEAD", "PUT", "OPTIONS", "BREW"):
            answered = visitor.ask(method, path, headers=headers)
            assert (method, path, answered.status) == (method, path, 403)
            assert "set-cookie" not in answered.headers


@pytest.mark.parametrize("query", ["token=", "token=wrong", "token=%00", "Token={token}", "token=x{token}", "{token}"])
def test_another_token_is_refused(query: str, visitor: Visitor) -> None:
    assert visitor.get(f"/?{query.format(token=visitor.server.token)}", Cookie=None).status == 403


def test_the_token_opens_nothing_but_the_page_and_writes_nothing(visitor: Visitor, engine: Engine) -> None:
    assert visitor.get(f"/session?token={visitor.server.token}", Cookie=None).status == 403
    assert visitor.post(f"/?token={visitor.server.token}", {}, Cookie=None).status == 403


def test_localhost_is_a_name_of_this_machine(visitor: Visitor) -> None:
    assert visitor.get("/session", Host=f"localhost:{visitor.server.server_port}").status == 200


@pytest.mark.parametrize("path", ["/", "/session", "/items/0", "/nothing", "/images/nothing"])
def test_every_answer_forbids_to_keep_it_or_to_make_something_else_of_it(path: str, visitor: Visitor) -> None:
    headers = visitor.get(path).headers
    assert headers["cache-control"] == "no-store"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["content-security-policy"].startswith("default-src 'none'; base-uri 'none'; form-action 'none'")
    assert "Python" not in headers["server"]


def test_a_picture_is_drawn_anew_and_not_larger_than_a_screen(
    visitor: Visitor, pictures: list[ImageRef], tmp_path: Path
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "where it was taken"
    Image.new("RGB", (3000, 100), (200, 120, 40)).save(tmp_path / "a.png", exif=exif)
    answered = visitor.get(f"/images/{pictures[0].id.hex()}")
    assert (answered.status, answered.headers["content-type"]) == (200, "image/webp")
    assert b"where it was taken" not in answered.body
    with Image.open(BytesIO(answered.body)) as picture:
        assert picture.size == (1280, 43)
        assert picture.convert("RGB").getpixel((640, 20)) == pytest.approx((200, 120, 40), abs=6)


def test_a_file_that_is_no_image_or_gone_has_a_reason_instead(
    visitor: Visitor, pictures: list[ImageRef], tmp_path: Path
) -> None:
    (tmp_path / "a.png").unlink()
    reasons = [visitor.get(f"/images/{ref.id.hex()}") for ref in pictures]
    assert [one.status for one in reasons] == [404, 200, 404]
    assert reasons[0].body == b"the file is gone"
    assert b"image" in reasons[2].body or b"decoded" in reasons[2].body


def test_a_file_outside_the_roots_is_not_read(visitor: Visitor, pictures: list[ImageRef], tmp_path: Path) -> None:
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.png").symlink_to("/etc/passwd")
    answered = visitor.get(f"/images/{pictures[0].id.hex()}")
    assert (answered.status, answered.body) == (404, b"the file is outside the allowed roots")


@pytest.mark.parametrize(
    "path",
    [
        "/images/" + "0" * 32,
        "/images/{id}.png",
        "/images/{id}/",
        "/images/{upper}",
        "/images/../../etc/passwd",
        "/images/%2e%2e%2fetc%2fpasswd",
        "/images//etc/passwd",
        "/images{path}",
        "//etc/passwd",
        "/review.html",
        "/items/3",
        "/items/-1",
        "/items/0x1",
        "/items/1e0",
        "/items/9999999999999999999999",
        "/items/\xb2",
        "/items/",
        "/reviews",
        "http://[/",
    ],
)
def test_only_what_is_asked_for_by_id_is_served(path: str, visitor: Visitor, pictures: list[ImageRef]) -> None:
    known = {"id": pictures[0].id.hex(), "upper": pictures[0].id.hex().upper(), "path": pictures[0].uri}
    line = f"GET {path.format(**known)} HTTP/1.1\r\nHost: {visitor.host}\r\nCookie: {visitor.headers['Cookie']}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", visitor.server.server_port), timeout=20) as connection:
        connection.sendall(line.encode("latin-1"))
        answered = connection.makefile("rb").read()
    assert answered.startswith(b"HTTP/1.1 404 ")
    assert b"root:" not in answered


def test_an_image_of_the_database_that_is_not_under_review_is_not_served(
    visitor: Visitor, books: Books, tmp_path: Path
) -> None:
    other = paint(tmp_path, "other.png")
    books.save([scored(other)])
    assert visitor.get(f"/images/{other.id.hex()}").status == 404
    assert visitor.post("/reviews", review_of(other)).status == 404


def test_a_posted_review_is_written_and_can_be_undone(
    visitor: Visitor, pictures: list[ImageRef], engine: Engine
) -> None:
    answered = visitor.post("/reviews", review_of(pictures[0], label="unclear", note=f"  {HOSTILE} "))
    assert answered.json() == {"next": 1, "labels": {"real": 0, "generated": 0, "unclear": 1}}
    assert review_rows(engine) == [("unclear", HOSTILE, "ann")]
    assert visitor.get("/items/0").json()["review"]["note"] == HOSTILE
    assert visitor.post("/undo", {}).json() == {"next": 0, "labels": {"real": 0, "generated": 0, "unclear": 0}}
    assert visitor.post("/undo", {}).status == 409
    assert review_rows(engine) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b'{"label": "real"}',
        b"[" * 10_000,
        b"\xff\xfe",
        {"label": "real (untrained)"},
        {"label": None},
        {"label": ["real"]},
        {"image": "../../etc/passwd"},
        {"image": 7},
        {"note": 7},
        {"note": "x" * (MOST_NOTE + 1)},
        {"note": "a\0b"},
        {"reviewer": "somebody else"},
    ],
    ids=lambda body: str(body)[:40],
)
def test_what_is_not_a_review_is_refused(
    body: bytes | dict[str, object], visitor: Visitor, pictures: list[ImageRef], engine: Engine
) -> None:
    sent = body if isinstance(body, bytes) else review_of(pictures[0], **body)
    assert visitor.post("/reviews", sent).status == 400
    assert review_rows(engine) == []
    assert visitor.get("/session").status == 200


def test_a_note_of_half_a_character_is_refused(visitor: Visitor, pictures: list[ImageRef], engine: Engine) -> None:
    body = json.dumps(review_of(pictures[0], note="\ud83d")).encode()
    assert visitor.post("/reviews", body).status == 400
    assert review_rows(engine) == []


@pytest.mark.parametrize(
    ("status", "changes"),
    [
        (403, {"Origin": None}),
        (403, {"Origin": "null"}),
        (403, {"Origin": "http://evil.example"}),
        (403, {"Origin": "http://127.0.0.1:1"}),
        (415, {"Content-Type": "text/plain"}),
        (415, {"Content-Type": "application/x-www-form-urlencoded"}),
        (415, {"Content-Type": None}),
        (411, {"Content-Length": None}),
        (411, {"Content-Length": "-1"}),
        (411, {"Content-Length": "many"}),
        (411, {"Transfer-Encoding": "chunked"}),
        (413, {"Content-Length": str(MOST_BODY + 1)}),
        (413, {"Content-Length": "999999999"}),
        (411, {"Content-Length": "9" * 5000}),
    ],
    ids=lambda value: str(value)[:60],
)
def test_only_the_page_itself_may_write_and_not_much_at_a_time(
    status: int, changes: dict[str, str | None], visitor: Visitor, pictures: list[ImageRef], engine: Engine
) -> None:
    for path in ("/reviews", "/undo"):
        headers = {name.replace("-", "_"): value for name, value in changes.items()}
        assert visitor.post(path, review_of(pictures[0]), **headers).status == status
    assert review_rows(engine) == []


@pytest.mark.parametrize(
    "junk", [b"\x16\x03\x01\x02\x00\x01\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\r\n" * 9, b""]
)
def test_what_is_not_http_harms_nothing(junk: bytes, visitor: Visitor) -> None:
    with socket.create_connection(("127.0.0.1", visitor.server.server_port), timeout=20) as connection:
        connection.sendall(junk)
        connection.shutdown(socket.SHUT_WR)
        assert b" 200 " not in connection.makefile("rb").read()
    assert visitor.get("/session").status == 200


def test_reviews_that_are_posted_at_once_are_all_written_and_undone_once_each(
    visitor: Visitor, pictures: list[ImageRef], engine: Engine
) -> None:
    with ThreadPoolExecutor(8) as pool:
        posted = list(pool.map(lambda n: visitor.post("/reviews", review_of(pictures[n % 2])).status, range(24)))
        assert posted == [200] * 24
        assert len(review_rows(engine)) == 24
        undone = list(pool.map(lambda _: visitor.post("/undo", {}).status, range(30)))
    assert sorted(undone) == [200] * 24 + [409] * 6
    assert review_rows(engine) == []


def test_two_reviewers_on_one_database_do_not_get_into_each_others_way(
    visitor: Visitor, pictures: list[ImageRef], engine: Engine, tmp_path: Path
) -> None:
    settings = load_settings(roots=(tmp_path,))
    with served(ReviewServer(session_of(engine, "bob"), settings, address="127.0.0.1", port=0)) as server:
        bob = Visitor(server)
        assert bob.get("/session", Cookie=visitor.headers["Cookie"]).status == 403
        assert visitor.post("/reviews", review_of(pictures[0])).json()["next"] == 1
        assert bob.post("/reviews", review_of(pictures[0], label="generated")).json()["next"] == 1
        assert bob.post("/reviews", review_of(pictures[1])).json()["next"] == 2
        assert visitor.post("/undo", {}).json()["next"] == 0
    assert review_rows(engine) == [("generated", "", "bob"), ("real", "", "bob")]


def test_a_database_that_fails_is_said_in_a_line_and_the_page_goes_on(
    visitor: Visitor, pictures: list[ImageRef], engine: Engine
) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE review RENAME TO elsewhere")
    answered = visitor.post("/reviews", review_of(pictures[0]))
    assert answered.status == 503
    assert answered.body.startswith(b"database ")
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO review")
    assert visitor.post("/reviews", review_of(pictures[0])).status == 200


@pytest.mark.parametrize(("address", "port"), [("192.0.2.1", 0), ("no.such.host.invalid", 0), ("127.0.0.1", None)])
def test_an_address_that_cannot_be_listened_at_is_a_mistake_of_the_user(
    address: str, port: int | None, visitor: Visitor
) -> None:
    taken = visitor.server.server_port
    with pytest.raises(UsageError, match=re.escape(f"--address {address}")):
        ReviewServer(visitor.server.session, load_settings(), address=address, port=taken if port is None else port)


@pytest.mark.parametrize(
    ("host", "is_known"),
    [
        ("192.0.2.7:{}", True),
        ("[2001:db8::7]:{}", True),
        ("{name}:{}", True),
        ("localhost:{}", False),
        ("evil.example:{}", False),
        ("a:b", False),
    ],
)
def test_a_server_for_other_machines_is_known_by_numbers_and_its_own_name(
    host: str, is_known: bool, visitor: Visitor
) -> None:
    server = ReviewServer(visitor.server.session, load_settings(), address="0.0.0.0", port=0)
    server.server_close()
    assert not server.is_loopback
    assert server.is_called(host.format(server.server_port, name=socket.gethostname())) == is_known
