"""Real object stores for whatever tests need them: each a process that listens on a socket, started once.

moto's S3 comes with the tests' packages, and answers Google's XML interface, too, which is that of S3. s3rver and
Azurite are used where npm has installed them (``npm install --global s3rver azurite``).
"""

import base64
import hashlib
import hmac
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.faulty_proxy import FaultyProxy

STARTING_SECONDS = 60
KEY, SECRET = "S3RVER", "S3RVER"  # what s3rver knows; moto takes any
AZURE_ACCOUNT = "devstoreaccount1"
#: Of every emulator of Azure, known to everybody.
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
#: A bucket of moto that is there from the beginning: asking for so many objects over HTTP would take half a minute.
MANY, MANY_OBJECTS = "manyobjects", 10_000
#: Another: two and a half answers of a listing, in the second of which there is a key that the client refuses.
ODD, ODD_OBJECTS, ODD_KEY = "oddobjects", 2500, "01500/../x.jpg"

_MOTO = f"""
import sys
from moto.core import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import main
s3 = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
s3.create_bucket({MANY!r}, "us-east-1")
for number in range({MANY_OBJECTS}):
    s3.put_object({MANY!r}, f"photos/{{number // 1000:02}}/{{number:05}}.jpg", b"pixels")
s3.create_bucket({ODD!r}, "us-east-1")
s3.put_object({ODD!r}, {ODD_KEY!r}, b"pixels")
for number in range({ODD_OBJECTS}):
    s3.put_object({ODD!r}, f"{{number:05}}.jpg", b"pixels")
main(["-H", "127.0.0.1", "-p", "0"])
"""


@dataclass(frozen=True)
class Storage:
    """An object store that runs.

    Attributes:
        scheme: of its URIs.
        url: of its server.
        make_bucket: makes an empty bucket of that name.
    """

    scheme: str
    url: str
    make_bucket: Callable[[str, str], None]

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Return the variables that lead a client to the server, or to a proxy before it."""
        url = url or self.url
        if self.scheme == "gs":
            return {"GOOGLE_BASE_URL": url, "GOOGLE_ALLOW_HTTP": "true", "GOOGLE_SKIP_SIGNATURE": "true"}
        if self.scheme == "az":
            return {
                "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
                "AZURE_STORAGE_ENDPOINT": f"{url}/{AZURE_ACCOUNT}",
                "AZURE_ALLOW_HTTP": "true",
            }
        return {
            "AWS_ENDPOINT_URL": url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }


@dataclass
class Bucket:
    """A bucket of a test's own.

    Attributes:
        storage: where it is.
        uri: of the bucket, without a slash at the end.
    """

    storage: Storage
    uri: str
    _write: Callable[[str, bytes], object]

    def put(self, key: str, content: bytes = b"pixels") -> str:
        """Write an object, whatever its key, and return its URI."""
        self._write(key, content)
        return f"{self.uri}/{key}"


@pytest.fixture(autouse=True)
def _no_cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the clouds of whoever runs it."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "GOOGLE_", "AZURE_")):
            monkeypatch.delenv(name)
    yield
    clients = sys.modules.get("core.bucket_client")
    if clients is not None:
        clients.open_client.cache_clear()


@pytest.fixture(scope="session")
def moto() -> Iterator[Storage]:
    """S3 by moto."""
    with tempfile.TemporaryDirectory() as folder:
        yield from _run(Path(folder), [sys.executable, "-c", _MOTO], "s3", _make_s3_bucket)


@pytest.fixture(scope="session")
def google(moto: Storage) -> Storage:
    """Google's XML interface, as far as moto's S3 is like it. No emulator of it can be installed."""
    return Storage("gs", moto.url, _make_s3_bucket)


@pytest.fixture(scope="session")
def s3rver() -> Iterator[Storage]:
    """S3 by s3rver, which checks signatures."""
    with tempfile.TemporaryDirectory() as folder:
        words = [_program("s3rver"), "--port", "0", "--address", "127.0.0.1", "--directory", folder]
        yield from _run(Path(folder), words, "s3", _make_s3_bucket)


@pytest.fixture(scope="session")
def azurite() -> Iterator[Storage]:
    """Azure by Azurite, which checks signatures."""
    with tempfile.TemporaryDirectory() as folder:
        words = [_program("azurite-blob"), "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry"]
        words += ["--blobPort", "0"]
        yield from _run(Path(folder), words, "az", _make_container)


@pytest.fixture
def make_bucket(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bucket]:
    """Make a bucket, and lead this process there, or to a proxy before it."""

    def make(storage: Storage, proxy_url: str | None = None) -> Bucket:
        for name, value in storage.environment(proxy_url).items():
            monkeypatch.setenv(name, value)
        name = f"test{uuid4().hex}"
        storage.make_bucket(storage.url, name)
        return Bucket(storage, f"{storage.scheme}://{name}", _writer(storage, name))

    return make


@pytest.fixture
def bucket(make_bucket: Callable[..., Bucket], moto: Storage) -> Bucket:
    """A bucket of moto."""
    return make_bucket(moto)


@pytest.fixture
def proxy(moto: Storage) -> Iterator[FaultyProxy]:
    """A proxy before moto, without faults as yet."""
    with FaultyProxy(moto.url) as proxy:
        yield proxy


@pytest.fixture
def far_bucket(proxy: FaultyProxy, make_bucket: Callable[..., Bucket], moto: Storage) -> Bucket:
    """A bucket of moto behind the proxy."""
    return make_bucket(moto, proxy.url)


def _run(folder: Path, words: list[str], scheme: str, make_bucket: Callable[[str, str], None]) -> Iterator[Storage]:
    """Run a server until the fixture ends; it takes a free port and says which."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + STARTING_SECONDS
        while (said := re.search(r"127\.0\.0\.1:([1-9]\d+)", log.read_text(errors="replace"))) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{words[0]} does not start: {log.read_text(errors='replace')}")
            time.sleep(0.05)
        yield Storage(scheme, f"http://127.0.0.1:{said[1]}", make_bucket)
    finally:
        process.terminate()
        process.wait(30)


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def _boto(url: str) -> Any:
    boto3 = pytest.importorskip("boto3")
    names = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    return boto3.client("s3", endpoint_url=url, **names)


def _make_s3_bucket(url: str, name: str) -> None:
    _boto(url).create_bucket(Bucket=name)


def _make_container(url: str, name: str) -> None:
    """Make a container by a signed request: object stores make objects, not containers."""
    date = formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
    signed = "PUT" + "\n" * 12 + headers + f"/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{name}\nrestype:container"
    digest = hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()
    request = urllib.request.Request(f"{url}/{AZURE_ACCOUNT}/{name}?restype=container", method="PUT")
    request.add_header("x-ms-date", date)
    request.add_header("x-ms-version", "2021-08-06")
    request.add_header("Authorization", f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}")
    request.add_header("Content-Length", "0")
    urllib.request.urlopen(request, timeout=30).close()


def _writer(storage: Storage, name: str) -> Callable[[str, bytes], object]:
    if storage.scheme != "az":
        boto = _boto(storage.url)
        return lambda key, content: boto.put_object(Bucket=name, Key=key, Body=content, ACL="public-read")
    from obstore.store import AzureStore

    options = {"account_name": AZURE_ACCOUNT, "account_key": AZURE_KEY, "endpoint": f"{storage.url}/{AZURE_ACCOUNT}"}
    return AzureStore(name, **options, client_options={"allow_http": True}).put
