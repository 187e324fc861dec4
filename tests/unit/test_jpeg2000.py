"""JPEG 2000 files of a few hundred bytes that ask for gigabytes or hours are refused; real ones are not."""

import struct
from io import BytesIO

import cv2
import pytest
from PIL import Image

from core.errors import ImageError
from core.jpeg2000 import has_too_many_parts
from core.settings import load_settings
from core.verdicts import Status
from db.thumbnails import shrink
from model.preprocess import decode


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", 8 + len(body)) + name + body


def style(layers: int = 1, levels: int = 0, precincts: bytes = b"") -> bytes:
    body = struct.pack(">BBHBBBBBB", bool(precincts), 0, layers, 0, levels, 4, 4, 0, 1)
    return segment(0x52, body + precincts)


def jp2(side: int, *, tile: int = 0, styles: bytes = b"", in_tile: bytes = b"") -> bytes:
    """An image of one colour and three components, of the style of its header, and of that of its first tile's."""
    tile = tile or side
    size = struct.pack(">H8IH", 0, side, side, 0, 0, tile, tile, 0, 0, 3) + b"\x07\x01\x01" * 3
    part = in_tile + b"\xff\x93" + bytes(100)
    start = segment(0x90, struct.pack(">HIBB", 0, 12 + len(part), 0, 1))
    header = segment(0x51, size) + (styles or style()) + segment(0x5C, b"\x40\x40")
    stream = b"\xff\x4f" + header + start + part + b"\xff\xd9"
    about = box(b"ihdr", struct.pack(">IIHBBBB", side, side, 3, 7, 7, 0, 0)) + box(
        b"colr", struct.pack(">BBBI", 1, 0, 0, 16)
    )
    kind = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return kind + box(b"jp2h", about) + box(b"jp2c", stream)


def component_style(precincts: bytes, number: bytes = b"\0") -> bytes:
    return segment(0x53, number + bytes([1, 0, 4, 4, 0, 1]) + precincts)


def test_the_files_of_these_tests_are_images() -> None:
    found = decode(jp2(300), "card", max_pixels=10**6)
    assert (found.width, found.height) == (300, 300)


@pytest.mark.parametrize(
    "data",
    [
        jp2(2000, styles=style(precincts=b"\0")),  # 6.6 GB, measured
        jp2(2000, in_tile=style(precincts=b"\0")),
        jp2(2000, styles=style() + component_style(b"\0")),
        jp2(1000, styles=style(layers=1000, precincts=b"\x11")),
        jp2(1000, tile=8, styles=style(layers=65535)),  # minutes
        jp2(1000, tile=1),
        jp2(4000, styles=style(levels=5, precincts=b"\xff\xff\xff\xff\xff\x11")),
    ],
    ids=["precincts", "tile's", "component's", "layers", "tiles and layers", "tiles", "one resolution"],
)
def test_more_parts_than_any_real_image_has_are_refused_before_decoding(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(ImageError, match="precincts") as caught:
        decode(data, "card", max_pixels=10**8)
    assert caught.value.status is Status.UNREADABLE
    assert len(data) < 1000


def test_pillow_does_not_get_them_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image.Image, "thumbnail", lambda *_: pytest.fail("was decoded"))
    with pytest.raises(ImageError, match="precincts"):
        shrink(jp2(2000, styles=style(precincts=b"\0")), load_settings(), 224)


@pytest.mark.parametrize(
    "data",
    [
        jp2(10_000),
        jp2(10_000, tile=256, styles=style(layers=20, levels=5)),
        jp2(10_000, styles=style(layers=25, levels=6, precincts=b"\x77" * 5 + b"\x88\x88")),
        jp2(1, styles=style(layers=65535)),
    ],
    ids=["plain", "tiled", "an archive's", "small"],
)
def test_what_programs_write_is_not_refused(data: bytes) -> None:
    assert not has_too_many_parts(data)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"tile_size": (64, 64)},
        {"precinct_size": (64, 64)},
        {"quality_layers": [40, 20, 10, 5], "num_resolutions": 6},
    ],
    ids=str,
)
def test_files_of_another_program_are_decoded(options: dict[str, object]) -> None:
    file = BytesIO()
    Image.linear_gradient("L").resize((500, 400)).convert("RGB").save(file, "JPEG2000", **options)
    assert decode(file.getvalue(), "card", max_pixels=10**6).width == 500


def test_bytes_that_look_like_a_header_but_have_another_length_do_not_count() -> None:
    look_alike = b"\xff\x52" + struct.pack(">HBBHBBBBBB", 99, 1, 0, 65535, 0, 0, 4, 4, 0, 1) + b"\0"
    assert not has_too_many_parts(jp2(2000) + look_alike)


def test_a_component_whose_number_has_two_bytes_counts_too() -> None:
    assert has_too_many_parts(jp2(2000, styles=style() + component_style(b"\0", number=b"\0\0")))


def test_a_size_cannot_hide_behind_bytes_that_look_like_one() -> None:
    hostile = jp2(2000, styles=style(precincts=b"\0"))
    size = hostile.index(b"\xff\x4f\xff\x51")
    assert has_too_many_parts(hostile[:size] + b"\xff\x4f\xff\x51" + bytes(10) + hostile[size:])


@pytest.mark.timeout(120)
def test_a_file_full_of_harmless_headers_is_gone_through_once() -> None:
    sound = jp2(64)
    header = sound[sound.index(b"\xff\x4f") : sound.index(b"\xff\x90")] + component_style(b"\xff")
    assert not has_too_many_parts(sound + header * (10**7 // len(header)))


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["sizes", "styles"])
def test_a_file_of_ten_thousand_headers_that_all_differ_is_refused(kind: str) -> None:
    numbers = range(1, 10_001)
    if kind == "sizes":
        headers = [jp2(number)[85:] for number in numbers]
    else:
        headers = [style(layers=number) for number in numbers]
    assert has_too_many_parts(jp2(64) + b"".join(headers))
    assert not has_too_many_parts(jp2(64) + b"".join(headers[:9]))
