"""A scan as a page: what it tells is what the database holds, and names that mean harm do none."""

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import Engine, insert, update

from core.images import ImageRef
from core.manifest import find_artifact, read_manifest
from core.settings import load_settings
from core.verdicts import Outcome, Status
from db import schema
from db.filters import Filter
from db.findings import BINS, MOST_EXAMPLES, read_findings
from db.queries import list_verdicts
from db.report import find_used_artifact, read_sections
from tests.integration.builders import Books, failed, refs, scored, write
from tests.integration.commands import HOSTILE
from tests.integration.reporting import details_of, page_of
from tests.pictured import save_face

NAMES = (*HOSTILE, "</script><script>alert(1)</script>.jpg", "<img src=x onerror=alert(1)>.jpg", "x" * 3000 + ".jpg")


def random_scores(number: int, seed: int = 1) -> list[Outcome]:
    """Return outcomes of images in nine folders, one in ten of which failed."""
    chance = Random(seed)
    names = [ImageRef(f"/faces/{index % 9}/{index:04}.jpg", "1-1", 1) for index in range(number)]
    return [failed(ref) if index % 10 == 3 else scored(ref, chance.random()) for index, ref in enumerate(names)]


class Tags(HTMLParser):
    """The tags of a page, with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of each such tag."""
        return [attributes for name, attributes in self.found if name == tag]


def test_counts_and_scores_are_those_of_the_verdicts(books: Books, engine: Engine) -> None:
    write(engine, update(schema.model).values(generated_below=0.35, real_above=0.65))
    outcomes = [*random_scores(300), *[scored(ref, p) for ref, p in zip(refs(2), (0.0, 1.0), strict=True)]]
    books.save(outcomes)
    found = read_findings(engine, books.scan_id, gallery=5)
    scores = [one.p_real for one in outcomes if one.p_real is not None]
    assert list(found.labels) == ["generated", "unsure", "real"]
    assert found.labels["generated"] == sum(score <= 0.35 for score in scores)
    assert found.labels["real"] == sum(score > 0.65 for score in scores)
    assert sum(found.labels.values()) == len(scores)
    bins = Counter(min(int(score * BINS), BINS - 1) for score in scores)
    assert [sum(column) for column in zip(*found.histogram.values(), strict=True)] == [bins[i] for i in range(BINS)]


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_labels_are_those_of_the_view_whatever_models_scored(
    names: tuple[str, ...], new_books: Callable[..., Books], engine: Engine
) -> None:
    thresholds = {"one": (0.25, 0.75), "two": (0.5, 0.5)}
    books = [
        new_books(name, generated_below=thresholds[name][0], real_above=thresholds[name][1], trained=name == "one")
        for name in names
    ]
    for number, one in enumerate(books):
        one.scan_id = books[0].scan_id
        one.save([scored(ref, index / 8) for index, ref in enumerate(refs(9, prefix=f"/{number}/"))])
    found = read_findings(engine, books[0].scan_id, gallery=1)
    rows = list_verdicts(engine, Filter(scan_id=books[0].scan_id))
    assert found.labels == Counter(row["label"] for row in rows)
    assert {one.name for one in found.models} == set(names)


def test_folders_are_counted_each_for_itself_the_largest_first(books: Books, engine: Engine) -> None:
    outcomes = [*random_scores(95), scored(ImageRef("file:///caf%E9/a.jpg", "1-1", 1), 0.25)]
    books.save(outcomes)
    found = read_findings(engine, books.scan_id, gallery=0)
    names = Counter(one.ref.uri.rpartition("/")[0] + "/" for one in outcomes)
    assert {row["folder"]: row["images"] for row in found.folders} == names
    assert [row["images"] for row in found.folders] == sorted(names.values(), reverse=True)
    assert found.n_folders == 10
    for row in found.folders:
        assert row["generated"] + row["unsure"] + row["real"] + row["failed"] == row["images"]
        scores = [one.p_real for one in outcomes if one.ref.uri.startswith(row["folder"]) and one.p_real is not None]
        assert row["mean"] == pytest.approx(sum(scores) / len(scores))


def test_more_folders_than_are_shown_are_counted(books: Books, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.findings.MOST_FOLDERS", 4)
    books.save(random_scores(90))
    found = read_findings(engine, books.scan_id, gallery=0)
    assert (len(found.folders), found.n_folders) == (4, 9)
    assert "The 4 largest of 9" in page_of(engine, books.scan_id).html


def test_failures_come_by_status_with_examples(books: Books, engine: Engine) -> None:
    images = refs(20)
    books.save([failed(ref, Status.NOT_FOUND if index < 3 else Status.TRUNCATED) for index, ref in enumerate(images)])
    found = read_findings(engine, books.scan_id, gallery=5)
    assert [(one.status, one.images, len(one.examples)) for one in found.failures] == [
        ("truncated", 17, MOST_EXAMPLES),
        ("not_found", 3, 3),
    ]
    assert {uri for uri, _ in found.failures[1].examples} == {ref.uri for ref in images[:3]}
    assert found.failures[1].examples[0][1] == "it is not_found"


def test_the_gallery_holds_the_extremes_and_what_is_nearest_to_a_threshold(books: Books, engine: Engine) -> None:
    write(engine, update(schema.model).values(generated_below=0.305, real_above=0.605))
    books.save([scored(ref, index / 100) for index, ref in enumerate(refs(101))])
    pictures = read_findings(engine, books.scan_id, gallery=4).pictures
    scores = {
        part: [one.row["p_real"] for one in pictures if part in one.parts]
        for part in ("generated", "uncertain", "real")
    }
    assert scores["generated"] == [0.0, 0.01, 0.02, 0.03]
    assert scores["uncertain"] == [0.3, 0.31, 0.6, 0.61]
    assert scores["real"] == [0.97, 0.98, 0.99, 1.0]
    assert [one.row["p_real"] for one in pictures] == sorted(one.row["p_real"] for one in pictures)
    assert pictures[5].distance == pytest.approx(0.005)


def test_a_picture_in_several_parts_is_held_once(books: Books, engine: Engine) -> None:
    books.save([scored(ref, 0.4) for ref in refs(2)])
    pictures = read_findings(engine, books.scan_id, gallery=10).pictures
    assert [one.parts for one in pictures] == [{"generated", "uncertain", "real"}] * 2


def test_a_scan_tells_only_of_what_no_later_one_scored_again(books: Books, engine: Engine) -> None:
    images = refs(10)
    books.save([scored(ref, 0.1) for ref in images])
    later = Books(engine, books.model)
    later.save([scored(ref, 0.9) for ref in images[:4]])
    assert read_findings(engine, books.scan_id, gallery=1).labels == {"generated": 6}
    assert read_findings(engine, later.scan_id, gallery=1).labels == {"real": 4}
    assert "4 of the scored images are left out" in page_of(engine, books.scan_id).html
    assert "are left out" not in page_of(engine, later.scan_id).html


def test_throughput_spreads_images_over_the_run_of_their_job(books: Books, engine: Engine) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    spans = ((0, 30), (0, 60), (30, 30), (59.999, 60))
    for number, (begin, end) in enumerate(spans):
        job = books.save([scored(ref) for ref in refs(60, start=60 * number)])
        times = {"started_at": start + timedelta(seconds=begin), "finished_at": start + timedelta(seconds=end)}
        write(engine, update(schema.job).where(schema.job.c.id == job.id).values(times))
    throughput = read_findings(engine, books.scan_id, gallery=0).throughput
    assert throughput is not None
    assert (throughput.started_at, throughput.seconds) == (start, 60)
    assert throughput.rates[0] == pytest.approx(3, rel=1e-3)  # 60 images in 30 s and 60 in 60 s
    assert throughput.rates[45] == pytest.approx(1, rel=1e-3)
    assert sum(throughput.rates) * 60 / len(throughput.rates) == pytest.approx(240)


def test_a_scan_of_which_nothing_is_done_has_a_page_too(books: Books, engine: Engine) -> None:
    books.queue(refs(3))
    page = page_of(engine, books.scan_id)
    assert page.pictures == 0
    assert "3 pending" in page.html
    assert "The listing is listing" in page.html


def test_a_scan_of_failures_alone_has_a_page_too(books: Books, engine: Engine) -> None:
    books.save([failed(ref) for ref in refs(3)])
    assert "3 truncated" in page_of(engine, books.scan_id).html


def test_an_untrained_model_is_called_so(new_books: Callable[..., Books], engine: Engine) -> None:
    books = new_books("raw", trained=False)
    books.save([scored(ref, 0.1) for ref in refs(3)])
    page = page_of(engine, books.scan_id)
    assert read_findings(engine, books.scan_id, gallery=1).labels == {"generated (untrained)": 3}
    assert "Model raw is untrained" in page.html
    assert details_of(page.html)[0]["label"] == "generated (untrained)"


def test_the_newest_review_of_a_picture_is_told(books: Books, engine: Engine) -> None:
    (image,) = refs(1)
    books.save([scored(image)])
    for label in ("real", "generated"):
        row = {"label": label, "note": "the ears", "reviewer": "ann", "reviewed_at": datetime.now(UTC)}
        write(engine, insert(schema.review).values(image_id=image.id, **row))
    facts = dict(details_of(page_of(engine, books.scan_id).html)[0]["facts"])
    assert facts["Reviewed"] == "generated, by ann. the ears"


def test_the_model_its_thresholds_and_what_ran_it_are_named(books: Books, engine: Engine) -> None:
    write(
        engine, update(schema.model).values(generated_below=0.123, thresholds_set_at=datetime(2025, 3, 4, tzinfo=UTC))
    )
    books.save([scored(ref) for ref in refs(3)])
    html = page_of(engine, books.scan_id).html
    for text in (books.model.id, "at or below 0.123", "thresholds set on 2025-03-04", "tensorflow, float32: 3 images"):
        assert text in html


def test_the_notes_of_the_models_card_are_those_of_the_model_that_scored(
    new_books: Callable[..., Books], engine: Engine
) -> None:
    shipped = read_manifest(find_artifact("face-efficientnet", load_settings()))
    for sha256_, is_there in ((shipped.sha256, True), ("0" * 64, False)):
        books = new_books(shipped.name, **shipped.model_dump(exclude={"name", "sha256"}), sha256=sha256_)
        books.save([scored(ref, 0.1) for ref in refs(1)])
        html = page_of(engine, books.scan_id).html
        assert ("Accusing a person" in html) is is_there
        assert ("card was not at hand" in html) is not is_there
        assert "A score is no proof about a person." in html


def test_a_model_that_is_only_known_by_its_folder_is_found(books: Books, engine: Engine, tmp_path: Path) -> None:
    books.save([scored(ref) for ref in refs(1)])
    (model,) = read_findings(engine, books.scan_id, gallery=0).models
    assert find_used_artifact(model, load_settings()) is None
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "manifest.json").write_text(books.model.model_dump_json())
    assert find_used_artifact(model, load_settings(model=str(folder))) == folder


def test_sections_of_a_card_become_html_that_holds_none_of_its_own() -> None:
    card = "# x\n## One\n- <b>a</b>\n- [b](http://c)\n![d](http://e)\n\n## Two \ntext\n### Sub\n## Three\nno"
    found = read_sections(card, ("Two", "One", "Four"))
    assert list(found) == ["Two", "One"]
    assert "&lt;b&gt;a" in found["One"]
    assert [tag for tag, _ in Tags(found["One"]).found] == ["ul", "li", "li"]
    assert "no" not in found["Two"]


def test_the_page_asks_for_nothing_and_runs_only_its_own_script(books: Books, engine: Engine, tmp_path: Path) -> None:
    books.save([save_face(tmp_path / f"{index}.jpg", index, index / 5) for index in range(5)])
    html = page_of(engine, books.scan_id).html
    tags = Tags(html)
    (policy,) = (one["content"] for one in tags.all("meta") if one.get("http-equiv") == "Content-Security-Policy")
    assert policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    own = dict(re.findall(r"<(style|script)>(.*?)</", html, re.S))
    assert own.keys() == {"style", "script"}
    for kind, text in own.items():
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    addresses = [value for _, attributes in tags.found for name, value in attributes.items() if name in ("src", "href")]
    assert len(addresses) > 5
    assert all(str(value).startswith(("data:image/webp;base64,", "#")) for value in addresses)
    assert not [name for _, attributes in tags.found for name in attributes if name.startswith(("on", "style"))]


def test_hostile_names_stay_text(books: Books, engine: Engine) -> None:
    plain = [scored(ImageRef("/plain.jpg", "1-1", 1), 0.5)]
    books.save(plain)
    tags = Tags(page_of(engine, books.scan_id).html)
    hostile = Books(engine, books.model)
    names = [f"/{name}/{name}".replace("//", "/") for name in NAMES]
    hostile.save([scored(ImageRef(name, "1-1", 1), 0.5) for name in names])
    hostile.save([Outcome(ImageRef(f"/broken{name}", "1-1", 1), Status.UNREADABLE, reason=name) for name in names])
    html = page_of(engine, hostile.scan_id, title="</title><script>alert(1)</script>", gallery=100).html
    found = Tags(html)
    # The same kinds of tags as on a page of a harmless name, and no more scripts.
    extra = {"section", "h3", "ul", "li"}
    assert {tag for tag, _ in found.found} - extra == {tag for tag, _ in tags.found} - extra
    assert len(found.all("script")) == len(tags.all("script")) == 2
    assert not [name for _, attributes in found.found for name in attributes if name.startswith("on")]
    assert all(char.isprintable() or char == "\n" for char in html)
    shown = {one["uri"] for one in details_of(html)}
    assert len(shown) == len(names)
    assert "/new\\nline.jpg/new\\nline.jpg" in shown


def test_a_name_that_is_not_utf_8_is_linked_to_by_its_bytes(books: Books, engine: Engine) -> None:
    books.save([scored(ImageRef("file:///caf%E9.jpg", "1-1", 1)), scored(ImageRef("/a b#?.jpg", "1-1", 1), 0.1)])
    links = [one["link"] for one in details_of(page_of(engine, books.scan_id).html)]
    assert links == ["file:///a%20b%23%3F.jpg", "file:///caf%E9.jpg"]
