"""The images of some sources: one lazy listing."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

from core.errors import SourceError
from core.images import ImageRef
from core.selection import Selection
from producer.manifests import ManifestListing
from producer.sources import open_source, uri_prefixes

ALL_IMAGES = Selection()


class Scan:
    """The images of some sources; iterate over it once.

    Attributes:
        prefixes: what the URIs of all images of the sources begin with, as ``db.filters.Filter.under`` has it; None if
            one of the sources is a list, which may name images anywhere.
    """

    def __init__(
        self,
        sources: Sequence[str],
        selection: Selection = ALL_IMAGES,
        *,
        column: str | None = None,
        has_shards: bool = False,
        limit: int | None = None,
    ) -> None:
        """Check that every source can be listed, and look for a first image.

        Args:
            sources: see ``producer.sources``.
            selection: which of their images to take.
            column: of a list, that names the images; None means the likeliest.
            has_shards: the images of folders and buckets are those in their archives.
            limit: list at most so many images.

        Raises:
            SourceError: a source does not exist or cannot be listed, or there is no image at all.
            UsageError: what reads a source is not installed.
        """
        seen: set[tuple[int, int]] = set()
        listings = [open_source(source, selection, seen, column=column, has_shards=has_shards) for source in sources]
        has_list = any(isinstance(listing, ManifestListing) for listing in listings)
        self.prefixes = None if has_list else tuple(prefix for source in sources for prefix in uri_prefixes(source))
        self._listings = sorted(listings, key=lambda listing: listing.is_folder)  # files first, see _list
        images = self._list()
        first = next(images, None)
        if first is None:
            raise SourceError(f"no images in {', '.join(sources)}{self._what_else()}")
        self._images = islice(chain([first], images), limit)

    @property
    def ignored(self) -> int:
        """Files passed over because the selection does not want them, so far."""
        return sum(listing.ignored for listing in self._listings)

    @property
    def unlistable(self) -> list[str]:
        """Folders, and lines of lists, that could not be listed, so far, each with the reason; of a list the first."""
        return [line for listing in self._listings for line in listing.unlistable]

    @property
    def unlistable_count(self) -> int:
        """How many folders, and lines of lists, could not be listed, so far."""
        return sum(
            listing.unlistable_count if isinstance(listing, ManifestListing) else len(listing.unlistable)
            for listing in self._listings
        )

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

    def _what_else(self) -> str:
        """Return what there is that is no image, for a message."""
        ignored = f"; {self.ignored} files were passed over, see --include" if self.ignored else ""
        number = self.unlistable_count
        return ignored + (f"; {number} could not be listed, the first: {self.unlistable[0]}" if number else "")
