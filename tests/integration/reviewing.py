"""A review page that is served, and a browser's side of the wire without a browser."""

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

from PIL import Image
from sqlalchemy import Engine, select

from core.images import ImageRef
from db import schema
from db.filters import Filter
from db.review import Session, choose_images
from db.review_server import ReviewServer

HOSTILE = "<script>alert(1)</script>\"'; DROP TABLE review; --\n\u202e%s{{ nonce }}\U0001f600"


def paint(folder: Path, name: str, colour: tuple[int, int, int] = (200, 120, 40)) -> ImageRef:
    """Write a small image of one colour, and return it as it would be listed."""
    path = folder / name
    Image.new("RGB", (64, 48), colour).save(path)
    return ImageRef(str(path), "1-1", path.stat().st_size)


def paint_three(folder: Path) -> list[ImageRef]:
    """Write two images, and a third that is no image."""
    broken = folder / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    return [*(paint(folder, f"{name}.png") for name in "ab"), ImageRef(str(broken), "1-1", 1)]


def review_of(ref: ImageRef, **changes: object) -> dict[str, object]:
    """Return the body of a review."""
    return {"image": ref.id.hex(), "label": "real", "note": ""} | changes


def session_of(engine: Engine, reviewer: str = "ann", **options: Any) -> Session:
    """Return a session on all images, the lowest score first."""
    again = options.get("again", False)
    return Session(engine, choose_images(engine, Filter(), order="score", **options), reviewer, again=again)


def review_rows(engine: Engine) -> list[tuple[str, str, str]]:
    """Return label, note and reviewer of every review, the oldest first."""
    review = schema.review
    with engine.connect() as connection:
        rows = connection.execute(select(review.c.label, review.c.note, review.c.reviewer).order_by(review.c.id))
        return [tuple(row) for row in rows]


@contextmanager
def served(server: ReviewServer) -> Iterator[ReviewServer]:
    """Serve in a thread for the length of a block."""
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Answered:
    """What came back.

    Attributes:
        status: of HTTP.
        headers: by their names in lower case.
        body: as it is.
    """

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.getheaders()}
        self.body = response.read()

    def json(self) -> Any:
        """Return the body as what it stands for."""
        return json.loads(self.body)


class Visitor:
    """Somebody who asks a server; says what it is told to say, and else what the page itself would say."""

    def __init__(self, server: ReviewServer) -> None:
        self.server = server
        self.host = f"127.0.0.1:{server.server_port}"
        self.headers = {"Host": self.host, "Cookie": "=".join(server.cookie)}

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str | None] | None = None
    ) -> Answered:
        """Send a request; a header that is None is left out."""
        sent = {**self.headers, **(headers or {})}
        with closing(http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=20)) as connection:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in sent.items():
                if value is not None:
                    connection.putheader(name, value)
            connection.endheaders(body)
            return Answered(connection.getresponse())

    def get(self, path: str, **headers: str | None) -> Answered:
        """Read something."""
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, value: object, **headers: str | None) -> Answered:
        """Write something; the names of headers may have underscores for hyphens."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        usual = {
            "Origin": f"http://{self.host}", "Content-Type": "application/json", "Content-Length": str(len(body)),
        }  # fmt: skip
        return self.ask("POST", path, body, usual | {name.replace("_", "-"): value for name, value in headers.items()})
