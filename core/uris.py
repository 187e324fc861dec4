"""Names of images: local paths, objects in buckets, web addresses, and members of archives.

======================================  ===============================================================
``/data/a.jpg``                         a file, by its absolute path
``file:///data/caf%E9.jpg``             a file whose path is not UTF-8, or looks like a member of an archive
``s3://bucket/key``, ``gs://``, ``az://``  an object, its key as it is
``https://host/a.jpg``                  a web address, percent-encoded as it travels
``s3://bucket/shard-01.tar#0003.jpg``   a member of an archive, behind the first ``#`` that follows its suffix
======================================  ===============================================================
"""

import os
import re
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from core.errors import ImageError
from core.verdicts import Status

FILE_SCHEME = "file://"
BUCKET_SCHEMES = ("s3://", "gs://", "az://")
WEB_SCHEMES = ("https://", "http://")
ARCHIVE_SUFFIXES = (".tar", ".zip", ".parquet")
#: A root that allows every local file.
ANYWHERE = Path("/")

#: Folders, and beginnings of URIs with a scheme, that may be read.
Roots = tuple[Path | str, ...]

_MEMBER = re.compile(rf"(.*?(?:{'|'.join(map(re.escape, ARCHIVE_SUFFIXES))}))#(.+)", re.IGNORECASE | re.DOTALL)
#: What percent-encoding of a member's name is for: bytes that are no UTF-8, and the sign itself.
_NOT_PLAIN = re.compile("[%\0-\x1f\x7f\udc80-\udcff]")


def path_to_uri(path: str) -> str:
    """Name a local file: its path as it is, or a ``file://`` URI if that cannot be told from something else."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return FILE_SCHEME + quote_from_bytes(os.fsencode(path))
    return FILE_SCHEME + quote_from_bytes(path.encode()) if "#" in path and _MEMBER.fullmatch(path) else path


def named_uri(name: str) -> str:
    """Return the URI of what a user names: one that is remote as it is, else that of a path, which may be relative."""
    return name if is_remote(name) else path_to_uri(os.path.abspath(name))  # noqa: PTH100 - it may be undecodable


def uri_to_path(uri: str) -> str:
    """Return the local path that a URI names.

    Raises:
        ImageError: it names no local file, or a member of an archive, which is no file.
    """
    if split_member(uri)[1] is not None:
        raise ImageError(Status.UNSUPPORTED, "the URI names a member of an archive, not a file")
    if uri.startswith(FILE_SCHEME):
        uri = os.fsdecode(unquote_to_bytes(uri.removeprefix(FILE_SCHEME)))
    if not uri.startswith("/") or "\0" in uri:
        raise ImageError(Status.UNSUPPORTED, "the URI names no local file")
    return uri


def is_bucket(uri: str) -> bool:
    """Tell whether a URI names something in a bucket."""
    return uri.startswith(BUCKET_SCHEMES)


def is_web(uri: str) -> bool:
    """Tell whether a URI is a web address."""
    return uri.startswith(WEB_SCHEMES)


def is_remote(uri: str) -> bool:
    """Tell whether reading it takes a network."""
    return uri.startswith((*BUCKET_SCHEMES, *WEB_SCHEMES))


def has_archive_suffix(uri: str) -> bool:
    """Tell whether a URI names an archive, by its suffix."""
    return uri.lower().endswith(ARCHIVE_SUFFIXES)


def member_uri(archive: str, name: str) -> str:
    """Name a member of an archive.

    Args:
        archive: its URI; must end in one of ``ARCHIVE_SUFFIXES``.
        name: of the member; bytes that are no UTF-8 as surrogates, as `os.fsdecode` gives them.
    """
    encoded = _NOT_PLAIN.sub(lambda found: quote_from_bytes(os.fsencode(found[0])), name)
    return f"{archive}#{encoded}"


def split_member(uri: str) -> tuple[str, str | None]:
    """Return the URI of an archive and the name of the member; of anything else the URI and None."""
    found = _MEMBER.fullmatch(uri) if "#" in uri else None
    if found is None:
        return uri, None
    return found[1], os.fsdecode(unquote_to_bytes(found[2]))


def is_named_inside(uri: str, roots: Roots) -> bool:
    """Tell whether a URI names something under one of the roots, ``..`` resolved, without looking at it.

    Links of local files are resolved when they are read; what a web address leads to, too.
    """
    uri, _ = split_member(uri)
    if is_remote(uri):
        # Keys with such parts can exist, but clients and servers resolve them, each in its own way.
        is_plain = not re.search(r"/(?:\.|%2e){1,2}(?:/|\\|%2f|%5c|$)", uri.partition("://")[2], re.IGNORECASE)
        return is_plain and any(_is_below_root(uri, root) for root in roots if isinstance(root, str))
    try:
        return is_below(os.path.normpath(uri_to_path(uri)), roots)
    except ImageError:
        return False


def is_below(path: str, roots: Roots) -> bool:
    """Tell whether a normal absolute path leads below one of the roots."""
    return any(path.startswith(f"{str(root).rstrip('/')}/") for root in roots if isinstance(root, Path))


def _is_below_root(uri: str, root: str) -> bool:
    return uri == root or uri.startswith(root if root.endswith("://") else f"{root.rstrip('/')}/")
