"""Which files of a source are images: lazy listing with globs."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import chain, islice

from core.errors import SourceError
from core.images import ImageRef, has_image_suffix
from core.storage import Listing


class Scan:
    """The images of some sources; iterate over it once."""

    def __init__(
        self,
        sources: Sequence[str],
        *,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        limit: int | None = None,
    ) -> None:
        """Check that every source can be listed, and look for a first image.

        Args:
            sources: folders or files.
            include: globs of files to take; empty means images by their suffixes.
            exclude: globs of files to pass over, even if included.
            limit: list at most so many images.

        Raises:
            SourceError: a source does not exist or cannot be listed, or there is no image at all.
        """
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        seen: set[tuple[int, int]] = set()
        listings = (Listing(source, self._is_wanted, seen) for source in sources)
        self._listings = sorted(listings, key=lambda listing: listing.is_folder)  # files first, see _list
        images = self._list()
        first = next(images, None)
        if first is None:
            ignored = f"; {self.ignored} files have other names, see --include" if self.ignored else ""
            raise SourceError(f"no images in {', '.join(sources)}{ignored}")
        self._images = islice(chain([first], images), limit)

    @property
    def ignored(self) -> int:
        """Files passed over because of their names, so far."""
        return sum(listing.ignored for listing in self._listings)

    @property
    def unlistable(self) -> list[str]:
        """Folders that could not be listed, so far, each with the reason."""
        return [line for listing in self._listings for line in listing.unlistable]

    def __iter__(self) -> Iterator[ImageRef]:
        return self._images

    def _list(self) -> Iterator[ImageRef]:
        """Yield each image once: sources may overlap. Only the files that were named by themselves are remembered."""
        alone: set[str] = set()
        for listing in self._listings:
            for ref in listing:
                if ref.uri in alone:
                    continue
                if not listing.is_folder:
                    alone.add(ref.uri)
                yield ref

    def _is_wanted(self, path: str) -> bool:
        if any(_matches(path, glob) for glob in self._exclude):
            return False
        if self._include:
            return any(_matches(path, glob) for glob in self._include)
        return has_image_suffix(path)


def _matches(path: str, glob: str) -> bool:
    """A glob without a slash is for the file's name, one with a slash for the path below the source."""
    return fnmatchcase(path if "/" in glob else path.rpartition("/")[2], glob)
