"""What a producer can be pointed at, and how each kind is listed."""

import os
from collections.abc import Iterator
from contextlib import closing
from typing import Protocol
from urllib.parse import quote_from_bytes

from core.errors import ImageError, SourceError, StorageError
from core.files import FolderListing
from core.images import ImageRef
from core.selection import Selection
from core.storage import open_named
from core.uris import (
    FILE_SCHEME,
    has_archive_suffix,
    is_bucket,
    is_remote,
    is_web,
    named_uri,
    path_to_uri,
    uri_to_path,
)
from producer.manifests import STANDARD_INPUT, ManifestListing

MANIFEST_SUFFIXES = (".txt", ".csv", ".jsonl")
COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class Listing(Protocol):
    """The images of one source; iterate over it once, lazily.

    Attributes:
        is_folder: whether it can have many images, rather than being one.
    """

    is_folder: bool

    @property
    def ignored(self) -> int:
        """How many files were not wanted, so far."""
        ...

    @property
    def unlistable(self) -> list[str]:
        """Parts that could not be listed, so far, each with the reason."""
        ...

    def __iter__(self) -> Iterator[ImageRef]:
        """Yield the images."""
        ...


def is_manifest(source: str, column: str | None = None) -> bool:
    """Tell whether a source is a list of images: by its suffix, or, of a Parquet file, by its columns.

    Args:
        source: path or URI, or ``-``, which is one.
        column: that shall name the images; None means the likeliest.

    Raises:
        SourceError: it is a Parquet file that cannot be read.
        UsageError: it is a Parquet file, and pyarrow is not installed.
    """
    if source == STANDARD_INPUT:
        return True
    if source.lower().removesuffix(".gz").endswith(MANIFEST_SUFFIXES):
        return not _is_local_folder(source)
    return source.lower().endswith(".parquet") and not _is_local_folder(source) and _names_images(source, column)


def open_source(
    source: str,
    selection: Selection,
    seen: set[tuple[int, int]],
    *,
    column: str | None = None,
    has_shards: bool = False,
) -> Listing:
    """Check that a source can be listed.

    Args:
        source: a folder or a file; ``s3://``, ``gs://``, ``az://`` with a bucket and a prefix; a web address; an
            archive or a manifest by its suffix, in any of these places; or ``-``, a manifest on standard input.
        selection: which of its images are wanted.
        seen: local folders that were listed already, by device and inode; added to.
        column: of a manifest, that names the images; None means the likeliest.
        has_shards: the images of a folder or bucket are those in its archives.

    Raises:
        SourceError: it does not exist or cannot be listed.
        UsageError: what reads it is not installed.
    """
    source = _without_scheme(source)
    if "://" in source and not is_remote(source):
        raise SourceError(f"source {source}: the schemes are s3, gs, az, https, http and file")
    if _is_local_folder(source):
        return _open_folder(source, selection, seen, has_shards=has_shards)
    if source.lower().endswith(COMPRESSED_SUFFIXES):
        raise SourceError(f"source {source}: in a compressed tar nothing can be found alone: unpack it to a .tar first")
    if is_manifest(source, column):
        return ManifestListing(source, selection, column)
    if has_archive_suffix(source):
        from core.archives import ArchiveListing

        return ArchiveListing(source, selection)
    if is_web(source):
        from core.web import PageListing

        return PageListing(source)
    return _open_folder(source, selection, seen, has_shards=has_shards)


def uri_prefixes(source: str) -> tuple[str, ...]:
    """Return what the URIs of all images of a source begin with, as ``db.filters.Filter.under`` has it.

    Args:
        source: as of ``open_source``, but no manifest: that may name images anywhere.
    """
    source = _without_scheme(source)
    if is_remote(source):
        if has_archive_suffix(source):
            return (f"{source}#",)
        return (source, f"{source.rstrip('/')}/") if is_bucket(source) else (source,)
    path = os.path.abspath(source)  # noqa: PTH100 - as the listing does
    if _is_local_folder(path):
        path = path.rstrip("/") + "/"
    elif has_archive_suffix(path):
        return (f"{path_to_uri(path)}#",)
    # Below a folder with a plain name there may be names that are not UTF-8, and so are listed as URIs.
    return tuple(dict.fromkeys((path_to_uri(path), FILE_SCHEME + quote_from_bytes(os.fsencode(path)))))


def _open_folder(source: str, selection: Selection, seen: set[tuple[int, int]], *, has_shards: bool) -> Listing:
    def open_listing(wanted: Selection) -> Listing:
        if is_bucket(source):
            from core.buckets import BucketListing

            return BucketListing(source, wanted)
        return FolderListing(source, wanted, seen)

    if not has_shards:
        return open_listing(selection)
    from core.archives import ARCHIVES, ShardListing

    return ShardListing(open_listing(ARCHIVES), selection)


def _without_scheme(source: str) -> str:
    try:
        return uri_to_path(source) if source.startswith(FILE_SCHEME) else source
    except ImageError as error:
        raise SourceError(f"source {source}: {error}") from error


def _is_local_folder(source: str) -> bool:
    return source != STANDARD_INPUT and not is_remote(source) and os.path.isdir(source)  # noqa: PTH112


def _names_images(source: str, column: str | None) -> bool:
    """Tell whether a Parquet file has names of images, rather than images."""
    from core.tables import image_column, import_parquet

    pyarrow, ParquetFile = import_parquet()  # noqa: N806 - a class
    try:
        with closing(open_named(named_uri(source))[0]) as file:
            schema = ParquetFile(file).schema_arrow
    except (ImageError, StorageError, OSError, ValueError, pyarrow.ArrowException) as error:
        raise SourceError(f"source {source} cannot be listed: {error!s:.200}") from error
    images = image_column(schema)
    if images is None:
        return True
    # It may have both, and one option is for several sources.
    return column is not None and column.lower() in {*map(str.lower, schema.names)} - {images.lower()}
