"""Listing and reading folders, whatever their files are called and whatever they are."""

import errno
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ImageError, SourceError, StorageError
from core.files import FolderListing
from core.selection import Selection
from core.storage import read_image
from core.uris import FILE_SCHEME, is_named_inside, path_to_uri, uri_to_path
from core.verdicts import Status

EVERYTHING = Selection(include=["*"])
PATHS = st.binary(min_size=1, max_size=40).map(lambda raw: os.fsdecode(b"/" + raw.replace(b"\0", b"")))
ODD_NAMES = ["new\nline.jpg", 'quo"te.jpg', "quo'te.jpg", "100%.jpg", "%41.jpg", "[red].jpg", " ", "ü.jpg", "a\\b.jpg"]


def listed(source: Path, selection: Selection = EVERYTHING) -> set[str]:
    """Return the URIs of a listing."""
    return {ref.uri for ref in FolderListing(str(source), selection)}


def read(path: Path | str, root: Path, max_bytes: int = 1000) -> bytes:
    """Read a file below one root."""
    return read_image(str(path), roots=(root,), max_bytes=max_bytes)


def status_of(path: Path | str, root: Path, max_bytes: int = 1000) -> Status:
    """Return what becomes of an image that cannot be read."""
    with pytest.raises(ImageError) as caught:
        read(path, root, max_bytes)
    assert caught.value.reason
    assert "\n" not in caught.value.reason
    return caught.value.status


def test_a_folder_is_listed_with_all_below_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    files = [tmp_path / "1", tmp_path / "a" / "2", tmp_path / "a" / "b" / "3"]
    for file in files:
        file.touch()
    assert listed(tmp_path) == {str(file) for file in files}


def test_a_relative_source_gives_absolute_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "1").touch()
    monkeypatch.chdir(tmp_path)
    assert {ref.uri for ref in FolderListing(".", EVERYTHING)} == {str(tmp_path / "1")}


def test_a_reference_tells_size_and_time_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "1"
    file.write_bytes(b"12345")
    os.utime(file, ns=(7, 7))
    (ref,) = FolderListing(str(tmp_path), EVERYTHING)
    assert (ref.fingerprint, ref.size_bytes) == ("5-7", 5)


def test_a_source_that_is_one_file_is_listed_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / ".odd").touch()
    assert listed(tmp_path / ".odd", Selection(include=["no"])) == {str(tmp_path / ".odd")}


def test_a_source_that_does_not_exist_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        FolderListing(str(tmp_path / "gone"), EVERYTHING)


def test_a_listing_is_lazy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1").touch()
    opened = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: opened.append(path) or scandir(path))
    images = iter(FolderListing(str(tmp_path), EVERYTHING))
    next(images)
    assert len(opened) == 3  # the check, the root, one folder
    assert len(list(images)) == 2


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache" / "1").touch()
    (tmp_path / ".1").touch()
    listing = FolderListing(str(tmp_path), EVERYTHING)
    assert list(listing) == []
    assert listing.ignored == 0


def test_unwanted_files_are_counted_and_asked_about_by_their_relative_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1").touch()
    (tmp_path / "2").touch()
    listing = FolderListing(str(tmp_path), Selection(include=["a/1"]))
    assert [ref.uri for ref in listing] == [str(tmp_path / "a" / "1")]
    assert listing.ignored == 1


def test_links_to_folders_are_followed_and_loops_end(tmp_path: Path) -> None:
    (tmp_path / "source" / "a").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "1").touch()
    (tmp_path / "source" / "a" / "up").symlink_to(tmp_path / "source")
    (tmp_path / "source" / "a" / "self").symlink_to("self")
    (tmp_path / "source" / "there").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "source" / "there too").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "source")
    found = listed(tmp_path / "source", Selection(include=["1"]))
    assert len(found) == 1
    assert found < {f"{tmp_path}/source/there/1", f"{tmp_path}/source/there too/1"}


def test_a_link_to_nowhere_is_listed_for_the_worker_to_name_its_failure(tmp_path: Path) -> None:
    (tmp_path / "1").symlink_to("gone")
    (ref,) = FolderListing(str(tmp_path), EVERYTHING)
    assert (ref.fingerprint, ref.size_bytes) == ("", 0)


def test_a_folder_that_cannot_be_listed_is_reported_and_the_rest_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("closed", "open"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1").touch()
    scandir = os.scandir

    def forbidding(path: str) -> object:
        if path == str(tmp_path / "closed"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidding)
    listing = FolderListing(str(tmp_path), EVERYTHING)
    assert [ref.uri for ref in listing] == [str(tmp_path / "open" / "1")]
    assert listing.unlistable == [f"{tmp_path}/closed: Permission denied"]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_an_odd_name_is_its_own_uri(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"content")
    (uri,) = listed(tmp_path)
    assert uri == str(tmp_path / name)
    assert read(uri, tmp_path) == b"content"


def test_a_name_that_is_not_utf8_travels_as_an_encoded_uri(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/f\xff older"
    Path(os.fsdecode(folder)).mkdir()
    Path(os.fsdecode(folder + b"/caf\xe9%.jpg")).write_bytes(b"content")
    (uri,) = listed(tmp_path)
    assert uri.startswith(FILE_SCHEME)
    assert uri.isascii()
    assert read(uri, tmp_path) == b"content"


@given(PATHS)
def test_every_path_has_a_uri_that_names_it_and_can_be_encoded(path: str) -> None:
    uri = path_to_uri(path)
    assert uri_to_path(uri) == path
    assert uri.encode().decode() == uri


@pytest.mark.parametrize("uri", ["", "a.jpg", "ftp://host/a.jpg", "file://a.jpg", "/a%\0"])
def test_what_names_no_local_file_is_unsupported(uri: str, tmp_path: Path) -> None:
    assert status_of(uri, tmp_path) is Status.UNSUPPORTED
    assert not is_named_inside(uri, (Path("/"),))


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(b"12345")
    assert read(tmp_path / "1", tmp_path, max_bytes=5) == b"12345"


def test_a_file_that_is_gone_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for name in ("gone", "gone/1", "file/1", "loop", "n" * 300):
        assert status_of(tmp_path / name, tmp_path) is Status.NOT_FOUND


def test_a_file_above_the_limit_is_refused_before_a_byte_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "1").open("wb") as file:
        file.truncate(2**40)
    assert status_of(tmp_path / "1", tmp_path, max_bytes=2**30) is Status.TOO_LARGE


@pytest.mark.timeout(20)
def test_a_pipe_is_unsupported_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert status_of(tmp_path / "pipe", tmp_path) is Status.UNSUPPORTED


def test_devices_folders_and_sockets_are_unsupported(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        name = f"facesieve-{os.getpid()}.sock"
        folder = os.open(tmp_path, os.O_RDONLY)
        try:
            listener.bind(f"/proc/self/fd/{folder}/{name}")  # tmp_path may be too long for a socket
        finally:
            os.close(folder)
        assert status_of(tmp_path / name, tmp_path) is Status.UNSUPPORTED
    assert status_of("/dev/zero", Path("/")) is Status.UNSUPPORTED
    (tmp_path / "folder.jpg").mkdir()
    assert status_of(tmp_path / "folder.jpg", tmp_path) is Status.UNSUPPORTED


def test_no_descriptor_stays_open_whatever_was_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")

    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    before = descriptors()
    for _ in range(10):
        read(tmp_path / "file", tmp_path)
        status_of(tmp_path / "folder", tmp_path)
        status_of(tmp_path / "pipe", tmp_path)
    assert descriptors() == before


def test_a_link_is_followed_inside_the_roots_and_refused_if_it_leads_out(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "1").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "root" / "in").symlink_to("1")
    (tmp_path / "root" / "out").symlink_to("../secret")
    (tmp_path / "root" / "up").symlink_to("..")
    assert read(tmp_path / "root" / "in", tmp_path / "root") == b"inside"
    for name in ("out", "up/secret", "../secret", "../root-2/1"):
        assert status_of(tmp_path / "root" / name, tmp_path / "root") is Status.UNREADABLE


@pytest.mark.parametrize("uri", ["/root/a", "/root/b/../a", "file:///root/a", "/root//a"])
def test_a_name_below_a_root_is_inside(uri: str) -> None:
    assert is_named_inside(uri, (Path("/other"), Path("/root")))


@pytest.mark.parametrize("uri", ["/root-2/a", "/root/../a", "/root", "file:///root/%2e%2e/a", "/"])
def test_a_name_elsewhere_is_outside(uri: str) -> None:
    assert not is_named_inside(uri, (Path("/other"), Path("/root")))


@pytest.mark.parametrize(
    ("number", "status"), [(errno.EACCES, Status.UNREADABLE), (errno.EPERM, Status.UNREADABLE)], ids=["EACCES", "EPERM"]
)
def test_a_file_without_permission_is_unreadable(
    number: int, status: Status, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_to_open(monkeypatch, number)
    assert status_of(tmp_path / "1", tmp_path) is status


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EMFILE])
def test_a_fault_of_the_storage_may_pass_and_is_no_fault_of_the_image(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fail_to_open(monkeypatch, number)
    with pytest.raises(StorageError, match=os.strerror(number)):
        read(tmp_path / "1", tmp_path)


def _fail_to_open(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    real = os.open

    def failing(path: object, *arguments: object, **options: object) -> int:
        if str(path).endswith("/1"):
            raise OSError(number, os.strerror(number))
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", failing)
