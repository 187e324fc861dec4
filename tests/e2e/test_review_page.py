"""The review page in a real browser: what keys and fingers do, and what ends up in the database."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Engine, select

from core.settings import load_settings
from db import schema
from db.engine import open_engine
from db.review_server import ReviewServer
from tests.integration.builders import Books, manifest, scored
from tests.integration.reviewing import paint, review_rows, served, session_of

if TYPE_CHECKING:
    from playwright.sync_api import Page

COLOURS = [(200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60), (60, 200, 200)]
HOSTILE = "<img src=x onerror=\"document.title='hacked'\">\u202e'; DROP TABLE review; --"
PHONE = {"width": 320, "height": 568}


@pytest.fixture
def engine(sqlite_template: Path, tmp_path: Path) -> Iterator[Engine]:
    """A database with five scored images, the names of which are meant to harm."""
    shutil.copy(sqlite_template, tmp_path / "facesieve.db")
    engine = open_engine(load_settings(database_url=f"sqlite:///{tmp_path / 'facesieve.db'}"))
    model = manifest("card", generated_below=0.4, real_above=0.6)
    books = Books(engine, model)
    books.store.register_model(model)
    folder = tmp_path / ("deep " * 40)
    folder.mkdir()
    images = [paint(folder, f"{number}{HOSTILE.replace('/', '')}.png", colour) for number, colour in enumerate(COLOURS)]
    books.save([scored(ref, 0.1 + 0.2 * number) for number, ref in enumerate(images)])
    yield engine
    engine.dispose()


@pytest.fixture
def server(engine: Engine, tmp_path: Path) -> Iterator[ReviewServer]:
    """The server of a session of ann's on them, the lowest score first."""
    settings = load_settings(roots=(tmp_path,))
    with served(ReviewServer(session_of(engine, "ann"), settings, address="127.0.0.1", port=0)) as server:
        yield server


@pytest.fixture
def open_review(server: ReviewServer, new_page: Callable[..., "Page"]) -> Callable[..., "Page"]:
    """Open the page with the address that was printed, and wait for the first picture."""

    def open_page(**options: object) -> "Page":
        page = new_page(**options)
        page.goto(server.url)
        see(page, "1 of 5")
        return page

    return open_page


def see(page: "Page", place: str) -> None:
    """Wait until the page is at a place in the queue, and done with what it was doing."""
    page.wait_for_function(
        "place => document.querySelector('main[aria-busy=false]') "
        "&& document.querySelector('#place').textContent === place",
        arg=place,
    )


def pressed(page: "Page") -> list[str]:
    """Return the labels that are shown as given."""
    return page.eval_on_selector_all("[aria-pressed=true]", "them => them.map(one => one.dataset.label)")


def brightness(page: "Page", selector: str) -> float:
    """Return how bright the background of an element is, from 0 to 255."""
    colour = page.eval_on_selector(selector, "it => getComputedStyle(it).backgroundColor")
    red, green, blue = map(float, colour.removeprefix("rgb(").removesuffix(")").split(","))
    return (red + green + blue) / 3


def test_the_keyboard_goes_through_all_images_and_each_label_is_a_row(
    open_review: Callable[..., "Page"], engine: Engine
) -> None:
    page = open_review()
    for key, place in zip("grugr", ("2 of 5", "3 of 5", "4 of 5", "5 of 5", "End of 5"), strict=True):
        page.keyboard.press(key)
        see(page, place)
    labels = ["generated", "real", "unclear", "generated", "real"]
    assert review_rows(engine) == [(label, "", "ann") for label in labels]
    with engine.connect() as connection:
        rows = connection.execute(select(schema.review)).all()
        scores = dict(connection.execute(select(schema.verdict.c.image_id, schema.verdict.c.p_real)).all())
    assert [scores[row.image_id] for row in rows] == pytest.approx([0.1, 0.3, 0.5, 0.7, 0.9])
    assert all(abs(datetime.now(UTC) - row.reviewed_at) < timedelta(minutes=5) for row in rows)
    assert page.inner_text("#tally") == "2 real, 2 generated, 1 unclear"
    assert "last image" in page.inner_text("#stage")
    page.keyboard.press("g")  # there is no image any more
    page.keyboard.press("ArrowLeft")
    see(page, "5 of 5")
    assert pressed(page) == ["real"]
    assert len(review_rows(engine)) == 5


def test_the_address_loses_its_token_and_a_page_that_is_loaded_again_goes_on(
    open_review: Callable[..., "Page"], server: ReviewServer
) -> None:
    page = open_review()
    assert "token" not in page.url
    page.keyboard.press("g")
    see(page, "2 of 5")
    page.reload()
    see(page, "2 of 5")
    assert page.inner_text("#tally") == "1 generated"


def test_the_picture_that_is_shown_is_the_images_and_the_next_one_is_there_before_it_is_needed(
    open_review: Callable[..., "Page"],
) -> None:
    page = open_review()
    drawn = """() => { const canvas = document.createElement("canvas").getContext("2d");
        canvas.drawImage(document.querySelector("#stage img"), 0, 0);
        return [...canvas.getImageData(20, 20, 1, 1).data].slice(0, 3); }"""
    page.wait_for_function("async () => (await Promise.all(cache.values())).length === 3")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for colour, place in zip(COLOURS, ("1 of 5", "2 of 5", "3 of 5"), strict=False):
        see(page, place)
        assert page.evaluate(drawn) == pytest.approx(colour, abs=12)
        page.keyboard.press("ArrowRight")
    assert not [url for url in asked if url.endswith(("/items/1", "/items/2"))]
    assert [url for url in asked if url.endswith("/items/3")]


def test_labels_are_taken_back_one_by_one_with_either_key(open_review: Callable[..., "Page"], engine: Engine) -> None:
    page = open_review()
    for key, place in (("g", "2 of 5"), ("r", "3 of 5"), ("ArrowRight", "4 of 5"), ("z", "2 of 5")):
        page.keyboard.press(key)
        see(page, place)
    assert review_rows(engine) == [("generated", "", "ann")]
    assert pressed(page) == []
    page.keyboard.press("Backspace")
    see(page, "1 of 5")
    assert review_rows(engine) == []


def test_arrows_move_without_a_label_and_what_was_passed_over_comes_again(
    open_review: Callable[..., "Page"], engine: Engine
) -> None:
    page = open_review()
    for key, place in (
        ("ArrowLeft", "1 of 5"), ("ArrowRight", "2 of 5"), ("ArrowRight", "3 of 5"), ("ArrowLeft", "2 of 5"),
    ):  # fmt: skip
        page.keyboard.press(key)
        see(page, place)
    assert review_rows(engine) == []
    for place in ("3 of 5", "4 of 5", "5 of 5", "1 of 5", "End of 5"):
        page.keyboard.press("u")
        see(page, place)


def test_a_hostile_note_is_text_that_goes_with_the_label(open_review: Callable[..., "Page"], engine: Engine) -> None:
    page = open_review()
    page.keyboard.press("n")
    page.keyboard.type("grzu?")  # in a note, these are letters
    page.keyboard.insert_text(HOSTILE)
    page.keyboard.press("Enter")
    page.wait_for_selector("#note")  # visible
    assert page.inner_text("#note") == f"grzu?{HOSTILE}"
    assert review_rows(engine) == []
    page.keyboard.press("r")
    see(page, "2 of 5")
    assert not page.is_visible("#note")
    assert review_rows(engine) == [("real", f"grzu?{HOSTILE}", "ann")]
    page.keyboard.press("ArrowLeft")
    see(page, "1 of 5")
    assert page.inner_text("#note") == f"grzu?{HOSTILE}"
    assert page.title() == "facesieve review"


def test_a_note_to_a_labelled_image_is_a_new_row_and_a_cancelled_one_is_none(
    open_review: Callable[..., "Page"], engine: Engine
) -> None:
    page = open_review()
    for key, place in (("g", "2 of 5"), ("ArrowLeft", "1 of 5")):
        page.keyboard.press(key)
        see(page, place)
    for word, key in (("never mind", "Escape"), ("six fingers", "Enter")):
        page.keyboard.press("n")
        page.keyboard.type(word)
        page.keyboard.press(key)
    page.wait_for_function("() => document.querySelector('#note').textContent")
    see(page, "1 of 5")
    assert review_rows(engine) == [("generated", "", "ann"), ("generated", "six fingers", "ann")]


def test_of_anothers_review_neither_label_nor_note_is_taken_over(
    open_review: Callable[..., "Page"], engine: Engine
) -> None:
    page = open_review()
    bob = session_of(engine, "bob")
    first, second = (bytes.fromhex(bob.item(place)["image"]) for place in (3, 4))
    for image_id in (first, second):
        bob.record(image_id, "generated", "bob's words")
    for key, place in (("r", "2 of 5"), ("r", "3 of 5"), ("r", "End of 5"), ("ArrowLeft", "5 of 5")):
        page.keyboard.press(key)
        see(page, place)
    assert pressed(page) == ["generated"]
    assert page.inner_text("#note") == "bob's words (bob)"
    page.keyboard.press("r")
    see(page, "End of 5")
    assert review_rows(engine)[-1] == ("real", "", "ann")


def test_what_is_known_of_the_image_is_shown_whatever_its_name(open_review: Callable[..., "Page"]) -> None:
    page = open_review()
    size = "640 \N{MULTIPLICATION SIGN} 480"  # as the verdict has it
    assert page.inner_text("#facts").split("\n") == ["0.1000", "generated", "card", size, "1 kB"]
    shown = page.inner_text("#path")
    assert shown.endswith(f"0{HOSTILE.replace('/', '')}.png".replace("\u202e", "\\u202e"))
    assert page.title() == "facesieve review"


def test_a_key_that_is_held_down_is_one_label(open_review: Callable[..., "Page"], engine: Engine) -> None:
    page = open_review()
    page.keyboard.down("g")
    for _ in range(5):
        page.keyboard.down("g")  # repeats
    see(page, "2 of 5")
    page.keyboard.down("g")
    page.keyboard.up("g")
    page.keyboard.press("Alt+r")  # the browser's, not ours
    see(page, "2 of 5")
    assert len(review_rows(engine)) == 1


def test_help_opens_and_closes(open_review: Callable[..., "Page"], engine: Engine) -> None:
    page = open_review()
    page.keyboard.press("?")
    assert page.is_visible("#help")
    page.keyboard.press("g")  # nobody looks at the image now
    page.keyboard.press("Escape")
    assert not page.is_visible("#help")
    assert review_rows(engine) == []


def test_an_image_that_cannot_be_shown_says_why_and_can_be_labelled(
    server: ReviewServer, new_page: Callable[..., "Page"], tmp_path: Path, engine: Engine
) -> None:
    next(tmp_path.glob("deep*/0*")).unlink()
    page = new_page(tolerated="404")
    page.goto(server.url)
    see(page, "1 of 5")
    assert page.inner_text("#stage") == "No picture: the file is gone"
    page.keyboard.press("u")
    see(page, "2 of 5")
    assert review_rows(engine) == [("unclear", "", "ann")]


def test_a_label_that_could_not_be_saved_is_said_and_the_image_stays(
    server: ReviewServer, new_page: Callable[..., "Page"], engine: Engine
) -> None:
    page = new_page(tolerated="503")
    page.goto(server.url)
    see(page, "1 of 5")
    for before, after, key, place in (("review", "elsewhere", "g", "1 of 5"), ("elsewhere", "review", "r", "2 of 5")):
        with engine.begin() as connection:
            connection.exec_driver_sql(f"ALTER TABLE {before} RENAME TO {after}")
        page.keyboard.press(key)
        page.wait_for_function("is => document.querySelector('#alarm').hidden === is", arg=before != "review")
        see(page, place)
    assert review_rows(engine) == [("real", "", "ann")]


def test_a_phone_has_large_buttons_and_nothing_beside_the_screen(
    open_review: Callable[..., "Page"], engine: Engine
) -> None:
    page = open_review(viewport=PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    assert page.evaluate("document.documentElement.scrollHeight") == PHONE["height"]
    for button in page.query_selector_all("footer button"):
        box = button.bounding_box()
        assert box is not None
        assert box["height"] >= 44
        assert box["width"] >= 44
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= PHONE["width"]
        assert box["y"] + box["height"] <= PHONE["height"]
        assert button.evaluate("it => it.scrollWidth <= it.clientWidth")  # its words fit
    for selector, place in (
        ("[data-label=generated]", "2 of 5"),
        ("[data-do=on]", "3 of 5"),
        ("[data-do=undo]", "1 of 5"),
    ):
        page.tap(selector)
        see(page, place)
    assert review_rows(engine) == []


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_the_page_is_as_light_or_dark_as_the_system(
    scheme: str, is_dark: bool, open_review: Callable[..., "Page"]
) -> None:
    page = open_review(color_scheme=scheme)
    for selector in ("body", "header", "main", "footer", "dialog"):
        assert (brightness(page, selector) < 128) == is_dark
