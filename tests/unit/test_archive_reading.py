"""Members of archives that are read: by many threads, after an eviction, from a storage that fails, in few requests."""

import gc
import io
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from core.archives import open_archive
from core.errors import StorageError
from core.settings import load_settings
from core.storage import Reader
from core.uris import ANYWHERE, split_member
from tests.archived import MAX_BYTES, in_each_kind, listed, write_table
from worker.reading import ReadAhead

KINDS = ["tar", "zip", "parquet"]
CONTENTS = [bytes([number]) * (number * 100) for number in range(1, 21)]


@pytest.fixture(params=KINDS)
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """An archive with ``CONTENTS``, of each kind."""
    return in_each_kind(tmp_path, CONTENTS)[request.param]


def test_many_threads_read_from_one_archive(archive: Path) -> None:
    refs = dict(zip(listed(archive), CONTENTS, strict=True))
    shuffled = Random(1).sample([*refs] * 20, 400)
    with Reader(roots=(ANYWHERE,), max_bytes=MAX_BYTES) as reader, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(reader.read, shuffled)) == [refs[ref] for ref in shuffled]


def test_archives_that_are_dropped_while_others_are_opened_are_read_to_the_end(tmp_path: Path) -> None:
    refs = {}
    for number in range(12):
        (tmp_path / f"{number}").mkdir()
        for path in in_each_kind(tmp_path / f"{number}", CONTENTS).values():
            refs |= dict(zip(listed(path), CONTENTS, strict=True))
    shuffled = Random(1).sample([*refs], len(refs))
    gc.collect()
    before = open_files()
    with Reader(roots=(ANYWHERE,), max_bytes=MAX_BYTES) as reader, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(reader.read, shuffled)) == [refs[ref] for ref in shuffled]
        assert open_files() <= before + 4
    assert open_files() == before


def open_files() -> int:
    """Return how many files this process has open."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208


def test_a_read_after_the_end_is_an_error_that_may_pass(archive: Path) -> None:
    ref = listed(archive)[0]
    opened = open_archive(archive.open("rb"), str(archive))
    opened.close()
    opened.close()
    with pytest.raises(StorageError, match="closed"):
        opened.read(str(split_member(ref.uri)[1]), offset=ref.offset, max_bytes=MAX_BYTES)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), StorageError("the storage is away")])
def test_a_storage_that_fails_is_an_error_that_may_pass_and_the_next_read_succeeds(
    archive: Path, error: Exception
) -> None:
    file = Failing(archive.read_bytes())
    opened = open_archive(io.BufferedReader(file, 512), str(archive))
    for ref, content in zip(listed(archive), CONTENTS, strict=True):
        name = str(split_member(ref.uri)[1])
        file.error = error
        with suppress(StorageError):  # unless it is in the buffer
            assert opened.read(name, offset=ref.offset, max_bytes=MAX_BYTES) == content
        file.error = None
        assert opened.read(name, offset=ref.offset, max_bytes=MAX_BYTES) == content
    assert file.failures
    opened.close()


class Failing(io.RawIOBase):
    """A file that fails when it is told to."""

    def __init__(self, content: bytes) -> None:
        self.content = io.BytesIO(content)
        self.error: Exception | None = None
        self.failures = 0
        self.bytes_read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return self.content.seek(offset, whence)

    def readinto(self, buffer: memoryview) -> int:
        if self.error is not None:
            self.failures += 1
            raise self.error
        count = self.content.readinto(buffer)
        self.bytes_read += count
        return count


@pytest.mark.parametrize("kind", KINDS)
def test_one_shard_is_read_once_by_its_jobs(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = Random(1)
    contents = [chance.randbytes(chance.randint(5_000, 15_000)) for _ in range(2000)]
    path = in_each_kind(tmp_path, contents)[kind]
    if kind == "parquet":  # a group of rows can only be read from its beginning
        write_table(path, contents, group=256)
    refs = listed(path)
    files: list[Failing] = []

    def opened(uri: str, roots: object) -> tuple[io.BufferedReader, str]:
        files.append(Failing(path.read_bytes()))
        return io.BufferedReader(files[-1], 2**18), ""

    monkeypatch.setattr("core.storage.open_any", opened)
    ahead = ReadAhead(load_settings())
    for start in range(0, len(refs), 256):
        job = refs[start : start + 256]
        with ahead.job(job), ThreadPoolExecutor(4) as pool:
            assert list(pool.map(ahead.read, job)) == contents[start : start + 256]
    assert len(files) == 8
    assert 1 <= sum(file.bytes_read for file in files) / path.stat().st_size < 1.2
