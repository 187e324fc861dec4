"""Decoding: the same pixels as the published model's own snippet, and a named failure for everything else."""

import random
import struct
import sys
import zlib
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pillow_heif
import pytest
from numpy.typing import NDArray

from core.errors import ImageError
from core.verdicts import Status
from model import heic
from model.preprocess import SIDE, configure_cv2, decode, difference_hash, scale

MAX_PIXELS = 10**6
WIDTH, HEIGHT = 301, 207
EXTENSIONS = (".jpg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".avif", ".jp2", ".ppm", ".pgm")
ANIMATED = (".gif", ".webp", ".png")
configure_cv2()


@cache
def picture(width: int = WIDTH, height: int = HEIGHT) -> NDArray[np.uint8]:
    """A colour image, smooth enough to compress, of which no two parts are alike."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


@cache
def encoded(extension: str) -> bytes:
    image = cv2.cvtColor(picture(), cv2.COLOR_BGR2GRAY) if extension == ".pgm" else picture()
    return encode(extension, image)


@cache
def animated(extension: str) -> bytes:
    animation = cv2.Animation()
    animation.frames = [picture(), 255 - picture(), picture() // 2]
    animation.durations = [50, 50, 50]
    done, data = cv2.imencodeanimation(extension, animation)
    assert done
    return data.tobytes()


def encode(extension: str, image: NDArray[Any], *options: int) -> bytes:
    done, data = cv2.imencode(extension, image, options)
    assert done
    return data.tobytes()


@cache
def heic_of(kind: str = "", orientation: int = 0, tile_size: int = 0) -> bytes:
    """The colour image as HEIC: of one channel, with alpha, of more bits; turned as cameras say it; or in tiles."""
    image = cv2.cvtColor(picture(), cv2.COLOR_BGR2GRAY) if kind.startswith("L") else picture()
    if "A" in kind:
        image = np.dstack([image, image[:, :, 0]])
    if kind.endswith("16"):
        image = image.astype(np.uint16) * 257
    exif = {"exif": b"Exif\0\0" + exif_orientation(orientation)} if orientation else {}
    file = BytesIO()
    options = {"quality": 90, "chroma": 444, "tile_size": tile_size} | exif
    pillow_heif.encode(kind or "BGR", (WIDTH, HEIGHT), image.tobytes(), file, **options)
    return file.getvalue()


def as_the_card_does(path: Path) -> NDArray[np.float32]:
    """What the published model's card tells its users to do."""
    image = cv2.imread(str(path))
    image = cv2.resize(image, (224, 224))
    return (image / 255.0).astype(np.float32)


def assert_like_the_card(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(data)
    found = decode(data, "card", max_pixels=MAX_PIXELS)
    assert found.pixels.dtype == np.uint8
    assert found.pixels.shape == (224, 224, 3)
    np.testing.assert_array_equal(scale(found.pixels), as_the_card_does(path))


def failure_of(data: bytes, max_pixels: int = MAX_PIXELS) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data, "card", max_pixels=max_pixels)
    assert caught.value.reason
    return caught.value


def exif_orientation(orientation: int) -> bytes:
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)


def with_exif_orientation(jpeg: bytes, orientation: int) -> bytes:
    body = b"Exif\0\0" + exif_orientation(orientation)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def png_chunk(name: bytes, body: bytes, stated_length: int | None = None) -> bytes:
    length = len(body) if stated_length is None else stated_length
    return struct.pack(">I", length) + name + body + struct.pack(">I", zlib.crc32(name + body))


def cmyk_jpeg(ink: tuple[int, int, int, int]) -> bytes:
    """One block of one colour, written by hand: its first coefficients are all there is.

    Args:
        ink: cyan, magenta, yellow, key; 255 is none, as Adobe writes it.
    """
    bits = ""
    for value in ink:
        first = 8 * (value - 128)
        category = abs(first).bit_length()
        code = {0: "00", 10: "01", 11: "10"}[category]
        digits = f"{first if first > 0 else first + (1 << category) - 1:0{category}b}" if category else ""
        bits += code + digits + "0"  # the other coefficients: none
    bits += "1" * (-len(bits) % 8)
    scan = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    segments = [
        (0xEE, b"Adobe\0\x64\0\0\0\0\0"),
        (0xDB, b"\0" + b"\1" * 64),
        (0xC0, b"\x08" + struct.pack(">HHB", 8, 8, 4) + b"".join(bytes([i, 0x11, 0]) for i in range(1, 5))),
        (0xC4, b"\0" + bytes([0, 3]) + bytes(14) + bytes([0, 10, 11])),
        (0xC4, b"\x10" + bytes([1]) + bytes(15) + b"\0"),
        (0xDA, b"\4" + b"".join(bytes([i, 0]) for i in range(1, 5)) + b"\0\x3f\0"),
    ]
    head = b"".join(bytes([0xFF, kind]) + struct.pack(">H", len(body) + 2) + body for kind, body in segments)
    return b"\xff\xd8" + head + scan + b"\xff\xd9"


@pytest.mark.parametrize("preset", ["card", "rgb-area", "rgb-scaled"])
@pytest.mark.parametrize("size", [(SIDE, SIDE), (100, 90), (500, 700)])
def test_pixels_are_put_where_the_caller_wants_them(preset: str, size: tuple[int, int]) -> None:
    data = encode(".jpg", picture(*size))
    places = np.zeros((3, SIDE, SIDE, 3), np.uint8)
    decoded = decode(data, preset, max_pixels=10**6, out=places[1])
    assert np.shares_memory(decoded.pixels, places[1])
    assert np.array_equal(places[1], decode(data, preset, max_pixels=10**6).pixels)
    assert not places[0].any()
    assert not places[2].any()


def bits_apart(one: int, other: int) -> int:
    return ((one ^ other) & (2**64 - 1)).bit_count()


def test_the_hash_of_a_picture_stays_alike_when_it_is_resized_and_compressed() -> None:
    original = difference_hash(picture())
    copies = [
        picture(120, 83),
        cv2.imdecode(np.frombuffer(encode(".jpg", picture(), cv2.IMWRITE_JPEG_QUALITY, 30), np.uint8), 1),
        cv2.cvtColor(picture(), cv2.COLOR_BGR2RGB),
    ]
    assert [bits_apart(original, difference_hash(copy)) <= 3 for copy in copies] == [True] * 3


def test_the_hashes_of_different_pictures_differ_in_many_bits() -> None:
    hashes = [difference_hash(turned) for turned in (picture(), picture()[:, ::-1], picture()[::-1], 255 - picture())]
    apart = [bits_apart(one, other) for index, one in enumerate(hashes) for other in hashes[:index]]
    assert min(apart) > 10


def test_a_hash_is_a_signed_number_of_64_bits_that_grows_where_it_gets_brighter() -> None:
    ramp = np.repeat(np.linspace(0, 255, 224).astype(np.uint8)[None, :, None], 224, axis=0).repeat(3, axis=2)
    assert difference_hash(ramp) == -1  # all bits
    assert difference_hash(ramp[:, ::-1]) == difference_hash(np.zeros((8, 9, 3), np.uint8)) == 0


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_the_card_preset_gives_the_bits_of_the_cards_own_snippet(extension: str, tmp_path: Path) -> None:
    assert_like_the_card(encoded(extension), tmp_path)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (3, 501), (97, 33), (224, 224), (225, 223), (1009, 611)])
def test_the_card_preset_gives_the_snippets_bits_for_any_size(width: int, height: int, tmp_path: Path) -> None:
    assert_like_the_card(encode(".jpg", picture(width, height)), tmp_path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_is_applied(orientation: int, tmp_path: Path) -> None:
    data = with_exif_orientation(encoded(".jpg"), orientation)

    assert_like_the_card(data, tmp_path)
    found = decode(data, "card", max_pixels=MAX_PIXELS)
    assert (found.width, found.height) == ((WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH))
    upright = decode(encoded(".jpg"), "card", max_pixels=MAX_PIXELS)
    assert np.array_equal(found.pixels, upright.pixels) == (orientation == 1)


def test_alpha_is_dropped(tmp_path: Path) -> None:
    alpha = np.arange(WIDTH * HEIGHT, dtype=np.uint8).reshape(HEIGHT, WIDTH)
    data = encode(".png", np.dstack([picture(), alpha]))

    assert_like_the_card(data, tmp_path)
    opaque = decode(encoded(".png"), "card", max_pixels=MAX_PIXELS)
    np.testing.assert_array_equal(decode(data, "card", max_pixels=MAX_PIXELS).pixels, opaque.pixels)


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_sixteen_bits_a_channel_are_converted_to_eight(extension: str, tmp_path: Path) -> None:
    data = encode(extension, picture().astype(np.uint16) * 257)

    assert_like_the_card(data, tmp_path)
    eight = decode(encoded(".png"), "card", max_pixels=MAX_PIXELS)
    np.testing.assert_array_equal(decode(data, "card", max_pixels=MAX_PIXELS).pixels, eight.pixels)


def test_grey_images_get_three_equal_channels(tmp_path: Path) -> None:
    data = encode(".jpg", cv2.cvtColor(picture(), cv2.COLOR_BGR2GRAY))

    assert_like_the_card(data, tmp_path)
    pixels = decode(data, "card", max_pixels=MAX_PIXELS).pixels
    assert (pixels == pixels[:, :, :1]).all()


def test_cmyk_is_converted(tmp_path: Path) -> None:
    cyan = cmyk_jpeg((0, 255, 255, 255))

    assert_like_the_card(cyan, tmp_path)
    blue, green, red = decode(cyan, "card", max_pixels=MAX_PIXELS).pixels[0, 0]
    assert min(blue, green) > 250
    assert red < 5


@pytest.mark.parametrize("extension", ANIMATED)
def test_the_first_frame_of_an_animation_is_taken(extension: str, tmp_path: Path) -> None:
    found = decode(animated(extension), "card", max_pixels=MAX_PIXELS)

    assert_like_the_card(animated(extension), tmp_path)
    first = decode(encoded(extension), "card", max_pixels=MAX_PIXELS)
    assert np.abs(found.pixels.astype(int) - first.pixels).mean() < 3


def test_of_an_animated_png_with_a_hidden_image_that_image_is_taken() -> None:
    data = animated(".png")
    start = data.index(b"fcTL") - 4
    hidden = data[:start] + data[start + 12 + 26 :]  # without its frame's control, the first image is not animated

    still = decode(encoded(".png"), "card", max_pixels=MAX_PIXELS)
    np.testing.assert_array_equal(decode(hidden, "card", max_pixels=MAX_PIXELS).pixels, still.pixels)


@pytest.mark.parametrize(
    ("width", "height", "method"),
    [(301, 207, cv2.INTER_LINEAR), (448, 448, cv2.INTER_AREA), (901, 333, cv2.INTER_AREA), (90, 70, cv2.INTER_LINEAR)],
)
def test_the_rgb_preset_averages_where_it_shrinks(width: int, height: int, method: int) -> None:
    image = picture(width, height)

    found = decode(encode(".png", image), "rgb-area", max_pixels=MAX_PIXELS)

    rgb = np.ascontiguousarray(image[:, :, ::-1])
    np.testing.assert_array_equal(found.pixels, cv2.resize(rgb, (224, 224), interpolation=method))


@pytest.mark.parametrize(
    ("width", "height", "reduction", "method"),
    [
        (256, 256, 1, cv2.INTER_LINEAR),
        (447, 600, 1, cv2.INTER_LINEAR),
        (449, 600, 2, cv2.INTER_LINEAR),
        (1025, 1001, 4, cv2.INTER_LINEAR),
        (3000, 450, 2, cv2.INTER_LINEAR),
        (4501, 4100, 8, cv2.INTER_AREA),
    ],
)
@pytest.mark.parametrize("orientation", [1, 6])
def test_the_scaled_preset_decodes_a_jpeg_at_a_fraction_of_its_size(
    width: int, height: int, reduction: int, method: int, orientation: int, tmp_path: Path
) -> None:
    data = with_exif_orientation(encode(".jpg", picture(width, height)), orientation)
    flags = {1: cv2.IMREAD_COLOR_BGR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4}

    found = decode(data, "rgb-scaled", max_pixels=2 * 10**7)

    (tmp_path / "image.jpg").write_bytes(data)
    small = cv2.imread(str(tmp_path / "image.jpg"), flags.get(reduction, cv2.IMREAD_REDUCED_COLOR_8))[:, :, ::-1]
    expected = cv2.resize(np.ascontiguousarray(small), (224, 224), interpolation=method)
    np.testing.assert_array_equal(found.pixels, expected)
    assert (found.width, found.height) == ((width, height) if orientation == 1 else (height, width))


def test_the_scaled_preset_hardly_differs_from_the_one_that_decodes_everything() -> None:
    data = encode(".jpg", cv2.GaussianBlur(picture(1000, 1200), (0, 0), 3))

    scaled, whole = (decode(data, preset, max_pixels=2 * 10**7).pixels for preset in ("rgb-scaled", "rgb-area"))

    assert np.abs(scaled.astype(int) - whole).mean() < 2


@pytest.mark.parametrize("extension", [".png", ".webp"])
def test_the_scaled_preset_decodes_other_formats_whole(extension: str) -> None:
    data = encode(extension, picture(448, 600))

    scaled, whole = (decode(data, preset, max_pixels=2 * 10**7) for preset in ("rgb-scaled", "rgb-area"))

    np.testing.assert_array_equal(scaled.pixels, whole.pixels)
    assert (scaled.width, scaled.height) == (448, 600)


def test_scaling_gives_the_bits_of_the_cards_division_for_every_value() -> None:
    values = np.arange(256, dtype=np.uint8)

    scaled = scale(values)

    assert scaled.dtype == np.float32
    np.testing.assert_array_equal(scaled, (values / 255.0).astype(np.float32))


def assert_alike(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> None:
    assert np.abs(found.astype(int) - expected).mean() < 2


@pytest.mark.parametrize("preset", ["card", "rgb-area", "rgb-scaled"])
def test_heic_gives_the_channels_in_the_order_of_each_preset(preset: str) -> None:
    found = decode(heic_of(), preset, max_pixels=MAX_PIXELS)

    assert (found.width, found.height) == (WIDTH, HEIGHT)
    assert found.pixels.dtype == np.uint8
    assert_alike(found.pixels, decode(encoded(".png"), preset, max_pixels=MAX_PIXELS).pixels)


@pytest.mark.parametrize("kind", ["L", "BGRA", "BGR;16", "L;16", "BGRA;16"])
def test_grey_alpha_and_more_bits_of_heic_are_converted(kind: str) -> None:
    found = decode(heic_of(kind), "card", max_pixels=MAX_PIXELS).pixels

    colour = cv2.cvtColor(picture(), cv2.COLOR_BGR2GRAY) if kind.startswith("L") else picture()
    assert_alike(found, decode(encode(".png", colour), "card", max_pixels=MAX_PIXELS).pixels)


def test_heic_in_tiles_as_phones_write_it_is_put_together() -> None:
    tiled = heic_of(tile_size=64)
    assert tiled.count(b"hvc1") > 4

    assert_alike(
        decode(tiled, "card", max_pixels=MAX_PIXELS).pixels, decode(heic_of(), "card", max_pixels=MAX_PIXELS).pixels
    )
    assert failure_of(tiled, max_pixels=64 * 64).status is Status.TOO_LARGE


def test_heic_that_is_larger_than_it_states_is_not_decoded() -> None:
    data = heic_of()
    start = data.index(b"ispe") + 8

    error = failure_of(data[:start] + struct.pack(">II", 16, 16) + data[start + 8 :])

    assert error.status is Status.UNREADABLE


@pytest.mark.parametrize("orientation", range(1, 9))
def test_heic_is_turned_once_though_exif_says_it_again(orientation: int) -> None:
    found = decode(heic_of(orientation=orientation), "card", max_pixels=MAX_PIXELS)

    assert (found.width, found.height) == ((WIDTH, HEIGHT) if orientation < 5 else (HEIGHT, WIDTH))
    turned = with_exif_orientation(encode(".jpg", picture(), cv2.IMWRITE_JPEG_QUALITY, 98), orientation)
    assert_alike(found.pixels, decode(turned, "card", max_pixels=MAX_PIXELS).pixels)


def test_heic_is_not_turned_by_exif_alone() -> None:
    data = heic_of(orientation=1)
    assert exif_orientation(1) in data

    found = decode(data.replace(exif_orientation(1), exif_orientation(6)), "card", max_pixels=MAX_PIXELS)

    np.testing.assert_array_equal(found.pixels, decode(data, "card", max_pixels=MAX_PIXELS).pixels)


def test_too_many_pixels_of_heic_are_refused_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heic, "decode_heic", lambda *_, **__: pytest.fail("was decoded"))

    error = failure_of(heic_of(), max_pixels=WIDTH * HEIGHT - 1)

    assert (error.status, str(WIDTH * HEIGHT) in error.reason) == (Status.TOO_LARGE, True)


@pytest.mark.parametrize("share", [0.001, 0.01, 0.05, 0.5, 0.99])
def test_heic_that_was_cut_off_is_truncated(share: float) -> None:
    data = heic_of()

    assert failure_of(data[: max(int(len(data) * share), 40)]).status is Status.TRUNCATED


def test_heic_that_holds_another_codec_is_unsupported() -> None:
    data = b"\0\0\0\x1cftypmif1" + bytes(4) + b"mif1heicmiaf" + encoded(".avif")[32:]

    error = failure_of(data)

    assert (error.status, "HEVC" in error.reason) == (Status.UNSUPPORTED, True)


def test_heic_without_its_library_is_unsupported_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic._library.cache_clear()

    error = failure_of(heic_of())

    assert error.status is Status.UNSUPPORTED
    assert "pip install 'facesieve[heic]'" in error.reason


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_too_many_pixels_are_refused_before_decoding(extension: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))

    error = failure_of(encoded(extension), max_pixels=WIDTH * HEIGHT - 1)

    assert error.status is Status.TOO_LARGE
    assert str(WIDTH * HEIGHT) in error.reason
    assert str(WIDTH * HEIGHT - 1) in error.reason


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_an_image_of_just_the_limit_is_decoded(extension: str) -> None:
    found = decode(encoded(extension), "card", max_pixels=WIDTH * HEIGHT)

    assert (found.width, found.height) == (WIDTH, HEIGHT)


def test_a_header_that_states_too_few_pixels_does_not_get_past_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imagesize.get", lambda _: (1, 1))

    assert failure_of(encoded(".jpg"), max_pixels=10).status is Status.TOO_LARGE


def test_a_jpeg_of_a_thousand_scans_is_refused_and_one_of_a_few_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(".jpg", picture(), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert data.count(b"\xff\xda") > 5
    last_scan = data[data.rindex(b"\xff\xda") : -2]

    decode(data[:-2] + 20 * last_scan + data[-2:], "card", max_pixels=MAX_PIXELS)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    error = failure_of(data[:-2] + 1000 * last_scan + data[-2:])

    assert (error.status, "scans" in error.reason) == (Status.UNREADABLE, True)


def test_bytes_that_look_like_scans_beside_the_image_are_not_counted() -> None:
    data = encoded(".jpg")
    look_alikes = b"\xff\xda\0\2" * 1000
    comment = b"\xff\xfe" + struct.pack(">H", len(look_alikes) + 2) + look_alikes

    found = decode(data[:2] + comment + data[2:] + look_alikes, "card", max_pixels=MAX_PIXELS)

    np.testing.assert_array_equal(found.pixels, decode(data, "card", max_pixels=MAX_PIXELS).pixels)


def tiled_tiff(order: str, side: int, kind: int = 4) -> bytes:
    """100 x 100 pixels that are said to be in tiles of so many pixels to a side."""
    numbers = {256: 100, 257: 100, 258: 8, 259: 1, 262: 2, 277: 4, 322: side, 323: side, 324: 8, 325: 1000}
    value = {4: "I", 3: "HH"}[kind]
    entries = b"".join(
        struct.pack(f"{order}HHI{value}", tag, kind, 1, number, *([0] if kind == 3 else []))
        for tag, number in numbers.items()
    )
    mark = b"II*\0" if order == "<" else b"MM\0*"
    return mark + struct.pack(f"{order}I", 1008) + bytes(1000) + struct.pack(f"{order}H", 10) + entries + bytes(4)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [3, 4])
def test_a_tiff_that_states_huge_tiles_is_refused_before_memory_is_taken(
    order: str, kind: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))

    error = failure_of(tiled_tiff(order, 16_000, kind))

    assert (error.status, "tiles" in error.reason) == (Status.UNREADABLE, True)


@pytest.mark.parametrize("side", [256, 4096])
def test_a_tiff_may_be_smaller_than_its_tiles(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: picture())

    assert decode(tiled_tiff("<", side), "card", max_pixels=MAX_PIXELS).width == WIDTH


@pytest.mark.parametrize("name", [b"tEXt", b"IDAT", b"PLTE"])
def test_a_png_that_states_a_huge_chunk_is_refused_before_memory_is_taken(
    name: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("was decoded"))
    data = encoded(".png")

    error = failure_of(data[:33] + png_chunk(name, b"abc", 0xFFFF_FFF0) + data[33:])

    assert error.status is Status.UNREADABLE


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.8, 0.97])
def test_a_file_that_was_cut_off_is_truncated(extension: str, share: float) -> None:
    data = encoded(extension)

    assert failure_of(data[: int(len(data) * share)]).status is Status.TRUNCATED


@pytest.mark.parametrize("extension", [".jpg", ".png", ".webp", ".gif", ".bmp", ".avif", ".jp2"])
def test_a_file_without_its_last_byte_is_truncated(extension: str) -> None:
    assert failure_of(encoded(extension)[:-1]).status is Status.TRUNCATED


def test_the_end_of_a_thumbnail_is_not_taken_for_the_end_of_the_image() -> None:
    thumbnail = b"\xff\xe1" + struct.pack(">H", 2 + len(encoded(".jpg"))) + encoded(".jpg")
    data = encoded(".jpg")[:2] + thumbnail + encoded(".jpg")[2:]

    assert decode(data, "card", max_pixels=MAX_PIXELS).width == WIDTH
    assert failure_of(data[:-1000]).status is Status.TRUNCATED


@pytest.mark.parametrize("extension", [".png", ".gif", ".avif"])  # the others decode to something
def test_a_complete_file_with_broken_content_is_unreadable(extension: str) -> None:
    data = bytearray(encoded(extension))
    middle = len(data) // 2
    data[middle : middle + 600] = bytes(600)

    assert failure_of(bytes(data)).status is Status.UNREADABLE


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"BMW and other words that start like a bitmap" * 3,
        b"<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>",
        b"%PDF-1.7\n",
        b"\0\0\0\x18ftypisom\0\0\0\0mp41isom" + bytes(99),
        b"RIFF\x24\0\0\0WAVEfmt " + bytes(99),
        b"PK\x03\x04" + bytes(99),
        bytes(1000),
    ],
)
def test_what_is_no_image_of_a_known_format_is_unsupported(data: bytes) -> None:
    error = failure_of(data)

    assert error.status is Status.UNSUPPORTED
    assert "JPEG" in error.reason


def test_an_empty_file_is_truncated() -> None:
    error = failure_of(b"")

    assert (error.status, error.reason) == (Status.TRUNCATED, "the file is empty")


def test_an_error_of_cv2_is_a_failure_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise cv2.error("assertion failed")

    monkeypatch.setattr(cv2, "imdecode", fail)

    assert failure_of(encoded(".jpg")).status is Status.UNREADABLE


@pytest.mark.parametrize("data", [*map(encoded, EXTENSIONS), *map(animated, ANIMATED), heic_of()])
def test_no_damage_leads_to_anything_but_pixels_or_a_named_failure(data: bytes) -> None:
    chance = random.Random(7)
    outcomes: set[Status] = set()
    for _ in range(40):
        damaged = bytearray(data)
        for _ in range(chance.choice([1, 5, 50])):
            damaged[chance.randrange(min(len(data), chance.choice([50, 500, 10**9])))] = chance.randrange(256)
        if chance.random() < 0.2:
            del damaged[chance.randrange(len(damaged)) :]
        try:
            pixels = decode(bytes(damaged), "card", max_pixels=MAX_PIXELS).pixels
        except ImageError as error:
            outcomes.add(error.status)
        else:
            outcomes.add(Status.OK)
            assert pixels.shape == (224, 224, 3)
    assert len(outcomes) > 1
