"""Writes and the ledger, the same on every database: whatever happens, each listed image is accounted for."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import Engine, delete, select, update

from core.errors import DatabaseError, MessageError, UsageError
from core.images import ImageRef
from core.manifest import Calibration
from core.verdicts import Outcome, Status
from db import schema
from db.filters import Filter
from db.ledger import Ledger, latest_scan, longest_job_seconds, read_ledger, stuck_jobs, verify_scan
from db.queries import estimate_verdicts, find_model, list_verdicts, scored_fingerprints
from tests.integration.builders import Books, failed, job_of, manifest, refs, report, scored, write
from tests.integration.commands import HOSTILE

NewBooks = Callable[..., Books]


def balanced(engine: Engine, books: Books) -> Ledger:
    """Return the ledger, which must balance."""
    ledger = read_ledger(engine, books.scan_id)
    assert ledger.imbalance == 0
    assert verify_scan(engine, books.scan_id) == []
    return ledger


def test_the_books_balance_at_every_step(books: Books, engine: Engine) -> None:
    ledger = balanced(engine, books)
    assert (ledger.scan_status, ledger.listed, ledger.is_complete) == ("listing", 0, False)

    books.store.record_listing(books.scan_id, [], skipped=2)
    done, lost, dropped, waiting = (books.queue(refs(10, start=10 * number)) for number in range(4))
    ledger = balanced(engine, books)
    assert (ledger.listed, ledger.skipped, ledger.queued, ledger.pending) == (42, 2, 40, 40)

    books.store.begin_job(done.id, "worker@host")
    ledger = balanced(engine, books)
    assert (ledger.queued, ledger.running, ledger.pending) == (30, 10, 40)

    outcomes = [scored(ref) for ref in done.images[:7]] + [failed(ref) for ref in done.images[7:]]
    books.store.save_job(done, outcomes, report(books.model))
    ledger = balanced(engine, books)
    assert (ledger.ok, ledger.failed, ledger.scored) == (7, {"truncated": 3}, 10)

    books.store.fail_job(lost.id, "the storage is gone")
    ledger = balanced(engine, books)
    assert (ledger.undelivered, ledger.errors) == (10, {"the storage is gone": 1})

    books.store.finish_scan(books.scan_id, "listed", ignored=5)
    ledger = balanced(engine, books)
    assert (ledger.scan_status, ledger.ignored, ledger.is_complete) == ("listed", 5, False)

    books.run(dropped)
    books.run(waiting)
    ledger = balanced(engine, books)
    assert (ledger.ok, ledger.undelivered, ledger.is_complete) == (27, 10, True)


def test_saving_a_job_again_changes_nothing(books: Books, engine: Engine) -> None:
    job = books.save([scored(ref) for ref in refs(5)])
    before = balanced(engine, books)
    books.store.save_job(job, [scored(ref) for ref in job.images], report(books.model))
    after = balanced(engine, books)
    assert (after.listed, after.ok) == (before.listed, before.ok)
    assert estimate_verdicts(engine, Filter()) == (5, False)


def test_a_verdict_holds_what_the_worker_knows(books: Books, engine: Engine) -> None:
    first, second = refs(2)
    books.save([scored(first, 0.25), failed(second, Status.TOO_LARGE)])
    good, bad = list_verdicts(engine, Filter())
    assert good | {"scored_at": None} == {
        "uri": first.uri, "status": "ok", "p_real": 0.25, "label": "generated", "reason": "", "model": "card",
        "trained": True, "scan_id": books.scan_id, "scored_at": None, "width": 640, "height": 480, "size_bytes": 10,
    }  # fmt: skip
    assert good["scored_at"].utcoffset().total_seconds() == 0
    assert (bad["status"], bad["p_real"], bad["label"], bad["width"]) == ("too_large", None, None, None)
    assert bad["reason"] == "it is too_large"


@pytest.mark.parametrize("p_real", [0.0, 1.0, 5e-324, 0.1 + 0.2, 1 - 2**-53])
def test_a_score_is_kept_to_the_last_bit(p_real: float, books: Books, engine: Engine) -> None:
    books.save([scored(refs(1)[0], p_real)])
    (row,) = list_verdicts(engine, Filter())
    assert row["p_real"] == p_real


def test_the_size_of_an_image_is_kept_when_a_later_run_does_not_know_it(new_books: NewBooks, engine: Engine) -> None:
    new_books().save([scored(refs(1)[0])])
    new_books().save([failed(refs(1)[0], Status.NOT_FOUND)])
    (row,) = list_verdicts(engine, Filter())
    assert (row["status"], row["p_real"], row["width"], row["height"]) == ("not_found", None, 640, 480)


@pytest.mark.parametrize("change", ["fewer", "more", "swapped", "other"])
def test_outcomes_that_are_not_those_of_the_images_are_refused(change: str, books: Books, engine: Engine) -> None:
    job = books.queue(refs(3))
    right = [scored(ref) for ref in job.images]
    stranger = scored(ImageRef("/stranger.jpg", "1-1", 1))
    wrong = {"fewer": right[:2], "more": [*right, right[0]], "swapped": right[::-1], "other": [*right[:2], stranger]}
    with pytest.raises(ValueError, match=job.id):
        books.store.save_job(job, wrong[change], report(books.model))
    assert estimate_verdicts(engine, Filter()) == (0, False)
    assert balanced(engine, books).queued == 3


def test_an_image_that_stands_twice_in_a_job_is_counted_twice_and_has_one_verdict(books: Books, engine: Engine) -> None:
    (ref,) = refs(1)
    books.save([scored(ref), scored(ref), scored(refs(2)[1])])
    assert balanced(engine, books).ok == 3
    assert estimate_verdicts(engine, Filter()) == (2, False)


def test_what_is_saved_comes_back_to_the_bit(books: Books, engine: Engine) -> None:
    names = (*HOSTILE, "\\u0000 is no NUL.jpg", "\\x00.jpg", "\u2028\U0001f600.jpg", "%(uri)s :uri ?.jpg", "x" * 4000)
    scores = (0.1 + 0.2, 5e-324, 1 - 2**-53, 0.0, 1.0)
    images = [ImageRef(f"/faces/{name}", f'"{name}"', 2**63 - 1) for name in names]
    outcomes = [
        Outcome(
            ref, Status.OK, scores[number % 5], ref.uri[:500], bytes(range(number, number + 16)), 1, 2**31 - 1, -(2**63)
        )
        for number, ref in enumerate(images)
    ]
    before = datetime.now(UTC)
    job = books.save(outcomes)
    with engine.connect() as connection:
        rows = connection.execute(select(schema.verdict, schema.image).join(schema.image)).all()
    found = {
        row.uri: Outcome(
            ImageRef(row.uri, row.fingerprint, row.size_bytes), Status(row.status), row.p_real, row.reason,
            bytes(row.digest), row.width, row.height, row.phash,
        )
        for row in rows
    }  # fmt: skip
    assert found == {of.ref.uri: of for of in outcomes}
    for row in rows:
        assert bytes(row.image_id) == bytes(row.id) == found[row.uri].ref.id
        assert (row.model_id, row.scan_id, row.job_id) == (books.model.id, books.scan_id, job.id)
        assert before <= row.scored_at <= datetime.now(UTC)


def test_two_scans_over_the_same_images_both_balance(new_books: NewBooks, engine: Engine) -> None:
    first, second = new_books(), new_books()
    first.save([scored(ref, 0.1) for ref in refs(5)])
    second.save([scored(ref, 0.9) for ref in refs(5)])
    assert balanced(engine, first).ok == balanced(engine, second).ok == 5
    assert {row["p_real"] for row in list_verdicts(engine, Filter())} == {0.9}
    assert estimate_verdicts(engine, Filter(scan_id=first.scan_id)) == (0, False)
    assert estimate_verdicts(engine, Filter(scan_id=second.scan_id)) == (5, False)


def test_two_models_have_a_verdict_each_on_an_image(new_books: NewBooks, engine: Engine) -> None:
    new_books("one").save([scored(ref, 0.1) for ref in refs(3)])
    new_books("two").save([scored(ref, 0.9) for ref in refs(3)])
    assert estimate_verdicts(engine, Filter()) == (6, False)


def test_overlapping_jobs_that_are_saved_at_once_wait_for_each_other(books: Books, engine: Engine) -> None:
    images = refs(60)
    pairs = [(books.queue(images[:40]), books.queue(images[:19:-1])) for _ in range(6)]
    barrier = threading.Barrier(2)

    def save(number: int) -> None:
        for pair in pairs:
            barrier.wait(20)
            books.run(pair[number])

    with ThreadPoolExecutor(2) as threads:
        for future in [threads.submit(save, number) for number in (0, 1)]:
            future.result(60)
    assert estimate_verdicts(engine, Filter()) == (60, False)
    assert balanced(engine, books).ok == 6 * 80


def test_an_unknown_job_is_refused(books: Books) -> None:
    with pytest.raises(MessageError, match="not in the ledger"):
        books.store.begin_job("0" * 32, "worker@host")


def test_a_job_that_is_over_is_not_begun_again(books: Books, engine: Engine) -> None:
    done, lost = books.save([scored(ref) for ref in refs(2)]), books.queue(refs(2))
    books.store.fail_job(lost.id, "gone")
    for job in (done, lost):
        assert books.store.begin_job(job.id, "worker@host").is_over
    assert balanced(engine, books).running == 0


def test_a_job_that_is_done_cannot_fail_any_more(books: Books, engine: Engine) -> None:
    job = books.save([scored(ref) for ref in refs(2)])
    books.store.fail_job(job.id, "too late")
    assert balanced(engine, books).ok == 2


def test_labels_follow_when_a_model_is_registered_again_that_was_calibrated_since(books: Books, engine: Engine) -> None:
    books.save([scored(ref, p_real) for ref, p_real in zip(refs(3), [0.2, 0.5, 0.8], strict=True)])
    labels = [row["label"] for row in list_verdicts(engine, Filter())]
    books.store.register_model(manifest(books.model.name, generated_below=0.1, real_above=0.6))
    assert labels == ["generated", "generated", "real"]
    assert [row["label"] for row in list_verdicts(engine, Filter())] == ["unsure", "unsure", "real"]
    with engine.connect() as connection:
        (row,) = connection.execute(select(schema.model))
    assert (row.id, row.generated_below, row.real_above) == (books.model.id, 0.1, 0.6)


def test_thresholds_that_were_chosen_here_outlive_a_new_registration(books: Books, engine: Engine) -> None:
    chosen = {"generated_below": 0.2, "real_above": 0.3, "thresholds_set_at": datetime.now(UTC)}
    write(engine, update(schema.model).values(chosen))
    calibration = Calibration(
        slope=1, intercept=0, images=9, source="a test", false_positive_rate=0.01, operating_points={"0.01": 0.4}
    )
    books.store.register_model(manifest(books.model.name, generated_below=0.1, real_above=0.6, calibration=calibration))
    with engine.connect() as connection:
        (row,) = connection.execute(select(schema.model))
    assert (row.generated_below, row.real_above, row.operating_points) == (0.2, 0.3, '{"0.01": 0.4}')


def test_the_hash_of_an_image_is_kept_when_a_later_run_does_not_know_it(new_books: NewBooks, engine: Engine) -> None:
    (ref,) = refs(1)
    lowest = -(2**63)
    new_books().save([replace(scored(ref), phash=lowest)])
    new_books().save([failed(ref, Status.NOT_FOUND)])
    with engine.connect() as connection:
        assert connection.execute(select(schema.image.c.phash)).scalars().all() == [lowest]


def test_a_name_means_the_model_that_was_last_registered_under_it(books: Books, engine: Engine) -> None:
    retrained = manifest("card", sha256="ff" * 32)
    books.store.register_model(retrained)
    assert find_model(engine, "card") == retrained.id
    books.store.register_model(books.model)
    assert find_model(engine, "card") == books.model.id
    assert find_model(engine, "nobody") is None


def test_verification_finds_a_verdict_that_was_deleted(books: Books, engine: Engine) -> None:
    job = books.save([scored(ref) for ref in refs(700)])
    some = [ref.id for ref in job.images[:3]]
    write(engine, delete(schema.verdict).where(schema.verdict.c.image_id.in_(some)))
    assert verify_scan(engine, books.scan_id) == [f"job {job.id}: 3 of 700 images have no verdict"]


def test_verification_finds_a_wrong_count(books: Books, engine: Engine) -> None:
    job = books.save([scored(ref) for ref in refs(5)])
    write(engine, update(schema.job).values(n_ok=4))
    assert any(job.id in problem for problem in verify_scan(engine, books.scan_id))


def test_verification_finds_a_job_that_is_missing(books: Books, engine: Engine) -> None:
    books.save([scored(ref) for ref in refs(5)])
    job = books.queue(refs(3))
    write(engine, delete(schema.job).where(schema.job.c.id == job.id))
    assert verify_scan(engine, books.scan_id) == ["3 of 8 listed images are in no job"]


def test_verification_looks_at_every_job_however_many_there_are(books: Books, engine: Engine) -> None:
    jobs = [books.save([scored(ref)]) for ref in refs(130)]
    write(engine, delete(schema.verdict).where(schema.verdict.c.job_id == jobs[-1].id))
    assert verify_scan(engine, books.scan_id) == [f"job {jobs[-1].id}: 1 of 1 images have no verdict"]


def test_a_scan_that_does_not_exist_is_a_mistake_of_the_user(engine: Engine) -> None:
    with pytest.raises(UsageError):
        latest_scan(engine)
    with pytest.raises(UsageError, match="99"):
        stuck_jobs(engine, 99, (), failed=True)
    for read in (read_ledger, verify_scan):
        with pytest.raises(UsageError, match="99"):
            read(engine, 99)


def test_stuck_are_failed_jobs_and_those_that_the_broker_does_not_hold(books: Books, engine: Engine) -> None:
    failed_job, held, lost, running, done = (books.queue(refs(2)) for _ in range(5))
    books.store.fail_job(failed_job.id, "gone")
    books.store.begin_job(running.id, "worker@host")
    books.run(done)
    assert set(stuck_jobs(engine, books.scan_id, {held.id}, failed=True)) == {failed_job.id, lost.id, running.id}
    assert set(stuck_jobs(engine, books.scan_id, {held.id, running.id}, failed=False)) == {lost.id}


def test_a_requeued_job_is_the_same_job_with_a_clean_record(books: Books, engine: Engine) -> None:
    job, done = books.queue(refs(3)), books.save([scored(ref) for ref in refs(2)])
    for _ in range(3):
        books.store.begin_job(job.id, "worker@host")
    books.store.fail_job(job.id, "lost too often")
    assert [books.store.requeue(job_id) for job_id in (job.id, done.id, "0" * 32)] == [job, None, None]
    ledger = balanced(engine, books)
    assert (ledger.queued, ledger.undelivered, ledger.errors, ledger.ok) == (3, 0, {}, 2)
    assert books.store.begin_job(job.id, "worker@host").losses == 0


def test_a_cancel_drops_what_no_worker_has_begun_and_ends_the_listing(books: Books, engine: Engine) -> None:
    done, running = books.save([scored(ref) for ref in refs(1)]), books.queue(refs(2))
    books.store.begin_job(running.id, "worker@host")
    queued, lost = books.queue(refs(4)), books.queue(refs(8))
    books.store.fail_job(lost.id, "gone")
    assert books.store.cancel_scan(books.scan_id) == 2
    ledger = balanced(engine, books)
    assert (ledger.scan_status, ledger.cancelled, ledger.running, ledger.ok) == ("cancelled", 12, 2, 1)
    assert books.store.begin_job(queued.id, "worker@host").is_over
    assert not books.store.record_listing(books.scan_id, [job_of(refs(3), books.scan_id)], skipped=1)
    books.store.finish_scan(books.scan_id, "listed", ignored=0)
    books.store.save_job(running, [scored(ref) for ref in running.images], report(books.model))
    ledger = balanced(engine, books)
    assert (ledger.scan_status, ledger.listed, ledger.ok, ledger.is_complete) == ("cancelled", 15, 3, True)
    assert done.id not in stuck_jobs(engine, books.scan_id, (), failed=True)


def test_what_is_scored_already_is_known_by_its_fingerprint(books: Books, engine: Engine) -> None:
    images = refs(1200)
    books.save([scored(ref) for ref in images[:600]] + [failed(ref) for ref in images[600:1100]])
    found = scored_fingerprints(engine, books.model.id, images)
    assert found == {ref.uri: ref.fingerprint for ref in images[:1100]}
    assert len(scored_fingerprints(engine, books.model.id, images, only_ok=True)) == 600
    assert scored_fingerprints(engine, "0" * 32, images) == {}


def test_the_longest_job_of_a_model_is_measured(new_books: NewBooks, engine: Engine) -> None:
    assert longest_job_seconds(engine, "one") is None
    for name, seconds in (("one", 2.0), ("one", 3.0), ("two", 9.0)):
        books = new_books(name)
        job = books.queue(refs(1))
        books.store.save_job(job, [scored(job.images[0])], report(books.model, seconds))
    assert longest_job_seconds(engine, "one") == 3.0


def test_the_fault_of_a_database_is_one_line_about_it(books: Books, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP VIEW labelled_verdict")
    with pytest.raises(DatabaseError, match="labelled_verdict") as caught:
        estimate_verdicts(engine, Filter(under=("/faces/",)))
    assert "\n" not in str(caught.value)
