"""``db review``: what it prints, what it refuses, and how it ends."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import Engine

from core.images import ImageRef
from db.review_server import ReviewServer
from tests.integration.builders import Books, refs, scored
from tests.integration.invoking import Db
from tests.integration.reviewing import paint_three, review_of, review_rows, session_of


@pytest.fixture
def db(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Db:
    """The command line, whose server is interrupted at once."""
    monkeypatch.setattr(ReviewServer, "serve_forever", _interrupt)
    return Db(engine, monkeypatch)


def _interrupt(server: ReviewServer) -> None:
    raise KeyboardInterrupt


@pytest.fixture
def pictures(books: Books, tmp_path: Path) -> list[ImageRef]:
    """Three files in the database."""
    images = paint_three(tmp_path)
    books.save([scored(ref, score) for ref, score in zip(images, (0.1, 0.2, 0.3), strict=True)])
    return images


def test_it_serves_until_it_is_interrupted_and_sums_up(
    pictures: list[ImageRef], engine: Engine, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FACESIEVE_DATABASE_URL", database_url)
    command = [sys.executable, "-m", "db", "review", "--reviewer", "ann", "--order", "score", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("note: 3 images to review; Ctrl+C ends it. Open http://127.0.0.1:")
            url = urlsplit(line.split()[-1])
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with opener.open(url.geturl(), timeout=20) as page:
                assert b"facesieve review" in page.read()
            request = urllib.request.Request(
                f"http://{url.netloc}/reviews",
                json.dumps(review_of(pictures[0])).encode(),
                {"Content-Type": "application/json", "Origin": f"http://{url.netloc}"},
            )
            with opener.open(request, timeout=20) as answer:
                assert json.load(answer)["next"] == 1
            process.send_signal(signal.SIGTERM)  # as Ctrl+C, which a shell may have switched off
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    labels = {"real": 1, "generated": 0, "unclear": 0}
    assert json.loads(out) == {"reviewer": "ann", "images": 3, "reviewed": 1, "labels": labels}
    assert review_rows(engine) == [("real", "", "ann")]


def test_it_goes_on_when_a_browser_breaks_off_a_page(
    pictures: list[ImageRef], database_url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "db", "--database", database_url, "review", "--reviewer", "ann", "--no-browser"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        try:
            assert process.stderr is not None
            url = urlsplit(process.stderr.readline().split()[-1])
            cookies = urllib.request.HTTPCookieProcessor()
            opener = urllib.request.build_opener(cookies)
            opener.open(url.geturl(), timeout=20).close()
            (cookie,) = cookies.cookiejar
            for _ in range(20):
                with socket.create_connection((url.hostname, url.port), timeout=20) as rude:
                    head = f"GET / HTTP/1.1\r\nHost: {url.netloc}\r\nCookie: {cookie.name}={cookie.value}\r\n\r\n"
                    rude.sendall(head.encode())
                with opener.open(f"http://{url.netloc}/session", timeout=20) as answer:
                    assert json.load(answer)["total"] == 3
        finally:
            process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def test_a_session_without_a_label_says_so(db: Db, pictures: list[ImageRef], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "zo\xeb")
    assert db.ok("review") == "0 of 3 images reviewed: 0 real, 0 generated, 0 unclear\n"
    assert db.read("review", "--limit", 2, "--address", "localhost")["images"] == 2
    assert db.read("review")["reviewer"] == "zo\xeb"
    assert len(db.notes) == 1


def test_where_nothing_is_left_to_review_no_server_starts(db: Db, books: Books, engine: Engine) -> None:
    books.save([scored(refs(1)[0])])
    session_of(engine).record(refs(1)[0].id, "real", "")
    assert db.ok("review").startswith("0 of 0 images reviewed")
    assert db.notes == ["there is nothing to review: images that have a review come with --again"]
    assert db.ok("review", "--again").startswith("0 of 1 images reviewed")
    assert db.ok("review", "--again", "--model", "nobody").startswith("0 of 0 images reviewed")
    assert db.notes == ["there is nothing to review"]


def test_who_lets_other_machines_in_is_told_that_nothing_is_encrypted(db: Db, pictures: list[ImageRef]) -> None:
    db.ok("review", "--address", "0.0.0.0")
    assert "nothing is encrypted" in db.notes[0]
    assert "0.0.0.0" not in db.notes[1]  # which is no address to open


def test_a_browser_is_opened_from_a_terminal_with_a_display(
    db: Db, pictures: list[ImageRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    monkeypatch.setenv("DISPLAY", ":0")
    db.ok("review")  # into a file
    monkeypatch.setattr("db.cli_review._is_terminal", lambda: True)
    db.ok("review", "--no-browser")
    assert opened == []
    db.ok("review")
    assert opened == [db.notes[0].split()[-1]]


@pytest.mark.parametrize("name", ["", "  ", "x" * 65, "new\nline", "\x1b[31m", "\u202egnp"])
def test_a_name_that_would_do_harm_is_refused(name: str, db: Db, pictures: list[ImageRef]) -> None:
    assert "--reviewer" in db.error(2, "review", "--reviewer", name)


@pytest.mark.parametrize("words", [("--label", "purple"), ("--address", "192.0.2.1"), ("--address", "no.such.invalid")])
def test_what_does_not_exist_is_a_mistake_of_the_user(words: tuple[str, str], db: Db, pictures: list[ImageRef]) -> None:
    assert words[1] in db.error(2, "review", *words)


def test_without_pillow_the_extra_is_named(db: Db, pictures: list[ImageRef], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("db.review_server", "db.thumbnails"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert db.error(2, "review") == "PIL is not installed: pip install 'facesieve[answers]'"
