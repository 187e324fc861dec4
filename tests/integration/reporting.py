"""Short ways to make the pages of reports, and to look into them."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from core.settings import load_settings
from core.verdicts import Outcome
from db.engine import open_engine
from db.report import Page, make_page, write_page
from tests.integration.builders import Books, manifest


def silent(done: int, total: int) -> None:
    """Report progress to nobody."""


def page_of(engine: Engine, scan_id: int, **options: Any) -> Page:
    """Make the page of a scan."""
    return make_page(engine, scan_id, load_settings(), silent, **options)


def details_of(html: str) -> list[dict[str, Any]]:
    """Return what a page holds of its pictures."""
    found = re.search(r'<script type="application/json" id="details">(.*?)</script>', html, re.S)
    assert found
    return json.loads(found[1])


def write_report(folder: Path, template: Path, outcomes: list[Outcome], **options: Any) -> Path:
    """Write the report of a scan with these outcomes, by a model that is unsure from 0.4 to 0.6."""
    shutil.copy(template, folder / "facesieve.db")
    settings = load_settings(database_url=f"sqlite:///{folder / 'facesieve.db'}")
    engine = open_engine(settings)
    books = Books(engine, manifest(generated_below=0.4, real_above=0.6))
    books.store.register_model(books.model)
    for start in range(0, len(outcomes), 1000):
        books.save(outcomes[start : start + 1000])
    books.store.finish_scan(books.scan_id, "listed")
    path = folder / "report.html"
    write_page(make_page(engine, books.scan_id, settings, silent, **options), path)
    engine.dispose()
    return path
