"""How verdicts are reached: which index serves a filter, and when a sample must do.

Left to itself a database would choose badly: SQLite keeps no statistics, and the view's labels are no column. So a
filter becomes parts, disjoint sets of verdicts that each are one range of one index; the other indexes are hidden from
the planner. How much a filter wants is seen from a few images, or, if that may be little, by counting up to a limit.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Any, Literal

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    exists,
    false,
    func,
    literal,
    literal_column,
    or_,
    select,
)

from db import schema
from db.filters import (
    VIEW,
    Filter,
    Tests,
    any_uri,
    name_prefixes,
    name_tests,
    score_range,
    score_tests,
    uri_range,
)
from db.scope import Scope

#: Beyond so many verdicts, counts are estimated; an index has all that is asked of them.
EXACT = 500_000
#: Likewise, if each one must be looked up to know what an index does not tell.
LOOKED_UP = 100_000
#: Verdicts in a sample, about. Random ones are slow to read, and half of so many have a margin of two in a hundred.
SAMPLE = 10_000
#: The share of all images that shows whether a filter wants many.
GLIMPSE = 2.0**-13
#: So many verdicts are read and sorted in no time.
FEW = 20_000


@dataclass(frozen=True, slots=True)
class Part:
    """Verdicts that are one range of an index, but for those that fail the other tests.

    Attributes:
        served: tests that the index serves.
        others: tests of the rows found.
    """

    served: Tests
    others: Tests = ()

    @property
    def tests(self) -> Tests:
        """All of them."""
        return self.served + self.others


class Access:
    """The ways to what a filter wants.

    Attributes:
        connection: to the database.
        models: rows of the models that it may be about, and that have verdicts.
        prefixes: what all its URIs begin with, in their order; empty if not known.
    """

    def __init__(self, connection: Connection, wanted: Filter) -> None:
        self.connection = connection
        self._wanted = wanted
        self.prefixes = name_prefixes(wanted)
        model, verdict = schema.model, schema.verdict
        is_used = exists().where(verdict.c.model_id == model.c.id)
        used = list(connection.execute(select(model).where(is_used)))
        if wanted.scan_id is not None and len(used) > 1:
            job = schema.job
            of_scan = select(job.c.model_id).where(job.c.scan_id == wanted.scan_id).distinct()
            ids = set(connection.execute(of_scan).scalars())
            used = [model for model in used if model.id in ids]
        self.models = [model for model in used if wanted.model in (None, model.name)]
        self._are_all = len(self.models) == len(used)

    def by_score(self, table: Table) -> tuple[list[Part], list[Part]]:
        """Return the way through the scores of each model or the scan: images with a score, in its order; failures."""
        wanted, names = self._wanted, self._names(table)
        scored, failed = [], []
        for key, which, models in self._keys(table):
            if wanted.has_scores:  # and then they are ok
                scored.append(Part((*key, *score_range(table.c.p_real, wanted, models)), (*which, *names)))
            if wanted.has_failures:
                status = () if wanted.status is None else (table.c.status == str(wanted.status),)
                if wanted.scan_id is None:
                    failed.append(Part((*key, table.c.status != literal_column("'ok'"), *status), names))
                else:
                    failed.append(Part((*key, table.c.p_real.is_(None)), (*which, *status, *names)))
        return scored, failed

    def by_name(self, table: Table) -> list[Part]:
        """Return the way through the URIs in their order: a part for each folder."""
        dialect = self.connection.dialect
        ranges = [uri_range(table.c.uri, prefix, dialect) for prefix in self.prefixes] or [
            any_uri(table.c.uri, dialect)
        ]
        return [Part(served, self._unserved(table)) for served in ranges]

    def scope(self, *, is_exact: bool = False, by_name: bool = False, limit: int | None = None) -> Scope:
        """Return what to count to know what a filter wants: everything if that is quick or asked for, else a sample.

        Args:
            is_exact: never take a sample.
            by_name: the table must have names; what is no sample is read in their order.
            limit: beyond so many a sample must do; at most ``EXACT``, which is the default.
        """
        is_named = by_name or self._wanted.path is not None or bool(self._wanted.under)
        table = VIEW if is_named else schema.verdict
        way = self._way(table, min(limit or EXACT, EXACT))
        if way is None and not is_exact:
            return self._sample(table)
        if by_name or way == "names" or (way is None and self.prefixes):
            parts = self.by_name(table)
        else:
            scored, failed = self.by_score(table)
            parts = scored + failed
        return Scope(self.connection, self.models, table, [part.tests for part in parts])

    def _way(self, table: Table, limit: int) -> Literal["names", "scores"] | None:
        """Return what is shorter: the way through the names or that through the scores; None if both are long."""
        if self.has_few_names(FEW):
            return "names"
        least, most = self._glimpse(table)
        if least > limit:
            return None
        scored, failed = self.by_score(table)
        is_looked_up = any(part.others for part in scored + failed)
        looked_up = min(LOOKED_UP, limit)
        if self.has_few_scores(looked_up) if is_looked_up else most < limit or self.has_few_scores(limit):
            return "scores"
        return "names" if self.has_few_names(looked_up) else None

    def _glimpse(self, table: Table) -> tuple[float, float]:
        """Return between what lies the number that a filter wants, from a few: that spares counting up to a limit."""
        glimpsed = (table.c.image_id <= _bound(GLIMPSE), *self._unserved(table))
        found = self.connection.execute(select(func.count()).select_from(table).where(*glimpsed)).scalar_one()
        spread = 4 * sqrt(found)  # images that have several verdicts included, this is far from any doubt
        return (found - spread) / GLIMPSE, (found + spread + 16) / GLIMPSE

    def _sample(self, table: Table) -> Scope:
        """Return a uniform sample: the keys of images are digests, so those up to a bound are one."""
        share = self._sample_share()
        tests = (table.c.image_id <= _bound(share), *self._unserved(table))
        return Scope(self.connection, self.models, table, [tests], share=share, cluster=self._cluster(share))

    def has_few_names(self, limit: int) -> bool:
        """Tell whether at most so many images have a name that ``by_name`` would look at."""
        ranges = [uri_range(schema.image.c.uri, prefix, self.connection.dialect) for prefix in self.prefixes]
        return bool(ranges) and self._is_within(schema.image, ranges, limit)

    def has_few_scores(self, limit: int) -> bool:
        """Tell whether ``by_score`` would find at most so many verdicts, before it looks at their names."""
        scored, failed = self.by_score(schema.verdict)
        # Failures are few enough to look at their status.
        ranges = [part.served for part in scored] + [part.tests for part in failed]
        return self._is_within(schema.verdict, ranges, limit)

    def _is_within(self, table: Table, ranges: Iterable[Tests], limit: int) -> bool:
        left = limit
        for served in ranges:
            some = select(literal(1)).select_from(table).where(*served).limit(left + 1).subquery()
            left -= self.connection.execute(select(func.count()).select_from(some)).scalar_one()
            if left < 0:
                return False
        return True

    def _keys(self, table: Table) -> Iterator[tuple[Tests, Tests, list[Row[Any]]]]:
        """Yield values of an index's first column, what that leaves open, and whose scores it leads to."""
        if self._wanted.scan_id is None:
            for model in self.models:
                yield (table.c.model_id == model.id,), (), [model]
        elif self.models:
            # Together, for no index knows the model as well.
            which = () if self._are_all and len(self.models) == 1 else self._which_model(table)
            yield (table.c.scan_id == self._wanted.scan_id,), which, self.models

    def _which_model(self, table: Table) -> Tests:
        """Return what a filter asks of the model, and of the score by its label, in a form that no index serves."""
        wanted, model_id = self._wanted, hidden(table.c.model_id)
        if wanted.label is not None:
            labels = (
                and_(model_id == model.id, *score_range(table.c.p_real + 0, wanted, [model])) for model in self.models
            )
            return (or_(false(), *labels),)
        return () if wanted.model is None else (model_id.in_([model.id for model in self.models]),)

    def _unserved(self, table: Table) -> Tests:
        """Return all tests but those of the URI's range, in forms that no index serves."""
        wanted = self._wanted
        tests = [*score_tests(table.c.p_real + 0, wanted), *self._names(table)]
        if wanted.status is not None:
            tests.append(hidden(table.c.status) == str(wanted.status))
        if wanted.scan_id is not None:
            tests.append(table.c.scan_id + 0 == wanted.scan_id)
        return (*tests, *self._which_model(table))

    def _names(self, table: Table) -> Tests:
        return name_tests(hidden(table.c.uri), self._wanted, self.connection.dialect) if "uri" in table.c else ()

    def _sample_share(self) -> float:
        """Return which share of all images has about ``SAMPLE`` verdicts."""
        share = GLIMPSE
        while share < 1:
            sampled = schema.verdict.c.image_id <= _bound(share)
            found = self.connection.execute(
                select(func.count()).select_from(schema.verdict).where(sampled)
            ).scalar_one()
            if found >= 100:
                return min(share * SAMPLE / found, 1.0)
            share *= 16
        return 1.0

    def _cluster(self, share: float) -> float:
        """Return the effect of several models on a sample of images: as Kish has it, the size that a verdict sees."""
        if len(self.models) == 1:
            return 1.0
        image_id = schema.verdict.c.image_id
        of_image = select(func.count().label("n")).where(image_id <= _bound(share)).group_by(image_id).subquery()
        total = select(func.sum(of_image.c.n), func.sum(of_image.c.n * of_image.c.n))
        verdicts, squares = self.connection.execute(total).one()
        return float(squares / verdicts) if verdicts else 1.0


def hidden(column: ColumnElement[str]) -> ColumnElement[str]:
    """Return the same text in a form that no index serves."""
    return column.op("||")("")


def _bound(share: float) -> bytes:
    """Return the highest of this share of all keys."""
    return (round(share * 2**64) - 1).to_bytes(8) + b"\xff" * 8
