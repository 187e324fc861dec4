"""The report in a real browser: nothing but the file is read, and it can be used with keys, a finger and at night."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from core.images import ImageRef
from core.verdicts import Outcome, Status
from db import heat
from tests.integration.builders import failed, refs
from tests.integration.commands import HOSTILE
from tests.integration.reporting import write_report
from tests.pictured import draw_face, make_explainer, outcome_of, save_face

if TYPE_CHECKING:
    from playwright.sync_api import Page

HARM = "<img src=x onerror=window.harmed=1></script><script>window.harmed=1</script>"
PHONE = {"width": 375, "height": 812}
#: Of the first report: as many as there are cards before somebody asks for more, and some.
PICTURES = 50


@pytest.fixture(scope="module")
def plain_report(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """A report of fifty faces with scores from 0 to 0.98, in two folders, and three failures."""
    folder = tmp_path_factory.mktemp("plain")
    faces = [
        save_face(folder / "ab"[number % 5 == 0] / f"{number:02}.jpg", number, number / 50)
        for number in range(PICTURES)
    ]
    return write_report(folder, sqlite_template, [*faces, *map(failed, refs(3))])


@pytest.fixture(scope="module")
def hostile_report(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """A report in which every name means harm."""
    folder = tmp_path_factory.mktemp("hostile")
    names = [*HOSTILE, f"{HARM}.jpg".replace("/", "\N{DIVISION SLASH}"), "x" * 250 + ".jpg"]
    faces = [save_face(folder / name.replace("/", "_"), number, number / 20) for number, name in enumerate(names)]
    gone = [Outcome(ImageRef(f"/{HARM}/{'y' * 3000}.jpg", "1-1", 1), Status.OK, 0.99)]
    broken = [Outcome(ImageRef(f"/{HARM}", "1-1", 1), Status.UNREADABLE, reason=HARM)]
    return write_report(folder, sqlite_template, faces + gone + broken, title=HARM)


@pytest.fixture(scope="module")
def large_report(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Path:
    """A report of ten thousand pictures, noisier and so larger than photos are."""
    folder = tmp_path_factory.mktemp("large")
    kinds = []
    for number in range(20):
        path = folder / f"{number}.jpg"
        noise = Image.effect_noise((256, 256), 120).convert("RGB")
        Image.blend(draw_face(number), noise, 0.25).save(path)
        kinds.append(outcome_of(path, 0.5))
    outcomes = []
    for number in range(10_000):
        path = folder / f"album {number % 250}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(kinds[number % 20].ref.uri)
        ref = ImageRef(str(path), kinds[number % 20].ref.fingerprint, kinds[number % 20].ref.size_bytes)
        outcomes.append(
            Outcome(ref, Status.OK, number / 10_000, digest=kinds[number % 20].digest, width=256, height=256)
        )
    return write_report(folder, sqlite_template, outcomes)


@pytest.fixture
def open_report(new_page: Callable[..., "Page"]) -> Callable[..., "Page"]:
    """Open a report in a new page."""

    def open_page(path: Path, **options: Any) -> "Page":
        page = new_page(**options)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        return page

    return open_page


def shown(page: "Page") -> list[str]:
    """Return the names of the cards on the page, in their order."""
    return page.eval_on_selector_all(".cards li:not([hidden]) .name", "them => them.map(one => one.textContent)")


def names(*numbers: int) -> list[str]:
    """Return the names of these faces of the plain report."""
    return [f"{number:02}.jpg" for number in numbers]


def focused(page: "Page") -> str:
    """Return the name on the card that has the focus."""
    return page.evaluate("document.activeElement.querySelector('.name')?.textContent")


def fits(page: "Page") -> bool:
    """Tell whether the page is no wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_report_of_ten_thousand_is_small_and_opens_in_two_seconds(
    large_report: Path, open_report: Callable[..., "Page"]
) -> None:
    assert large_report.stat().st_size < 10e6
    page = open_report(large_report)
    assert len(shown(page)) == 36
    assert "10,000 images listed" in page.inner_text("main")
    assert "The 200 largest of 250" in page.inner_text("main")
    loads = []
    for _ in range(3):  # other programs may be in the way of one
        page.reload()
        loads.append(page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    assert 0 < min(loads) < 2000


def test_the_gallery_is_filtered_and_sorted(plain_report: Path, open_report: Callable[..., "Page"]) -> None:
    page = open_report(plain_report)
    assert shown(page) == names(*range(36))
    assert page.inner_text("#shown") == "36 of 50 pictures"
    page.get_by_label("Most real").check()
    assert shown(page) == names(*range(49, 13, -1))
    page.get_by_label("Most uncertain").check()
    nearest = shown(page)
    assert (set(nearest[:2]), set(nearest[2:6])) == (set(names(20, 30)), set(names(19, 21, 29, 31)))
    page.get_by_label("All of them").check()
    page.get_by_label("Label").select_option("unsure")
    assert shown(page) == names(*range(21, 31))
    page.get_by_label("Order").select_option("highest score first")
    assert shown(page) == names(*range(30, 20, -1))
    page.get_by_label("Order").select_option("by path")
    assert shown(page) == names(21, 22, 23, 24, 26, 27, 28, 29, 25, 30)
    page.get_by_label("Search").fill("/B/")
    assert shown(page) == names(25, 30)
    page.get_by_label("Search").fill("no such thing")
    assert shown(page) == []
    assert page.inner_text("#shown") == "No picture is like that."
    page.get_by_label("Search").fill("")
    assert len(shown(page)) == 10


def test_all_pictures_are_shown_if_asked_for(plain_report: Path, open_report: Callable[..., "Page"]) -> None:
    page = open_report(plain_report)
    page.get_by_role("button", name="Show all 50").click()
    assert shown(page) == names(*range(50))
    assert focused(page) == "36.jpg"
    assert page.locator("#more").is_hidden()


def test_keys_move_through_the_gallery_and_enlarge(plain_report: Path, open_report: Callable[..., "Page"]) -> None:
    page = open_report(plain_report, viewport={"width": 1200, "height": 900})
    page.get_by_label("Search").focus()
    page.keyboard.press("Tab")
    assert focused(page) == "00.jpg"
    assert page.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2
    columns = page.evaluate("getComputedStyle(document.getElementById('cards')).gridTemplateColumns.split(' ').length")
    for key, place in (
        ("ArrowRight", 1),
        ("ArrowDown", 1 + columns),
        ("ArrowLeft", columns),
        ("ArrowUp", 0),
        ("ArrowUp", 0),
        ("ArrowLeft", 0),
        ("End", 35),
        ("ArrowRight", 35),
        ("Home", 0),
        ("ArrowRight", 1),
    ):
        page.keyboard.press(key)
        assert focused(page) == f"{place:02}.jpg", key
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("heading").inner_text().endswith("/a/01.jpg")
    facts = dict(zip(dialog.locator("dt").all_inner_texts(), dialog.locator("dd").all_inner_texts(), strict=True))
    assert facts["p_real"] == "0.020000"
    assert facts["Label"] == "generated"
    assert facts["Size"].startswith("256 x 256 px, ")
    assert page.evaluate("document.getElementById('enlarged-picture').naturalWidth") == 224
    page.keyboard.press("ArrowRight")
    assert dialog.locator("dd").first.inner_text() == "0.040000"
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    assert focused(page) == "02.jpg"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "more"


def test_a_click_enlarges_and_buttons_go_on(plain_report: Path, open_report: Callable[..., "Page"]) -> None:
    page = open_report(plain_report)
    page.locator(".card", has_text="00.jpg").click()
    dialog = page.get_by_role("dialog")
    assert dialog.get_by_role("button", name="Previous").is_disabled()
    assert dialog.get_by_role("link", name="Open the file").get_attribute("href").startswith("file:///")
    dialog.get_by_role("button", name="Next").click()
    assert dialog.get_by_role("heading").inner_text().endswith("01.jpg")
    dialog.get_by_role("button", name="Close").click()
    assert dialog.is_hidden()
    page.locator(".card", has_text="01.jpg").click()
    page.mouse.click(2, 2)  # beside it
    assert dialog.is_hidden()


def test_folders_are_sorted_by_a_click_on_a_heading(plain_report: Path, open_report: Callable[..., "Page"]) -> None:
    page = open_report(plain_report)

    def column(number: int) -> list[str]:
        return page.eval_on_selector_all(
            f"table.sortable tbody tr > :nth-child({number})", "them => them.map(one => one.textContent)"
        )

    assert column(2) == ["40", "10", "3"]
    page.get_by_role("button", name="failed").click()
    assert column(7) == ["3", "0", "0"]
    page.get_by_role("button", name="images").click()
    page.get_by_role("button", name="images").press("Enter")
    assert column(2) == ["3", "10", "40"]
    sorted_by = page.locator("th[aria-sort]")
    assert (sorted_by.inner_text(), sorted_by.get_attribute("aria-sort")) == ("images", "ascending")
    page.get_by_role("button", name="folder").click()
    assert column(1) == sorted(column(1))


def test_hostile_names_do_nothing_and_fit(hostile_report: Path, open_report: Callable[..., "Page"]) -> None:
    page = open_report(hostile_report, viewport=PHONE)
    page.on("dialog", lambda dialog: pytest.fail(f"it said {dialog.message}"))
    cards = page.locator(".card:visible")
    assert cards.count() == len(HOSTILE) + 3
    assert page.inner_text("h1") == HARM
    cards.first.click()
    for _ in range(cards.count()):
        assert fits(page)
        assert page.evaluate(
            "document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth"
        )
        page.keyboard.press("ArrowRight")
    assert HARM in page.inner_text("dialog h2")
    assert page.inner_text("#enlarged-missing") == "the file is gone"
    page.keyboard.press("Escape")
    page.get_by_label("Search").fill("<script>")
    assert len(shown(page)) == 2
    assert page.evaluate("window.harmed === undefined && document.images.length > 10")
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("width", [320, 375, 768])
def test_no_screen_is_too_narrow(
    width: int, plain_report: Path, large_report: Path, open_report: Callable[..., "Page"]
) -> None:
    for report in (plain_report, large_report):
        page = open_report(report, viewport={"width": width, "height": 700})
        assert fits(page)
        page.locator(".card:visible").first.click()
        assert fits(page)
        box = page.get_by_role("dialog").bounding_box()
        assert box
        assert (box["x"] >= 0, box["x"] + box["width"] <= width) == (True, True)


def test_it_is_dark_where_the_reader_wants_that(plain_report: Path, open_report: Callable[..., "Page"]) -> None:
    for scheme, is_dark in (("light", False), ("dark", True)):
        page = open_report(plain_report, color_scheme=scheme)
        ground, ink = (luminance(page, "body", what) for what in ("backgroundColor", "color"))
        assert (ground < 0.05, ground > 0.9) == (is_dark, not is_dark)
        assert contrast(ground, ink) > 7
        for selector in (".quiet", ".card.generated .label", "a"):
            assert contrast(ground, luminance(page, selector, "color")) > 4.5, (scheme, selector)
        page.locator(".card:visible").first.click()
        assert luminance(page, "dialog", "backgroundColor") == ground


def luminance(page: "Page", selector: str, what: str) -> float:
    """Return the relative luminance of a colour of an element, in [0, 1], as WCAG 2 defines it."""
    colour = page.eval_on_selector(selector, "(one, what) => getComputedStyle(one)[what]", what)
    channels = [int(value) / 255 for value in colour.removeprefix("rgb(").removesuffix(")").split(", ")]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: float, other: float) -> float:
    """Return the contrast of two luminances, from 1 to 21."""
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def test_where_the_evidence_lies_is_shown_beside_the_picture(
    tmp_path: Path, sqlite_template: Path, open_report: Callable[..., "Page"], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heat, "COMMAND", make_explainer(tmp_path))
    monkeypatch.setattr("db.report.find_used_artifact", lambda model, settings: tmp_path)
    faces = [save_face(tmp_path / f"{number}.jpg", number, number / 10) for number in range(9)]
    page = open_report(write_report(tmp_path, sqlite_template, faces, explained=1))
    page.locator(".card:visible").first.click()
    assert page.locator("#heat").is_visible()
    assert "evidence for “generated”" in page.inner_text("#heat")
    assert page.evaluate("document.getElementById('heat-picture').naturalWidth") == 224
    page.keyboard.press("ArrowRight")
    assert page.locator("#heat").is_hidden()


def test_without_scripts_the_pictures_are_there(plain_report: Path, open_report: Callable[..., "Page"]) -> None:
    page = open_report(plain_report, java_script_enabled=False)
    assert page.locator(".card img").count() == PICTURES
    assert page.locator(".card").last.is_visible()
