"""What a producer can be pointed at, and how each kind is listed."""

from collections.abc import Iterator
from typing import Protocol

from core.errors import SourceError
from core.files import FolderListing
from core.images import ImageRef
from core.selection import Selection
from core.uris import has_archive_suffix, is_bucket, is_web

MANIFEST_SUFFIXES = (".txt", ".csv", ".jsonl")


class Listing(Protocol):
    """The images of one source; iterate over it once, lazily.

    Attributes:
        is_folder: whether it can have many images, rather than being one.
        ignored: how many files were not wanted, so far.
        unlistable: parts that could not be listed, so far, each with the reason.
    """

    is_folder: bool
    ignored: int
    unlistable: list[str]

    def __iter__(self) -> Iterator[ImageRef]:
        """Yield the images."""
        ...


def is_manifest(source: str) -> bool:
    """Tell whether a source is a list of images, by its suffix; ``-`` is one."""
    return source == "-" or source.lower().removesuffix(".gz").endswith(MANIFEST_SUFFIXES)


def open_source(source: str, selection: Selection, seen: set[tuple[int, int]]) -> Listing:
    """Check that a source can be listed.

    Args:
        source: a folder or a file; ``s3://``, ``gs://``, ``az://`` with a bucket and a prefix; a web address; an
            archive or a manifest by its suffix, in any of these places; or ``-``, a manifest on standard input.
        selection: which of its images are wanted.
        seen: local folders that were listed already, by device and inode; added to.

    Raises:
        SourceError: it does not exist or cannot be listed.
    """
    if is_manifest(source):
        from producer.manifests import ManifestListing

        return ManifestListing(source, selection)
    if has_archive_suffix(source):
        from core.archives import ArchiveListing

        return ArchiveListing(source, selection)
    if is_bucket(source):
        from core.buckets import BucketListing

        return BucketListing(source, selection)
    if is_web(source):
        from core.web import PageListing

        return PageListing(source)
    if "://" in source and not source.startswith("file://"):
        raise SourceError(f"source {source}: the schemes are s3, gs, az, https, http and file")
    return FolderListing(source, selection, seen)
