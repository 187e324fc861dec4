"""A scan as one HTML page that needs nothing else: no network, nothing beside it. Needs Jinja2 and Pillow."""

import os
import re
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from jinja2 import Environment, PackageLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup
from sqlalchemy import Engine

from core.cli import printable
from core.errors import ImageError, ModelError, UsageError
from core.manifest import find_artifact, read_manifest
from core.settings import Settings
from core.uris import FILE_SCHEME, uri_to_path
from db.charts import duration, rate_bars, score_bars
from db.findings import BINS, MOMENTS, Findings, ScoringModel, read_findings
from db.gallery import GENERATED, UNCERTAIN, Picture
from db.heat import Explanations, explain
from db.thumbnails import Thumbnail, make_thumbnails

#: Sections of a model card that whoever reads its labels should know.
CARD_SECTIONS = ("Intended use", "Out of scope")
MOST_PICTURES = 1000
MOST_EXPLAINED = 50


@dataclass(frozen=True, slots=True)
class Page:
    """A report that was made.

    Attributes:
        html: the page.
        pictures: how many images its gallery holds.
        problems: a line for each thing that was asked for and is not in it.
    """

    html: str
    pictures: int
    problems: list[str]


def make_page(
    engine: Engine,
    scan_id: int,
    settings: Settings,
    report: Callable[[int, int], None],
    *,
    title: str = "",
    gallery: int = 100,
    explained: int = 0,
) -> Page:
    """Make the report of a scan.

    Args:
        engine: of the database.
        scan_id: which scan.
        settings: roots and limits of what is read for the thumbnails, and where the models are.
        report: called with how many thumbnails are made, and of how many.
        title: of the page; empty for a plain one.
        gallery: pictures in each of its parts.
        explained: explain so many of the most generated, and of the most uncertain ones.

    Raises:
        UsageError: there is no such scan.
    """
    found = read_findings(engine, scan_id, gallery=max(gallery, explained))
    artifact = find_used_artifact(found.models[0], settings) if found.models else None
    wanted = [(one.row["uri"], one.row["digest"], one.row["fingerprint"]) for one in found.pictures]
    thumbnails = make_thumbnails(wanted, settings, report)
    reasons = _explain(found, artifact, settings, explained) if explained else Explanations()
    cards = [_card(one, thumbnail, reasons) for one, thumbnail in zip(found.pictures, thumbnails, strict=True)]
    notes = _card_sections(artifact)
    html = _render(found, cards, title=title or "facesieve report", notes=notes, problems=reasons.problems)
    return Page(html, len(cards), reasons.problems)


def find_used_artifact(model: ScoringModel, settings: Settings) -> Path | None:
    """Return the folder of the very model that scored; None if it is not at hand."""
    for name in (model.name, settings.model):
        try:
            folder = find_artifact(name, settings)
            if read_manifest(folder).id == model.id:
                return folder
        except ModelError:
            continue
    return None


def read_sections(card: str, wanted: tuple[str, ...]) -> dict[str, str]:
    """Return sections of a Markdown text as HTML, by heading. HTML, links and images in it become plain text."""
    markdown = MarkdownIt("commonmark", {"html": False}).disable(["image", "link", "autolink", "reference"])
    parts = re.split(r"^## +(.*?) *$", card, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    return {heading: markdown.render(sections[heading]) for heading in wanted if heading in sections}


def _card_sections(artifact: Path | None) -> dict[str, str]:
    try:
        return read_sections((artifact / "README.md").read_text(encoding="utf-8"), CARD_SECTIONS) if artifact else {}
    except (OSError, UnicodeDecodeError):
        return {}


def _explain(found: Findings, artifact: Path | None, settings: Settings, each: int) -> Explanations:
    by_score = [one for one in found.pictures if GENERATED in one.parts]
    by_distance = sorted((one for one in found.pictures if UNCERTAIN in one.parts), key=lambda one: one.distance)
    chosen = dict.fromkeys(one.row["uri"] for one in (*by_score[:each], *by_distance[:each]))
    if not chosen:
        return Explanations()
    if artifact is None:
        return Explanations(problems=[f"nothing is explained: model {found.models[0].name} is not on this machine"])
    return explain(list(chosen), artifact, settings)


def _card(picture: Picture, thumbnail: Thumbnail, reasons: Explanations) -> dict[str, Any]:
    """Return what the page holds of a picture, names in a form that cannot play tricks on whoever reads them."""
    row, heat = picture.row, reasons.heats.get(picture.row["uri"])
    return {
        "name": printable(row["uri"].rpartition("/")[2]),
        "uri": printable(row["uri"]),
        "link": _link(row["uri"]),
        "p_real": row["p_real"],
        "label": row["label"],
        "parts": sorted(picture.parts),
        "distance": picture.distance,
        "source": thumbnail.source,
        "reason": printable(thumbnail.reason),
        "is_changed": thumbnail.is_changed,
        "heat": heat.source if heat else "",
        "evidence_for": heat.evidence_for if heat else "",
        "facts": [[term, printable(text)] for term, text in _facts(row).items() if text],
    }


def _facts(row: dict[str, Any]) -> dict[str, str]:
    review = row["review"]
    size = f"{row['width']} x {row['height']} px, " if row["width"] else ""
    runs = filter(None, (row["engine"], row["precision"], row["worker"]))
    return {
        "p_real": f"{row['p_real']:.6f}",
        "Label": row["label"],
        "Size": f"{size}{row['size_bytes']:,} bytes",
        "Scored": f"{row['scored_at']:%Y-%m-%d %H:%M:%S} UTC",
        "By": f"{row['model']} ({', '.join(runs)})",
        "Digest": f"{row['digest'].hex()} (SHA-256, the first half)" if row["digest"] else "",
        "Reviewed": f"{review['label']}, by {review['reviewer']}. {review['note']}" if review else "",
    }


def _link(uri: str) -> str:
    try:
        return FILE_SCHEME + quote_from_bytes(os.fsencode(uri_to_path(uri)))
    except ImageError:
        return ""


def _render(
    found: Findings, cards: list[dict[str, Any]], *, title: str, notes: dict[str, str], problems: list[str]
) -> str:
    environment = Environment(
        loader=PackageLoader("db"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "printable": printable,
        "duration": duration,
        "kind": lambda label: label.partition(" ")[0],  # without "(untrained)"
    }
    style, script = (Markup(_template(environment, f"report.{kind}")) for kind in ("css", "js"))  # noqa: S704 - ours
    return environment.get_template("report.html").render(
        found=found,
        cards=cards,
        details=[{name: value for name, value in card.items() if name != "source"} for card in cards],
        title=printable(title),
        # Made from text with every tag in it escaped.
        notes={heading: Markup(html) for heading, html in notes.items()},  # noqa: S704
        problems=problems,
        score_bars=score_bars(found.histogram),
        highest_bin=max(map(sum, zip(*found.histogram.values(), strict=True)), default=0),
        bins=BINS,
        marks=sorted({value * BINS for one in found.models for value in (one.generated_below, one.real_above)}),
        rate_bars=rate_bars(found.throughput) if found.throughput else [],
        moments=MOMENTS,
        style=style,
        script=script,
        style_hash=_csp_hash(style),
        script_hash=_csp_hash(script),
    )


def _template(environment: Environment, name: str) -> str:
    assert environment.loader
    return environment.loader.get_source(environment, name)[0]


def _csp_hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode()).digest()).decode()}"


def write_page(page: Page, path: Path) -> int:
    """Write a report and return its size in bytes.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        return path.write_bytes(page.html.encode())
    except OSError as error:
        raise UsageError(f"report {path} cannot be written: {error.strerror}") from error
