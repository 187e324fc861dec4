"""Verdicts to be counted: all of them, or a sample that tells how far off it may be."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    Subquery,
    Table,
    case,
    cast,
    func,
    select,
)

from db.filters import Tests
from db.labels import shown_by_model

#: Two-sided 95 % of the normal distribution.
_Z = 1.96


class Scope:
    """Verdicts to be counted: all that a filter wants, or a uniform sample of them.

    Attributes:
        table: that has the columns.
        share: of the verdicts that are in the sample; 1 if it is no sample.
    """

    def __init__(
        self,
        connection: Connection,
        models: Sequence[Row[Any]],
        table: Table,
        parts: Sequence[Tests],
        *,
        share: float = 1.0,
        cluster: float = 1.0,
    ) -> None:
        """Take what to count.

        Args:
            connection: to the database.
            models: rows of the models that the verdicts may be of.
            table: that has the columns: the view, or the verdicts alone.
            parts: what tells each of several disjoint sets of verdicts; together they are all, or the sample.
            share: of the verdicts that are in the sample.
            cluster: how many verdicts of the sample come and go together, because they are of one image.
        """
        self.table = table
        self.share = share
        self._connection = connection
        self._models = models
        self._parts = parts
        self._cluster = cluster

    @property
    def is_sample(self) -> bool:
        """Whether counts are estimates."""
        return self.share < 1

    @property
    def label(self) -> ColumnElement[str | None]:
        """The label of a verdict; null for failures."""
        return shown_by_model(self.table, self._models)

    def bin_of(self, bins: int) -> ColumnElement[int]:
        """Return in which of so many equal parts of [0, 1] a score lies; 1 belongs to the last."""
        score = self.table.c.p_real
        return case((score >= 1, bins - 1), else_=cast(func.floor(score * bins), Integer))

    def tally(self, *keys: ColumnElement[Any]) -> Counter[tuple[Any, ...]]:
        """Return how many verdicts were found with each combination of values; of a sample, not yet scaled."""
        found = Counter[tuple[Any, ...]]()
        names = [key.label(f"key_{number}") for number, key in enumerate(keys)]
        for row in self.rows(*names, func.count(), grouped_by=names, is_streamed=False):
            found[tuple(row)[:-1]] += row[-1]
        return found

    def rows(
        self,
        *columns: ColumnElement[Any],
        grouped_by: Sequence[ColumnElement[Any]] = (),
        ordered_by: Sequence[ColumnElement[Any]] = (),
        summed_up: Callable[[Subquery], Select[Any]] | None = None,
        is_streamed: bool = True,
    ) -> Iterator[Any]:
        """Yield the verdicts, or groups of them, part by part.

        Args:
            columns: what to yield.
            grouped_by: what the verdicts of a group have in common.
            ordered_by: their order.
            summed_up: makes another query of that for a part.
            is_streamed: they may be too many for the memory. Otherwise, and of a sample, they are there sooner.
        """
        options = {"yield_per": 1000} if is_streamed and not self.is_sample else {}
        for tests in self._parts:
            query = select(*columns).select_from(self.table).where(*tests)
            query = query.group_by(*grouped_by).order_by(*ordered_by)
            if summed_up is not None:
                query = summed_up(query.subquery())
            for some in self._connection.execute(query, execution_options=options).partitions():
                yield from some

    def estimate(self, number: int) -> int:
        """Return how many verdicts there are if so many were found."""
        return round(number / self.share)

    def margin(self, number: int) -> int:
        """Return by how much that may be off, with 95 % confidence."""
        return margin_of(number, self.share, self._cluster)


def margin_of(number: int, share: float, cluster: float = 1.0) -> int:
    """Return by how much an estimate may be off, with 95 % confidence: the upper end of the score interval.

    Args:
        number: how many were found in a sample.
        share: of all that are in the sample; 1 if it is none.
        cluster: how many come and go together.
    """
    if share == 1:
        return 0
    found = number / cluster
    return round(cluster * (_Z**2 / 2 + _Z * sqrt(found + _Z**2 / 4)) / share)
