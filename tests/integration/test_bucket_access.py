"""Who may read buckets, where they are, and what is said if that is wrong."""

import subprocess
import sys
from pathlib import Path

import pytest

from core.buckets import BucketListing, open_object, read_object
from core.errors import ImageError, SettingsError, SourceError, StorageError
from core.selection import Selection
from core.verdicts import Status
from tests.buckets import Bucket
from tests.faulty_proxy import FORBIDDEN, NO_FAULT, FaultyProxy

LIMIT = 10**6


def test_denied_access_may_pass_and_is_told_in_a_few_words(far_bucket: Bucket, proxy: FaultyProxy) -> None:
    uri = far_bucket.put("a.jpg")
    proxy.schedule = lambda method, path, before: FORBIDDEN

    with pytest.raises(StorageError, match=r"^the storage answered 403 Forbidden \(AccessDenied\)$"):
        read_object(uri, max_bytes=LIMIT)
    with pytest.raises(StorageError, match=r"^the storage answered 403 Forbidden$"):
        open_object(uri)
    with pytest.raises(SourceError, match=r"403 Forbidden \(AccessDenied\); see AWS_ACCESS_KEY_ID") as caught:
        BucketListing(uri, Selection())
    assert "\n" not in str(caught.value)
    assert proxy.url not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://bucket", "no object"), ("s3://bucket/", "no object"), ("s3:///key.jpg", "no object"),
        ("s3://evil.example#/a.jpg", "no object"), ("s3://user@host/a.jpg", "no object"), ("s3://b?x/a", "no object"),
        ("s3://bucket//a.jpg", "'//'"), ("s3://bucket/a/", "'//'"), ("s3://bucket/a/../b.jpg", "'//'"),
        ("s3://bucket/a\nb.jpg", "'//'"), ("s3://bucket/\udc80.jpg", "'//'"), ("gs://b/.", "'//'"),
        ("az://b/..", "'//'"),
    ],
)  # fmt: skip
def test_names_that_are_none_are_refused_without_a_request(
    uri: str, reason: str, far_bucket: Bucket, proxy: FaultyProxy
) -> None:
    proxy.forget()
    with pytest.raises(ImageError, match=reason) as caught:
        read_object(uri, max_bytes=LIMIT)
    assert caught.value.status is Status.UNSUPPORTED
    with pytest.raises(ImageError, match=reason):
        open_object(uri)
    assert proxy.counts.total() == 0


@pytest.mark.parametrize(
    "name", ["s3://", "s3:///a", "s3://b//a", "s3://b/a//", "s3://b/../c", "s3://a b/c", "s3://b/\0"]
)
def test_a_source_that_is_no_name_is_told(name: str) -> None:
    with pytest.raises(SourceError, match=r"^source s3://"):
        BucketListing(name, Selection())


def test_an_object_that_may_be_seen_by_nobody_is_not_taken_for_an_empty_folder(
    far_bucket: Bucket, proxy: FaultyProxy
) -> None:
    uri = far_bucket.put("a.jpg")
    proxy.schedule = lambda method, path, before: FORBIDDEN if method == "HEAD" else NO_FAULT

    with pytest.raises(SourceError, match="403 Forbidden; see AWS_ACCESS_KEY_ID"):
        BucketListing(uri, Selection())
    far_bucket.put("a.jpg/b.jpg")
    assert [ref.uri for ref in BucketListing(uri, Selection())] == [f"{uri}/b.jpg"]


def test_a_public_bucket_is_read_without_a_signature(
    far_bucket: Bucket, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    uri = far_bucket.put("a.jpg")

    assert read_object(uri, max_bytes=LIMIT) == b"pixels"
    assert [ref.uri for ref in BucketListing(far_bucket.uri, Selection())] == [uri]
    assert set(proxy.signers) == {""}


def test_credentials_come_from_the_profile_that_is_named(
    far_bucket: Bucket, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    credentials = tmp_path / "credentials"
    credentials.write_text("[work]\naws_access_key_id = WORKER\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    monkeypatch.setenv("AWS_PROFILE", "work")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    uri = far_bucket.put("a.jpg")

    assert read_object(uri, max_bytes=LIMIT) == b"pixels"
    assert set(proxy.signers) == {"WORKER"}


def test_a_profile_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(SettingsError, match=r"^AWS_PROFILE is 'nobody': no credentials"):
        BucketListing("s3://bucket", Selection())


@pytest.mark.parametrize(
    ("source", "name", "value"),
    [
        ("gs://bucket", "GOOGLE_APPLICATION_CREDENTIALS", "/nowhere.json"),
        ("gs://bucket", "GOOGLE_SERVICE_ACCOUNT", __file__),
        ("az://bucket", "AZURE_STORAGE_ACCOUNT_KEY", "no key!"),
    ],
)
def test_credentials_that_are_none_are_told(
    source: str, name: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv(name, value)
    with pytest.raises(SourceError, match=r"cannot be listed: the credentials cannot be used; see (GOOGLE|AZURE)_"):
        BucketListing(source, Selection())


@pytest.mark.parametrize("source", ["s3://bucket/a", "az://bucket/a"])
def test_missing_credentials_are_told_with_the_variables_to_set(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(
        SourceError, match=r"no credentials were found; see (AWS_ACCESS_KEY_ID|AZURE_STORAGE_ACCOUNT_NAME)"
    ):
        BucketListing(source, Selection())


@pytest.mark.parametrize(
    "address",
    ["nonsense", "http://", "http:///a", "http://[::1", "http://h:99999", "http://a b", "ftp://h", "http://ä"],
)
def test_an_address_that_is_none_is_told_with_its_variable(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    with pytest.raises(SettingsError, match=r"^AWS_ENDPOINT_URL is "):
        BucketListing("s3://bucket", Selection())


def test_an_address_without_encryption_must_be_allowed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    with pytest.raises(SettingsError, match="set AWS_ALLOW_HTTP=true"):
        BucketListing(bucket.uri, Selection())


def test_a_forked_process_reads_buckets_of_its_own_and_never_hangs(bucket: Bucket) -> None:
    uri = bucket.put("a.jpg")
    script = f"""
import os
from core.buckets import read_object
def child():
    process = os.fork()
    if process == 0:
        try:
            os._exit(read_object({uri!r}, max_bytes=100) != b"pixels")
        except RuntimeError:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
before = child()
read_object({uri!r}, max_bytes=100)
print(before, child())
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.split() == ["0", "7"], done.stderr


@pytest.mark.parametrize(
    ("missing", "profile", "hint"),
    [("obstore", "", "pip install 'facesieve[cloud]'"), ("obstore.auth.boto3", "work", "pip install boto3")],
)
def test_a_package_that_is_missing_is_named(
    missing: str, profile: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", profile)
    script = f"""
import sys
sys.modules[{missing!r}] = None
from core.errors import UsageError
from core.selection import Selection
try:
    from core.buckets import BucketListing
    BucketListing("s3://bucket", Selection())
except UsageError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert hint in done.stdout, done.stderr
