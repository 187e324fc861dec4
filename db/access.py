"""How verdicts are reached: which index serves a filter, and when a sample must do.

Left to itself a database would choose badly: SQLite keeps no statistics, and the view's labels are no column. So a
filter becomes parts, disjoint sets of verdicts that each are one range of one index; the other indexes are hidden from
the planner. Ranges are measured by counting up to a limit, which reads a few thousand index entries.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
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
    or_,
    select,
)

from core.verdicts import Status
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

#: Beyond so many verdicts, counts are estimated.
EXACT = 1_000_000
#: Verdicts in a sample, about.
SAMPLE = 30_000
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
        is_named = [model.c.name == wanted.model] if wanted.model is not None else []
        self.models = list(connection.execute(select(model).where(is_used, *is_named)))

    def by_score(self, table: Table) -> tuple[list[Part], list[Part]]:
        """Return the way through the scores of each model or the scan: images with a score, in its order; failures."""
        wanted, others = self._wanted, self._others(table)
        scored = [
            Part((*key, *score_range(table.c.p_real, wanted, models)), (*which, *others))
            for key, which, models in self._keys(table)
            if wanted.has_scores
        ]
        failed = [
            Part((*key, table.c.p_real.is_(None)), (*which, *others))
            for key, which, _ in self._keys(table)
            if wanted.has_failures
        ]
        return scored, failed

    def by_name(self, table: Table) -> list[Part]:
        """Return the way through the URIs in their order: a part for each folder."""
        dialect = self.connection.dialect
        ranges = [uri_range(table.c.uri, prefix, dialect) for prefix in self.prefixes] or [
            any_uri(table.c.uri, dialect)
        ]
        return [Part(served, self._unserved(table)) for served in ranges]

    def scope(self, *, is_exact: bool = False, row_limit: int = EXACT, by_name: bool = False) -> Scope:
        """Return what to count to know what a filter wants: everything if that is quick or asked for, else a sample.

        Args:
            is_exact: never take a sample.
            row_limit: so many verdicts are looked up one by one to know what an index does not tell.
            by_name: the table must have names; what is no sample is read in their order.
        """
        is_named = by_name or self._wanted.path is not None or bool(self._wanted.under)
        table = VIEW if is_named else schema.verdict
        way = self._way(table, row_limit)
        if way is None and not is_exact:
            return self._sample(table)
        if by_name or way == "names":
            parts = self.by_name(table)
        else:
            scored, failed = self.by_score(table)
            parts = scored + failed
        return Scope(self.connection, self.models, table, [part.tests for part in parts])

    def _way(self, table: Table, row_limit: int) -> Literal["names", "scores"] | None:
        """Return what is shorter: the way through the names or that through the scores; None if both are long."""
        scored, failed = self.by_score(table)
        needs_rows = any(part.others for part in scored + failed)
        for names, scores in ((FEW, 10 * FEW), (EXACT, EXACT)):
            if self.has_few_names(min(names, row_limit)):
                return "names"
            if self.has_few_scores(min(scores, row_limit) if needs_rows else scores):
                return "scores"
        return None

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
            # Together, for nobody knows which of them the scan had, and an index would be searched in vain for others.
            which = self._which_model(table) if len(self.models) > 1 or self._wanted.model is not None else ()
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

    def _others(self, table: Table) -> Tests:
        status = self._wanted.status
        names = self._names(table)
        # What has a score is ok.
        return names if status in (None, Status.OK) else (table.c.status == str(status), *names)

    def _names(self, table: Table) -> Tests:
        return name_tests(hidden(table.c.uri), self._wanted, self.connection.dialect) if "uri" in table.c else ()

    def _sample_share(self) -> float:
        """Return which share of all images has about ``SAMPLE`` verdicts."""
        share = 2.0**-12
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
