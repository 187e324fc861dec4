"""Pictures that look nearly the same: all pairs of 64-bit hashes that differ in a few bits, in NumPy.

Two hashes that differ in d bits agree in at least m of d + m bands (pigeonhole), so they stand beside each other once
the hashes are sorted by the right m bands. With one band more than the least, m = 2, bands are long enough for few
hashes to agree by chance: ten millions have as many such pairs at d = 3, not billions.
"""

from collections.abc import Iterator
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

FARTHEST = 5
#: A hash of more images than this says little, flat pictures have it: its images are a group, and join no other.
COMMON = 1000


class NearImages:
    """Hashes of images, to be grouped."""

    def __init__(self) -> None:
        self._ids: list[NDArray[np.void]] = []
        self._hashes: list[NDArray[np.uint64]] = []

    def add(self, ids: list[bytes], hashes: list[int]) -> None:
        """Take images.

        Args:
            ids: 16 bytes each.
            hashes: of their pictures, as signed 64-bit integers.
        """
        self._ids.append(np.frombuffer(b"".join(ids), dtype="V16"))
        self._hashes.append(np.array(hashes, dtype=np.int64).view(np.uint64))

    def groups(self, distance: int) -> Iterator[tuple[str, list[bytes]]]:
        """Yield groups of two and more images, the biggest first: the lowest hash in it, and the ids.

        Args:
            distance: an image is in a group if its hash differs in at most so many bits from another's.
        """
        if not self._ids:
            return
        hashes = np.concatenate(self._hashes)
        ids = np.concatenate(self._ids)
        self._ids, self._hashes = [], []
        # Equal ones are found by sorting alone; only different hashes are compared.
        different, places, images = np.unique(hashes, return_inverse=True, return_counts=True)
        roots = np.arange(len(different))
        rare = np.flatnonzero(images <= COMMON)
        roots[rare] = rare[_unite_near(different[rare], distance)]
        group_of = roots[places]
        del hashes, places
        order = np.argsort(group_of, kind="stable")
        firsts, sizes = np.unique(group_of, return_counts=True)
        starts = np.cumsum(sizes) - sizes
        big = np.flatnonzero(sizes > 1)
        for group in big[np.argsort(-sizes[big], kind="stable")]:
            members = order[starts[group] : starts[group] + sizes[group]]
            yield f"{different[firsts[group]]:016x}", [bytes(ids[member]) for member in members]


def _unite_near(hashes: NDArray[np.uint64], distance: int) -> NDArray[np.intp]:
    """Return the group of each of these different hashes: the lowest index in it."""
    roots = np.arange(len(hashes))
    if distance == 0:
        return roots
    for mask in _masks(distance):
        keys = hashes & mask
        order = np.argsort(keys)
        keys = keys[order]
        # Of hashes with the same key each is compared with the next, then with the one after it, and so on.
        step, begin = 1, np.flatnonzero(keys[1:] == keys[:-1])
        while begin.size:
            one, other = order[begin], order[begin + step]
            is_near = np.bitwise_count(hashes[one] ^ hashes[other]) <= distance
            _unite(roots, one[is_near], other[is_near])
            step += 1
            begin = begin[begin + step < len(keys)]
            begin = begin[keys[begin] == keys[begin + step]]
    return _roots_of(roots, np.arange(len(hashes)))


def _masks(distance: int) -> Iterator[np.uint64]:
    """Yield the bits to sort by, so that whatever differs in so many agrees in one of these sets of bands."""
    agreeing = 2 if distance <= 3 else 3
    bands = distance + agreeing
    edges = [64 * band // bands for band in range(bands + 1)]
    masks = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    for chosen in combinations(masks, agreeing):
        yield np.uint64(sum(chosen))


def _unite(roots: NDArray[np.intp], one: NDArray[np.intp], other: NDArray[np.intp]) -> None:
    """Make one group of each pair's two (union-find for many pairs at a time)."""
    while one.size:
        one, other = _roots_of(roots, one), _roots_of(roots, other)
        is_open = one != other
        one, other = one[is_open], other[is_open]
        # Of several pairs with the same higher root one wins; the next round sees to the others.
        roots[np.maximum(one, other)] = np.minimum(one, other)


def _roots_of(roots: NDArray[np.intp], items: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return where the links of each item end, and shorten their ways there."""
    found = roots[items]
    while not np.array_equal(further := roots[found], found):
        found = further
    roots[items] = found
    return found
