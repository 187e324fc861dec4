"""Faces in the database: beside the verdicts of whole images, replaced with their verdicts, and gone with them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from sqlalchemy import Engine, func, select

from core.images import ImageRef
from core.manifest import faces_name, find_artifact, read_manifest
from core.settings import Settings
from core.verdicts import Face, FaceVerdict, Outcome, Status
from db import schema
from db.compare import compare_models
from db.doomed import Wanted
from db.filters import Filter
from db.images import describe_image
from db.ledger import longest_job_seconds, read_ledger, verify_scan
from db.models import count_scored, pick_model
from db.prune import open_pruning
from db.queries import list_verdicts, scored_fingerprints
from db.store import Store
from producer.enqueue import Target
from producer.scan import Scan
from producer.session import find_target
from tests.integration.builders import Books, failed, job_of, manifest, refs, report, scored
from tests.integration.producing import MODEL, Producer, job_in, messages

CARD = manifest()
FACES = CARD.with_faces()


class FaceBooks(Books):
    """A scan whose jobs look for faces."""

    def queue(self, images: Sequence[ImageRef]) -> Any:
        job = replace(job_of(images, self.scan_id, "card"), faces=True)
        assert self.store.record_listing(self.scan_id, [job], skipped=0)
        return job


@pytest.fixture
def face_books(engine: Engine) -> FaceBooks:
    """A scan for faces that has begun."""
    books = FaceBooks(engine, FACES)
    books.store.register_model(FACES)
    return books


def found(ref: ImageRef, *scores: float) -> Outcome:
    """Return the outcome of an image with faces that have these scores."""
    faces = tuple(
        FaceVerdict(Face(10 * number, 5, 100 - number, 120, 0.875), score) for number, score in enumerate(scores)
    )
    return replace(scored(ref, min(scores)), faces=faces)


def nobody(ref: ImageRef) -> Outcome:
    """Return the outcome of an image without a face."""
    return Outcome(ref, Status.NO_FACE, None, "no face was found", b"\1" * 16, 640, 480)


def rows(engine: Engine) -> list[tuple[Any, ...]]:
    """Return the end of each image's name, and number, left edge and score of its faces."""
    face, image = schema.face, schema.image
    query = select(image.c.uri, face.c.number, face.c.x, face.c.p_real).join(image, image.c.id == face.c.image_id)
    with engine.connect() as connection:
        return [
            (row.uri[-6:-4], *row[1:]) for row in connection.execute(query.order_by(image.c.uri, face.c.number)).all()
        ]


def prune(engine: Engine, wanted: Wanted) -> int:
    """Prune, and return how many verdicts went."""
    with open_pruning(engine, wanted, lambda _: None) as pruning:
        pruning.book(lambda _: None)
        return pruning.delete(lambda _: None).verdicts


def test_the_faces_of_an_image_are_kept_with_their_boxes_and_scores(face_books: FaceBooks, engine: Engine) -> None:
    one, two, three = refs(3)
    face_books.save([found(one, 0.9), found(two, 0.7, 0.2, 0.5), nobody(three)])

    assert rows(engine) == [("00", 1, 0, 0.9), ("01", 1, 0, 0.7), ("01", 2, 10, 0.2), ("01", 3, 20, 0.5)]
    with engine.connect() as connection:
        row = connection.execute(select(schema.face).where(schema.face.c.number == 3)).one()
    assert (row.x, row.y, row.width, row.height, row.confidence, row.p_real) == (20, 5, 98, 120, 0.875, 0.5)
    assert (row.model_id, bytes(row.image_id)) == (FACES.id, two.id)
    listed = {row["uri"]: row for row in list_verdicts(engine, Filter())}
    assert {uri: row["p_real"] for uri, row in listed.items()} == {one.uri: 0.9, two.uri: 0.2, three.uri: None}
    assert listed[three.uri]["status"] == "no_face"


def test_saving_again_changes_nothing_and_scoring_again_replaces_the_faces(
    face_books: FaceBooks, engine: Engine
) -> None:
    images = refs(4)
    first = [found(images[0], 0.9, 0.8), found(images[1], 0.7), nobody(images[2]), found(images[3], 0.6, 0.5, 0.4)]
    job = face_books.save(first)
    before = rows(engine)
    face_books.store.save_job(job, first, report(FACES))
    assert rows(engine) == before

    face_books.save([found(images[0], 0.1), nobody(images[1]), found(images[2], 0.3, 0.2)])

    assert rows(engine) == [
        ("00", 1, 0, 0.1), ("02", 1, 0, 0.3), ("02", 2, 10, 0.2),
        ("03", 1, 0, 0.6), ("03", 2, 10, 0.5), ("03", 3, 20, 0.4),
    ]  # fmt: skip


def test_more_images_than_a_statement_takes_get_their_faces(face_books: FaceBooks, engine: Engine) -> None:
    images = refs(1200)
    face_books.save([found(ref, 0.9, 0.1) for ref in images])
    face_books.save([found(ref, 0.5) for ref in images])
    assert len(rows(engine)) == 1200


def test_whole_images_and_faces_are_scored_side_by_side(books: Books, face_books: FaceBooks, engine: Engine) -> None:
    images = refs(3)
    face_books.save([found(images[0], 0.9, 0.1), found(images[1], 0.9), nobody(images[2])])
    books.save([scored(ref, 0.95) for ref in images])

    assert len(rows(engine)) == 3, "a job of whole images leaves faces alone"
    by_model = {
        model: [row["p_real"] for row in list_verdicts(engine, Filter(model=model))] for model in ("card", "card.faces")
    }
    assert by_model == {"card": [0.95] * 3, "card.faces": [0.1, 0.9, None]}
    compared = compare_models(engine, pick_model(engine, "card"), pick_model(engine, "card.faces"), limit=5)
    assert compared.images == 2
    assert compared.labels["real", "generated"] == 1
    assert [uri for uri, *_ in compared.disagreements] == [images[0].uri]


def test_what_is_known_of_an_image_has_its_faces_with_the_verdict_that_they_belong_to(
    books: Books, face_books: FaceBooks, engine: Engine
) -> None:
    (image,) = refs(1)
    books.save([scored(image)])
    face_books.save([found(image, 0.9, 0.1)])

    verdicts = {row["model"]: row for row in describe_image(engine, image.uri)["verdicts"]}

    assert verdicts["card"]["faces"] == []
    assert verdicts["card.faces"]["faces"] == [
        {"number": 1, "x": 0, "y": 5, "width": 100, "height": 120, "confidence": 0.875, "p_real": 0.9},
        {"number": 2, "x": 10, "y": 5, "width": 99, "height": 120, "confidence": 0.875, "p_real": 0.1},
    ]
    json.dumps(verdicts["card.faces"]["faces"])


def test_an_image_without_a_face_is_done_and_no_failure(face_books: FaceBooks, engine: Engine) -> None:
    ok, none, bad = images = refs(3)
    face_books.save([found(ok, 0.5), nobody(none), failed(bad)])

    ledger = read_ledger(engine, face_books.scan_id)
    assert (ledger.ok, ledger.failed, ledger.scored) == (1, {"no_face": 1, "truncated": 1}, 3)
    assert ledger.model == "card.faces"
    assert verify_scan(engine, face_books.scan_id) == []
    assert set(scored_fingerprints(engine, FACES.id, images)) == {ok.uri, none.uri, bad.uri}
    assert set(scored_fingerprints(engine, FACES.id, images, only_ok=True)) == {ok.uri, none.uri}
    assert count_scored(engine)[FACES.id] == {"scored": 1, "failed": 1, "pruned": 0}


def test_faces_go_with_their_verdicts_and_the_books_still_balance(
    books: Books, face_books: FaceBooks, engine: Engine
) -> None:
    images = refs(4)
    books.save([scored(ref) for ref in images])
    face_books.save([found(images[0], 0.9, 0.1), nobody(images[1]), found(images[2], 0.4), failed(images[3])])

    assert prune(engine, Wanted(model_id=FACES.id, failed=True)) == 1, "an image without a face is no failure"
    assert len(rows(engine)) == 3
    assert prune(engine, Wanted(model_id=FACES.id)) == 3
    assert rows(engine) == []
    with engine.connect() as connection:
        assert connection.execute(select(func.count()).select_from(schema.verdict)).scalar_one() == 4
    assert verify_scan(engine, face_books.scan_id) == []


def test_a_worker_bounds_its_patience_by_the_jobs_of_either_kind(
    books: Books, face_books: FaceBooks, engine: Engine
) -> None:
    for kept, seconds in ((books, 2.0), (face_books, 30.0)):
        job = kept.queue(refs(1))
        kept.store.begin_job(job.id, "worker@host")
        kept.store.save_job(job, [scored(refs(1)[0])], report(kept.model, seconds))
    assert longest_job_seconds(engine, "card") == 30.0


def test_a_producer_asks_for_faces_by_the_name_of_a_model_of_its_own(engine: Engine, settings: Settings) -> None:
    shipped = read_manifest(find_artifact(settings.model, settings))
    assert find_target(settings, engine, skip="all", faces=True) == Target(
        shipped.with_faces().name, shipped.with_faces().id
    )
    elsewhere = settings.model_copy(update={"model": "card"})
    assert find_target(elsewhere, engine, skip="all", faces=True) == Target("card.faces", None)

    Store(engine).register_model(FACES)

    expected = Target("card.faces", FACES.id)
    assert find_target(elsewhere, engine, skip="all", faces=True) == expected
    by_name = settings.model_copy(update={"model": "card.faces"})
    assert find_target(by_name, engine, skip="all") == expected
    assert find_target(by_name, engine, skip="all", faces=True) == expected


def test_jobs_for_faces_wait_in_the_queue_of_the_artifact_and_say_what_they_want(
    producer: Producer, client: "redis.Redis", faces: Path, engine: Engine
) -> None:
    target = Target(faces_name(MODEL), None)
    tally = producer.enqueuer.start([str(faces)], target)
    producer.enqueuer.enqueue(Scan([str(faces)]), target, tally, lambda _: None)

    jobs = [job_in(message) for message in messages(client)]

    assert sum(len(job.images) for job in jobs) == 10
    assert {(job.model, job.faces) for job in jobs} == {(MODEL, True)}
    assert read_ledger(engine, tally.scan_id).model == faces_name(MODEL)


def test_registering_the_model_of_faces_leaves_that_of_whole_images_as_it_is(
    new_books: Callable[..., Books], engine: Engine
) -> None:
    new_books()
    Store(engine).register_model(FACES)
    with engine.connect() as connection:
        models = {row.name: row for row in connection.execute(select(schema.model))}
    assert {name: row.id for name, row in models.items()} == {"card": CARD.id, "card.faces": FACES.id}
    assert models["card"].generated_below == models["card.faces"].generated_below
