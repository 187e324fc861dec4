"""Which of the files of a source are wanted: by name, size, time, and by chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import inf

from core.images import ImageRef, has_image_suffix


@dataclass(frozen=True, slots=True)
class Selection:
    """What a listing yields; everything else is counted as ignored.

    Attributes:
        include: globs of files to take; empty means images by their suffixes. A glob without a slash is for the
            file's name, one with a slash for the path below the source.
        exclude: globs of files to pass over, even if included.
        min_bytes: smaller files are passed over.
        max_bytes: larger files are passed over; None means no limit.
        newer_than: files last modified before are passed over, in seconds since 1970; None means no limit.
        older_than: files last modified at that time or later are passed over; None means no limit.
        sample: share of the images, in (0, 1], chosen by their URIs: the same ones every time, and all of a smaller
            share are in a larger one.
    """

    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    min_bytes: int = 0
    max_bytes: int | None = None
    newer_than: float | None = None
    older_than: float | None = None
    sample: float = 1.0

    def takes_name(self, path: str, *, is_explicit: bool = False) -> bool:
        """Tell whether a file is wanted as far as its name tells.

        Args:
            path: below the source, with slashes.
            is_explicit: somebody named it on purpose, so its suffix says nothing; the globs hold nevertheless.
        """
        if any(_matches(path, glob) for glob in self.exclude):
            return False
        if self.include:
            return any(_matches(path, glob) for glob in self.include)
        return is_explicit or has_image_suffix(path)

    def takes(self, ref: ImageRef, modified: float | None) -> bool:
        """Tell whether a file with a wanted name is wanted.

        Args:
            ref: of the file.
            modified: when it was, in seconds since 1970; None if nobody knows, which no limit excludes. Then a size of
                0 is not known either.
        """
        most = inf if self.max_bytes is None else self.max_bytes
        if (ref.size_bytes or modified is not None) and not self.min_bytes <= ref.size_bytes <= most:
            return False
        if modified is not None:
            if self.newer_than is not None and modified < self.newer_than:
                return False
            if self.older_than is not None and modified >= self.older_than:
                return False
        # Not by the first half of the key: the database takes what it estimates from for a sample by that.
        return self.sample >= 1 or int.from_bytes(ref.id[8:]) < self.sample * 2**64


def _matches(path: str, glob: str) -> bool:
    return fnmatchcase(path if "/" in glob else path.rpartition("/")[2], glob)
