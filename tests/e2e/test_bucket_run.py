"""``producer run`` on a bucket behind a network that breaks: nothing is lost, and the ledger balances.

``BUCKET_OBJECTS=10000 pytest tests/e2e/test_bucket_run.py`` runs it on so many objects.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.bucket_client import TRIES
from tests.buckets import Bucket, Storage
from tests.e2e.conftest import Site, children_of, write_images
from tests.faulty_proxy import (
    BUSY_503,
    ERROR_500,
    FORBIDDEN,
    LATE,
    NO_FAULT,
    RESET,
    TRUNCATED,
    Fault,
    FaultyProxy,
    seeded,
)

OBJECTS = int(os.environ.get("BUCKET_OBJECTS", "300"))
SHARES = {ERROR_500: 0.05, BUSY_503: 0.05, RESET: 0.05, TRUNCATED: 0.05, LATE: 0.05}
READ_TRIES = 4  # of a worker, see `worker.reading`

pytestmark = [pytest.mark.tensorflow, pytest.mark.timeout(180 + OBJECTS // 10)]


@pytest.fixture
def far_site(make_site: Callable[..., Site], moto: Storage, proxy: FaultyProxy, far_bucket: Bucket) -> Site:
    """An installation that reads buckets through the proxy, and no others."""
    return make_site(FACESIEVE_ROOTS=far_bucket.uri, **moto.environment(proxy.url))


def fill(bucket: Bucket, folder: Path, number: int) -> list[str]:
    """Put so many small images into a bucket and return their URIs."""
    paths = write_images(folder, number)
    return [bucket.put(f"photos/{path.relative_to(folder)}", path.read_bytes()) for path in paths]


def has_loaded(library: str, pid: int) -> bool:
    return f"/{library}/" in Path(f"/proc/{pid}/maps").read_text()


def test_every_object_gets_its_verdict_or_a_named_failure(
    far_site: Site, far_bucket: Bucket, proxy: FaultyProxy, tmp_path: Path
) -> None:
    uris = fill(far_bucket, tmp_path / "faces", OBJECTS)
    gone = uris[7].removeprefix("s3:/")
    broken = far_bucket.put("photos/broken.jpg", b"no image")
    chance = seeded(3, SHARES)

    def schedule(method: str, path: str, before: int) -> Fault:
        return Fault(404) if path == gone else chance(method, path, before)

    proxy.forget()
    proxy.schedule = schedule
    source = f"{far_bucket.uri}/photos"

    summary = json.loads(far_site.run("producer", "run", source, "--job-size", "64", "--json", timeout=900).stdout)

    assert (summary["listed"], summary["scored"]) == (OBJECTS + 1, OBJECTS + 1)
    verified = far_site.ok("db", "verify", "--complete")
    assert f"0 skipped + {OBJECTS - 1} ok + 1 not_found, 1 unsupported failed + 0 pending" in verified
    assert broken in far_site.ok("db", "list", "--status", "unsupported", "--csv")
    assert set(proxy.faults) >= set(SHARES)
    of_objects = [number for (_, path), number in proxy.counts.items() if path.endswith(".jpg")]
    assert len(of_objects) == OBJECTS + 1
    assert max(of_objects) <= TRIES * READ_TRIES
    assert far_site.log().count("Traceback") == 0


def test_a_second_run_reads_only_what_changed(
    far_site: Site, far_bucket: Bucket, proxy: FaultyProxy, tmp_path: Path
) -> None:
    uris = fill(far_bucket, tmp_path / "faces", 12)
    far_site.ok("producer", "run", far_bucket.uri)
    far_bucket.put(uris[3].removeprefix(f"{far_bucket.uri}/"), (tmp_path / "faces" / "00" / "000004.jpg").read_bytes())
    proxy.forget()

    again = json.loads(far_site.ok("producer", "run", far_bucket.uri, "--json"))

    assert (again["listed"], again["skipped"], again["scored"]) == (12, 11, 1)
    read = [path for _, path in proxy.counts if path.endswith(".jpg")]
    assert read == [uris[3].removeprefix("s3:/")]


def test_a_bucket_that_denies_reading_fails_the_job_and_a_retry_scores_it(
    far_site: Site, far_bucket: Bucket, proxy: FaultyProxy, tmp_path: Path
) -> None:
    fill(far_bucket, tmp_path / "faces", 5)
    proxy.schedule = lambda method, path, before: FORBIDDEN if path.endswith(".jpg") else NO_FAULT

    done = far_site.run("producer", "run", far_bucket.uri, "--json")

    assert done.returncode == 1
    assert "403 Forbidden (AccessDenied)" in done.stdout + done.stderr
    proxy.schedule = lambda method, path, before: NO_FAULT
    far_site.ok("producer", "retry", "1")
    with far_site.worker() as worker:
        far_site.ok("producer", "enqueue", far_bucket.uri, "--wait")
        assert not has_loaded("obstore", worker.pid)  # its threads would not survive the fork
        assert any(has_loaded("obstore", child) for child in children_of(worker.pid))
    assert "5 ok" in far_site.ok("db", "verify", "--complete")


def test_a_scan_that_passed_over_a_key_is_not_complete(far_site: Site, far_bucket: Bucket, tmp_path: Path) -> None:
    fill(far_bucket, tmp_path / "faces", 3)
    far_bucket.put("photos//x.jpg")

    done = far_site.run("producer", "run", far_bucket.uri)

    assert "cannot list" in done.stdout + done.stderr
    assert "photos//x.jpg: a key with '//'" in done.stdout + done.stderr
    assert "3 ok" in far_site.ok("db", "verify")
    assert far_site.run("db", "verify", "--complete").returncode == 1


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("s3://no-such-bucket/photos", 4, "there is no such bucket; see AWS_"),
        ("s3://", 4, "names no bucket"),
        ("gs://bucket/x", 3, "GOOGLE_BASE_URL"),
    ],
)
def test_a_mistake_is_one_line(source: str, code: int, said: str, far_site: Site) -> None:
    far_site.environment["GOOGLE_BASE_URL"] = "nowhere"

    done = far_site.run("producer", "run", source)

    assert done.returncode == code
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
