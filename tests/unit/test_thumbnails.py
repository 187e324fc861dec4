"""Small copies of images: of every kind, without what else a file holds, and a reason where there is none."""

from base64 import b64decode
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageChops, ImageStat

from core.settings import load_settings
from db.thumbnails import SIDE, Thumbnail, make_thumbnail, make_thumbnails
from tests.pictured import draw_face


def thumbnail_of(content: bytes, tmp_path: Path, digest: bytes | None = None, **settings: Any) -> Thumbnail:
    """Make the thumbnail of a file with this content."""
    path = tmp_path / "image"
    path.write_bytes(content)
    (made,) = make_thumbnails([(str(path), digest, "")], load_settings(**settings), lambda done, total: None)
    return made


def picture_of(thumbnail: Thumbnail) -> Image.Image:
    """Decode a thumbnail."""
    kind, _, text = thumbnail.source.partition(",")
    assert kind == "data:image/webp;base64", thumbnail.reason
    return Image.open(BytesIO(b64decode(text)))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as a file."""
    target = BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF"])
def test_a_picture_of_each_format_becomes_a_small_one(kind: str, tmp_path: Path) -> None:
    face = draw_face(1, 800, 600)
    made = thumbnail_of(encoded(face, kind), tmp_path)
    picture = picture_of(made).convert("RGB")
    assert picture.size == (SIDE, SIDE * 3 // 4)
    assert len(made.source) < 8000
    difference = ImageChops.difference(picture, face.resize(picture.size, Image.Resampling.BOX))
    assert max(ImageStat.Stat(difference).mean) < 8


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16"])
def test_a_picture_of_each_mode_becomes_a_small_one(mode: str, tmp_path: Path) -> None:
    image = draw_face(1).convert("L" if mode == "I;16" else mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    assert picture_of(thumbnail_of(encoded(image.convert(mode), kind), tmp_path)).size == (SIDE, SIDE)


def test_a_picture_stands_as_its_camera_was_held_and_tells_nothing_else(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn it by 90 degrees
    exif[0x010E] = "the secret place"
    content = encoded(draw_face(1, 400, 200), "JPEG", exif=exif, comment=b"a secret comment")
    picture = picture_of(thumbnail_of(content, tmp_path))
    assert picture.size == (SIDE // 2, SIDE)
    assert not picture.getexif()
    assert not {"exif", "icc_profile", "xmp"} & set(picture.info)


def test_a_small_picture_is_not_made_larger(tmp_path: Path) -> None:
    assert picture_of(thumbnail_of(encoded(draw_face(1, 40, 30), "PNG"), tmp_path)).size == (40, 30)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an image of a known format"),
        (b"not an image at all", "not an image of a known format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n", "not an image of a known format"),
        (encoded(draw_face(1), "JPEG")[:3000], "truncated"),
        (encoded(draw_face(1), "PNG")[:3000], "truncated"),
        (encoded(Image.new("1", (40_000, 40_000)), "PNG"), "pixels"),
    ],
    ids=["empty", "text", "PostScript", "half a JPEG", "half a PNG", "a bomb"],
)
def test_what_is_no_picture_has_a_reason(content: bytes, reason: str, tmp_path: Path) -> None:
    made = thumbnail_of(content, tmp_path)
    assert made.source == ""
    assert reason in made.reason
    assert "0x" not in made.reason


def test_limits_and_roots_are_those_of_a_worker(tmp_path: Path) -> None:
    content = encoded(draw_face(1), "PNG")
    assert thumbnail_of(content, tmp_path, max_pixels=1000).reason == "65536 pixels, the limit is 1000"
    assert "the limit is 1000" in thumbnail_of(content, tmp_path, max_bytes=1000).reason
    assert "outside the allowed roots" in thumbnail_of(content, tmp_path, roots=(tmp_path / "faces",)).reason


@pytest.mark.parametrize("uri", ["/no/such/file.jpg", "ftp://bucket/a.jpg", "file:///caf%E9.jpg"])
def test_a_file_that_is_gone_or_elsewhere_has_a_reason(uri: str) -> None:
    made = make_thumbnail(uri, None, "", load_settings())
    assert made.source == ""
    assert made.reason


def test_a_file_that_changed_since_it_was_scored_is_told_so(tmp_path: Path) -> None:
    content = encoded(draw_face(1), "PNG")
    digest = sha256(content).digest()[:16]
    assert not thumbnail_of(content, tmp_path, digest).is_changed
    assert thumbnail_of(content + b"\0", tmp_path, digest).is_changed


def test_progress_is_reported_for_each_picture(tmp_path: Path) -> None:
    calls = []
    images = [(str(tmp_path / f"{index}.jpg"), None, "") for index in range(5)]
    made = make_thumbnails(images, load_settings(), lambda done, total: calls.append((done, total)))
    assert [one.reason for one in made] == ["the file is gone"] * 5
    assert calls == [(number, 5) for number in range(1, 6)]
