"""Sources made to do harm, from the listing to the pixels: each part has a clear status, the rest does not suffer."""

import errno
import gzip
import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import cv2
import numpy as np
import pillow_heif
import pytest

from core import addresses, web
from core.errors import SourceError
from core.images import ImageRef
from core.selection import Selection
from core.settings import Settings, load_settings
from core.uris import is_named_inside
from core.verdicts import Outcome, Status
from model.preprocess import configure_cv2
from producer.scan import Scan
from tests.site import Site, in_turn, page, reset, running
from worker.fetch import Fetched, Fetcher

WIDTH, HEIGHT = 80, 64
HUGE = 30_000
EVERYTHING = Selection(include=["*"])
#: Where a file says how large its image is: how that is written, and what stands before it.
SIZES = {
    ".jpg": (">HH", b"\xff\xc0\0\x11\x08"),
    ".png": (">II", b"IHDR"),
    ".gif": ("<HH", b"GIF89a"),
    ".bmp": ("<ii", b"\x28\0\0\0"),
    ".avif": (">II", b"ispe\0\0\0\0"),
    ".heic": (">II", b"ispe\0\0\0\0"),
    ".jp2": (">II", b"ihdr"),
}
configure_cv2()


def picture(seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


def encoded(extension: str) -> bytes:
    if extension == ".heic":
        file = BytesIO()
        pillow_heif.encode("BGR", (WIDTH, HEIGHT), picture().tobytes(), file)
        return file.getvalue()
    options = (cv2.IMWRITE_WEBP_QUALITY, 90) if extension == ".webp" else ()
    done, content = cv2.imencode(extension, picture(), options)
    assert done
    return content.tobytes()


def stating(extension: str, width: int, height: int) -> bytes:
    """An image whose header states another size."""
    content = encoded(extension)
    if extension == ".webp":
        return content[:26] + struct.pack("<HH", min(width, 16383), min(height, 16383)) + content[30:]
    if extension == ".ppm":
        return content.replace(b"%d %d" % (WIDTH, HEIGHT), b"%d %d" % (width, height), 1)
    if extension == ".tiff":
        for tag, value in ((256, width), (257, height)):
            start = content.index(struct.pack("<HHI", tag, 3, 1), 8)
            content = content[:start] + struct.pack("<HHII", tag, 4, 1, value) + content[start + 12 :]
        return content
    form, before = SIZES[extension]
    start = content.index(before) + len(before)
    sides = (height, width) if extension in (".jpg", ".jp2") else (width, height)
    return content[:start] + struct.pack(form, *sides) + content[start + struct.calcsize(form) :]


def huge_png() -> bytes:
    """60,000 x 60,000 pixels in about 50 KB."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(50_000_000), 9)) + chunk(b"IEND", b"")


def zip_bomb() -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.jpg", bytes(50_000_000))
    return file.getvalue()


def job(refs: Sequence[ImageRef], settings: Settings) -> dict[str, Fetched | Outcome]:
    """Fetch the images as a worker does, and check that each failure has a reason in one line."""
    fetcher = Fetcher(settings, "card")
    with fetcher.job(refs):
        found = {ref.uri: fetcher(ref) for ref in refs}
    for outcome in found.values():
        if isinstance(outcome, Outcome):
            assert outcome.status is not Status.OK
            assert outcome.reason
            assert outcome.reason.isprintable()
    return found


def statuses(folder: Path, settings: Settings) -> dict[str, Status]:
    """Scan a folder, fetch what it has, and return what became of each file below it."""
    found = job(list(Scan([str(folder)], EVERYTHING)), settings)
    return {
        uri.removeprefix(f"{folder}/"): outcome.status if isinstance(outcome, Outcome) else Status.OK
        for uri, outcome in found.items()
    }


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The only folder that may be read, with two good images."""
    folder = tmp_path / "root"
    folder.mkdir()
    for name in ("a good one.png", "z good one.png"):
        (folder / name).write_bytes(encoded(".png"))
    return folder


@pytest.fixture
def settings(root: Path) -> Settings:
    return load_settings(roots=str(root))


@pytest.fixture
def peak() -> Callable[[], int]:
    """Tell how many bytes of memory this process took above what it had, at most."""

    def memory(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

    Path("/proc/self/clear_refs").write_text("5")  # forget the highest so far
    before = memory("VmRSS")
    return lambda: memory("VmHWM") - before


@pytest.mark.parametrize(
    "extension", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".avif", ".heic", ".jp2", ".ppm"]
)
@pytest.mark.parametrize("name", ["wrong.jpg", "wrong.PNG", "wrong.dat", "wrong"])
def test_the_format_is_told_by_the_content_whatever_the_name(
    extension: str, name: str, root: Path, settings: Settings
) -> None:
    (root / name).write_bytes(encoded(extension))
    found = job(list(Scan([str(root / name)])), settings)[str(root / name)]
    assert isinstance(found, Fetched)
    assert (found.width, found.height, found.crops[0].shape) == (WIDTH, HEIGHT, (224, 224, 3))


def test_files_that_are_not_what_they_are_called_each_have_a_status(
    root: Path, settings: Settings, peak: Callable[[], int]
) -> None:
    files = {
        "zip bomb.jpg": (zip_bomb(), Status.UNSUPPORTED),
        "gzip bomb.png": (gzip.compress(bytes(50_000_000)), Status.UNSUPPORTED),
        "drawing.jpg": (b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'/>", Status.UNSUPPORTED),
        "laughs.jpg": (b'<!DOCTYPE a [<!ENTITY b "ha">]><svg>' + b"&b;" * 1000 + b"</svg>", Status.UNSUPPORTED),
        "page.png": (b"<html><script>alert(1)</script></html>", Status.UNSUPPORTED),
        "document.jpg": (b"%PDF-1.7\n%%EOF", Status.UNSUPPORTED),
        "film.heic": (b"\0\0\0\x18ftypisom\0\0\2\0isommp41" + bytes(1000), Status.UNSUPPORTED),
        "program.jpg": (b"\x7fELF" + bytes(1000), Status.UNSUPPORTED),
        "zeros.jpg": (bytes(10**6), Status.UNSUPPORTED),
        "empty.jpg": (b"", Status.TRUNCATED),
        "cut off.jpg": (encoded(".jpg")[:300], Status.TRUNCATED),
        "huge.png": (huge_png(), Status.TOO_LARGE),
    }
    assert len(files["huge.png"][0]) < 60_000
    for name, (content, _) in files.items():
        (root / name).write_bytes(content)
    del content
    expected = {name: status for name, (_, status) in files.items()}
    assert statuses(root, settings) == {"a good one.png": Status.OK, "z good one.png": Status.OK} | expected
    assert peak() < 50 * 2**20


@pytest.mark.parametrize(
    "extension", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".avif", ".heic", ".jp2", ".ppm"]
)
def test_a_header_that_states_thirty_thousand_pixels_a_side_is_believed_and_takes_no_memory(
    extension: str, root: Path, settings: Settings, peak: Callable[[], int]
) -> None:
    (root / "huge.jpg").write_bytes(stating(extension, HUGE, HUGE))
    good = {"a good one.png": Status.OK, "z good one.png": Status.OK}
    assert statuses(root, settings) == good | {"huge.jpg": Status.TOO_LARGE}
    assert peak() < 50 * 2**20


@pytest.mark.parametrize(
    "extension", [".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".avif", ".heic", ".jp2", ".ppm"]
)
@pytest.mark.parametrize("sides", [(1, 1), (16, 16), (9000, 9000)])
def test_a_header_that_states_another_size_leads_to_pixels_or_a_named_failure(
    extension: str, sides: tuple[int, int], root: Path, settings: Settings
) -> None:
    (root / "liar.jpg").write_bytes(stating(extension, *sides))
    assert statuses(root, settings)["a good one.png"] is Status.OK


@pytest.mark.timeout(30)
def test_what_is_no_regular_file_is_named_and_never_waited_for(root: Path, settings: Settings) -> None:
    os.mkfifo(root / "pipe.jpg")
    (root / "zero.jpg").symlink_to("/dev/zero")
    (root / "full.jpg").symlink_to("/dev/full")
    (root / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "loop.jpg").symlink_to("loop.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        handle = os.open(root, os.O_RDONLY)
        listener.bind(f"/proc/self/fd/{handle}/socket.jpg")
        os.close(handle)
    expected = {
        "a good one.png": Status.OK,
        "z good one.png": Status.OK,
        "pipe.jpg": Status.UNSUPPORTED,
        "socket.jpg": Status.UNSUPPORTED,
        "gone.jpg": Status.NOT_FOUND,
        "loop.jpg": Status.NOT_FOUND,
    }
    outside = dict.fromkeys(("zero.jpg", "full.jpg"), Status.UNREADABLE)
    assert statuses(root, settings) == expected | outside
    device = dict.fromkeys(("zero.jpg", "full.jpg"), Status.UNSUPPORTED)
    assert statuses(root, load_settings(roots="/")) == expected | device


def test_links_out_of_the_root_are_refused_and_folders_in_a_loop_are_listed_once(
    root: Path, settings: Settings
) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    (outside / "secret.png").write_bytes(encoded(".png"))
    (root / "secret.png").symlink_to("../outside/secret.png")
    (root / "absolute.png").symlink_to(outside / "secret.png")
    (root / "folder").symlink_to(outside)
    (root / "self").symlink_to(".")
    (root / "sub").mkdir()
    (root / "sub" / "up").symlink_to("..")
    (root / "sub" / "inside.png").symlink_to("../a good one.png")
    refused = ("secret.png", "absolute.png", "folder/secret.png")
    good = ("a good one.png", "z good one.png", "sub/inside.png")
    assert statuses(root, settings) == dict.fromkeys(refused, Status.UNREADABLE) | dict.fromkeys(good, Status.OK)


def test_what_is_swapped_behind_the_listing_is_looked_at_anew(root: Path) -> None:
    names = ("linked.png", "piped.png", "grown.png", "gone.png", "folder.png")
    for name in names:
        (root / name).write_bytes(encoded(".png"))
    (root.parent / "secret.png").write_bytes(encoded(".png"))
    refs = list(Scan([str(root)]))
    for name in names:
        (root / name).unlink()
    (root / "linked.png").symlink_to("../secret.png")
    os.mkfifo(root / "piped.png")
    (root / "grown.png").write_bytes(encoded(".png") + bytes(100_000))
    (root / "folder.png").mkdir()

    found = job(refs, load_settings(roots=str(root), max_bytes=100_000))

    failures = {Path(uri).name: outcome.status for uri, outcome in found.items() if isinstance(outcome, Outcome)}
    assert failures == {
        "linked.png": Status.UNREADABLE,
        "piped.png": Status.UNSUPPORTED,
        "grown.png": Status.TOO_LARGE,
        "gone.png": Status.NOT_FOUND,
        "folder.png": Status.UNSUPPORTED,
    }


def test_a_folder_that_may_not_be_listed_is_reported_and_the_rest_is_scored(
    root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "closed").mkdir()
    scandir = os.scandir

    def forbidding(path: str) -> object:
        if path == str(root / "closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidding)
    scan = Scan([str(root)])
    assert all(isinstance(found, Fetched) for found in job(list(scan), settings).values())
    assert scan.unlistable == [f"{root}/closed: Permission denied"]


@pytest.mark.parametrize(
    "name",
    ["\n\r\t.png", "\x1b[31m.png", "<script>alert(1)</script>.png", "';--\".png", "a" * 251 + ".png", "#%41.png"],
)
def test_odd_names_are_read_like_any_other(name: str, root: Path, settings: Settings) -> None:
    folder = root / name.replace("/", "\N{FRACTION SLASH}")
    folder.mkdir()
    (folder / folder.name).write_bytes(encoded(".png"))
    assert set(statuses(root, settings).values()) == {Status.OK}
    assert len(statuses(root, settings)) == 3


def test_paths_of_four_thousand_characters_are_read_and_longer_ones_are_reported(
    root: Path, settings: Settings
) -> None:
    handle = os.open(root, os.O_RDONLY)
    length = len(str(root))
    images = []
    for _ in range(25):
        file = os.open("a.png", os.O_WRONLY | os.O_CREAT, dir_fd=handle)
        os.write(file, encoded(".png"))
        os.close(file)
        images.append(length + len("/a.png"))
        os.mkdir("n" * 200, dir_fd=handle)
        below = os.open("n" * 200, os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = below
        length += 201
    os.close(handle)
    scan = Scan([str(root)])
    found = job(list(scan), settings)
    opened = [uri for uri, outcome in found.items() if isinstance(outcome, Fetched)]
    assert len(opened) == 2 + sum(length < 4096 for length in images)
    assert max(map(len, opened)) > 3_800
    assert {outcome.status for outcome in found.values() if isinstance(outcome, Outcome)} <= {Status.NOT_FOUND}
    assert [line.rpartition(": ")[2] for line in scan.unlistable] == ["File name too long"]


@pytest.mark.parametrize(
    "forged",
    [
        "file://{root}/%2e%2e/secret.png",
        "file://{root}/..%2fsecret.png",
        "file://{root}%2f..%2fsecret.png",
        "{root}/../secret.png",
        "{root}/./../secret.png",
        "{root}//..//secret.png",
        "{root}/sub/up/../../secret.png",
        "/../{root}/../secret.png",
        "{root}-2/secret.png",
        "{secret}",
        "file://{secret}",
        "file:{secret}",
        "file:/{secret}",
        "file:///{secret}",
        "FILE://{secret}",
        "File://{root}/a good one.png",
        "file:{root}/a good one.png",
        "file://host{root}/a good one.png",
        "file://localhost{root}/a good one.png",
        "file://./a good one.png",
        "file://",
        "a good one.png",
        "",
        " {root}/a good one.png",
        "{root}/a good one.png%00.jpg",
        "file://{root}/a%20good%20one.png%00.jpg",
        "{root}/a good one.png\0",
        "{root}/{long}",
        "/{long}",
        "file:///{long}",
        "https://{long}/a.png",
        "/proc/self/environ",
        "/proc/self/fd/0",
        "/dev/stdin",
        "ftp://host/a.png",
        "data:image/png;base64,AAAA",
        "gopher://127.0.0.1/a.png",
        "zip://{root}/a.zip#a.png",
        "s3://bucket/a.png",
        "gs://../a.png",
        "https://127.0.0.1/a.png",
        "http://169.254.169.254/latest/meta-data/",
        "{root}/../outside.zip#a.png",
        "file://{root}/%2e%2e/outside.tar#a.png",
    ],
)
def test_a_forged_name_in_a_message_reads_nothing(
    forged: str, root: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root)
    (root.parent / "secret.png").write_bytes(encoded(".png"))
    (root / "sub").mkdir()
    uri = forged.format(root=root, secret=root.parent / "secret.png", long="n" * 4000)
    found = job([ImageRef(uri, "", 0), ImageRef(f"{root}/a good one.png", "", 0)], settings)
    assert isinstance(found[uri], Outcome)
    assert found[uri].digest is None
    assert isinstance(found[f"{root}/a good one.png"], Fetched)
    # The job itself is refused before, unless the name leads to no file at all.
    assert not is_named_inside(uri, settings.roots) or found[uri].status is Status.NOT_FOUND


def test_a_source_may_be_named_by_a_file_uri(root: Path) -> None:
    (root / "caf\udce9").mkdir()
    (root / "caf\udce9" / "a.png").write_bytes(encoded(".png"))
    everything = {ref.uri for ref in Scan([str(root)])}
    assert {ref.uri for ref in Scan([f"file://{quote(str(root))}"])} == everything
    assert len(list(Scan([f"file://{quote(str(root))}/caf%E9"]))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "file://host/data",
        "file://",
        "file:///gone",
        "file:///a%00b",
        "FILE:///data",
        "file:/gone",
        "ftp://host/data",
        "/gone",
        "/" + "n" * 4000,
        "/\udce9",
        "gone\n\x1b[31m",
        "https://127.0.0.1:1/a.jpg",
        "https://user@127.0.0.1/a.jpg",
        "https:///a.jpg",
        "https://[/a.jpg",
    ],
)
def test_a_source_that_cannot_be_listed_is_one_named_mistake(source: str) -> None:
    with pytest.raises(SourceError, match="source "):
        Scan([source])


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A web server; whatever was connected before is forgotten."""
    addresses._look_up.cache_clear()
    monkeypatch.setattr(web, "_pools", web._new_pools())
    with running(Site()) as site:
        yield site
    web._pools.clear()


def test_hostile_pages_each_have_a_status_and_the_good_ones_are_scored(site: Site) -> None:
    image = encoded(".jpg")
    with running(Site("127.0.0.2")) as inside:
        inside.pages["/secret.jpg"] = page(image)
        site.pages |= {
            "/good.jpg": page(image),
            "/flaky.jpg": in_turn(page(b"", 500), reset, page(image[:-9], length=len(image)), page(image)),
            "/moved.jpg": page(b"", 301, Location="/good.jpg"),
            "/inside.jpg": page(b"", 302, Location=f"{inside.origin}/secret.jpg"),
            "/circle.jpg": page(b"", 302, Location="/circle.jpg"),
            "/large.jpg": page(bytes(100_001)),
            "/bomb.jpg": page(gzip.compress(bytes(10**7)), Content_Encoding="gzip"),
            "/page.jpg": page(b"<html>", Content_Type="image/jpeg"),
            "/closed.jpg": page(b"", 403),
        }
        names = [*site.pages, "/gone.jpg"]
        found = job(
            [ImageRef(site.origin + name, "", 0) for name in names],
            load_settings(roots=f"https://:http://:{site.origin}", max_bytes=100_000),
        )
        assert inside.seen == []
    failures = {
        uri.removeprefix(site.origin): outcome.status for uri, outcome in found.items() if isinstance(outcome, Outcome)
    }
    assert failures == {
        "/inside.jpg": Status.UNREADABLE,
        "/circle.jpg": Status.UNREADABLE,
        "/large.jpg": Status.TOO_LARGE,
        "/bomb.jpg": Status.UNREADABLE,
        "/page.jpg": Status.UNSUPPORTED,
        "/closed.jpg": Status.UNREADABLE,
        "/gone.jpg": Status.NOT_FOUND,
    }
