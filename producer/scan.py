"""The images of some sources: one lazy listing."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

from core.errors import SourceError
from core.images import ImageRef
from core.selection import Selection
from producer.sources import open_source

ALL_IMAGES = Selection()


class Scan:
    """The images of some sources; iterate over it once."""

    def __init__(
        self,
        sources: Sequence[str],
        selection: Selection = ALL_IMAGES,
        *,
        limit: int | None = None,
    ) -> None:
        """Check that every source can be listed, and look for a first image.

        Args:
            sources: see ``producer.sources``.
            selection: which of their images to take.
            limit: list at most so many images.

        Raises:
            SourceError: a source does not exist or cannot be listed, or there is no image at all.
        """
        seen: set[tuple[int, int]] = set()
        listings = (open_source(source, selection, seen) for source in sources)
        self._listings = sorted(listings, key=lambda listing: listing.is_folder)  # files first, see _list
        images = self._list()
        first = next(images, None)
        if first is None:
            ignored = (
                f"; {self.ignored} files were passed over, see --include"
                if self.ignored
                else ""
            )
            raise SourceError(f"no images in {', '.join(sources)}{ignored}")
        self._images = islice(chain([first], images), limit)

    @property
    def ignored(self) -> int:
        """Files passed over because the selection does not want them, so far."""
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
