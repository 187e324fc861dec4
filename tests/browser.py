"""A real browser for the tests of pages: the system's Chromium without a window, driven by Playwright."""

import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
#: What a page may ask for: this machine, or what is in the page itself.
ALLOWED = ("http://127.0.0.1:", "http://localhost:", "file://", "data:", "blob:", "about:")


# Of a module, not of the session: as long as it is there, its event loop is in the way of others in this thread.
@pytest.fixture(scope="module")
def chromium() -> Iterator["Browser"]:
    """A headless Chromium; skips if there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip(f"no browser here: none of {', '.join(PROGRAMS)}")
    with playwright.sync_playwright() as driver:
        # Without its sandbox, as root cannot have one; it only ever sees pages of these tests.
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def new_page(chromium: "Browser") -> Iterator[Callable[..., "Page"]]:
    """Open a page with cookies of its own; a test fails at its end if a page logged an error or asked another host.

    Keyword arguments are those of Playwright's ``Browser.new_context``, such as ``color_scheme="dark"`` or
    ``viewport={"width": 390, "height": 844}``; and ``tolerated``, a text that an error may hold.
    """
    contexts, complaints = [], []

    def open_page(*, tolerated: str | None = None, **options: Any) -> "Page":
        def hear(line: "ConsoleMessage") -> None:
            if line.type in ("error", "warning") and (tolerated is None or tolerated not in line.text):
                complaints.append(line.text)

        context = chromium.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
        page.on("request", lambda asked: None if asked.url.startswith(ALLOWED) else complaints.append(asked.url))
        page.on("console", hear)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []
