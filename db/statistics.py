"""What `db stats` tells of verdicts: labels, failures, scores, and groups of them.

Up to ``db.access.EXACT`` verdicts are counted; of more, a uniform sample is, and every number has its margin. Failures
are counted for as long as they are few by themselves, or at least those with a status that is rare: they matter, and a
sample would miss them.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from heapq import nlargest
from itertools import groupby
from os.path import commonprefix
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Connection, Engine, Select, Subquery, Table, cast, func, select

from core.uris import ARCHIVE_SUFFIXES
from core.verdicts import ANSWERS, Status
from db import schema
from db.access import EXACT, LOOKED_UP, Access, hidden
from db.engine import translated
from db.filters import Filter, byte_order, uri_range
from db.ledger import reading
from db.scope import Scope

GROUPINGS = ("model", "folder", "scan", "day", "reason")
BINS = 10
MOST_REASONS = 10
MOST_GROUPS = 1000
#: So many different reasons are kept in memory; beyond that, those seen least are forgotten.
_MOST_KINDS = 10_000
_NUMBER = re.compile("[0-9]+")
#: What a URI begins with that is not a folder of somebody's choice.
_ROOT = re.compile(r"(?:[a-z][a-z0-9+.-]*://[^/]*)?/?")
#: A part of a URI that has images below it; an archive is one.
_FOLDER = re.compile(rf"[^/#]*/|[^/]*?(?:{'|'.join(map(re.escape, ARCHIVE_SUFFIXES))})#|[^/]*/", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Group:
    """Verdicts that have something in common, in numbers.

    Attributes:
        name: what.
        images: how many there are.
        margin: by how much that may be off, with 95 % confidence; 0 if they were counted.
        labels: how many have each label, the most frequent first.
        failed: how many have none.
    """

    name: str
    images: int
    margin: int
    labels: dict[str, int]
    failed: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Verdicts in numbers, the most frequent first.

    Attributes:
        verdicts: how many there are.
        sample: how many of them were looked at; None if all were.
        margin: by how much ``verdicts`` may be off, with 95 % confidence; 0 if they were counted.
        labels: how many have each label.
        statuses: how many have each status.
        margins: the same of each label and each status.
        histogram: how many scores lie in each of ``BINS`` equal parts of [0, 1].
        reasons: failures of each status and reason, with N for every number in it; at most ``MOST_REASONS``.
        groups: at most ``MOST_GROUPS``, of scans and days the newest first; empty if none were asked for.
        groups_left_out: how many more there are.
    """

    verdicts: int
    sample: int | None
    margin: int
    labels: dict[str, int]
    statuses: dict[str, int]
    margins: dict[str, int]
    histogram: list[int]
    reasons: list[Group]
    groups: list[Group]
    groups_left_out: int


def read_statistics(
    engine: Engine, wanted: Filter, *, by: str | None = None, depth: int = 1, is_exact: bool = False
) -> Statistics:
    """Count what a filter wants, as one consistent view of the database has it.

    Args:
        engine: of the database.
        wanted: which verdicts.
        by: one of ``GROUPINGS``, to count groups as well.
        depth: of folders, at least 1: below the one that all images have in common.
        is_exact: never take a sample.
    """
    with translated(engine), reading(engine) as connection:
        scored = Access(connection, replace(wanted, is_scored=True)).scope(is_exact=is_exact)
        scores = scored.tally(scored.label, scored.bin_of(BINS))
        unscored = [
            (scope, *_count_reasons(scope, is_streamed=is_exact))
            for scope in _unscored(connection, wanted, is_exact=is_exact)
        ]
        reasons = [
            _group(scope, name, Counter({None: number}))
            for scope, _, kinds in unscored
            for name, number in kinds.items()
        ]
        reasons.sort(key=lambda group: group.images, reverse=True)
        if by == "reason":
            groups, left_out = _largest(reasons)
        else:
            groups, left_out = _largest(_groups(connection, wanted, by, depth, is_exact=is_exact) if by else ())
    found = [(str(Status.OK), scores.total(), scored)] if scores else []
    found += [(status, number, scope) for scope, statuses, _ in unscored for status, number in statuses.items()]
    found.sort(key=lambda entry: entry[2].estimate(entry[1]), reverse=True)
    labels = _sums(scores, 0).most_common()
    bins = _sums(scores, 1)
    totals = [(scored, scores.total()), *((scope, statuses.total()) for scope, statuses, _ in unscored)]
    sampled = [number for scope, number in totals if scope.is_sample]
    return Statistics(
        verdicts=sum(scope.estimate(number) for scope, number in totals),
        sample=sum(sampled) if sampled else None,
        margin=sum(scope.margin(number) for scope, number in totals),
        labels={label: scored.estimate(number) for label, number in labels},
        statuses={status: scope.estimate(number) for status, number, scope in found},
        margins={label: scored.margin(number) for label, number in labels}
        | {status: scope.margin(number) for status, number, scope in found},
        histogram=[scored.estimate(bins[index]) for index in range(BINS)],
        reasons=reasons[:MOST_REASONS],
        # Of scans and days the newest first: longer numbers are higher ones, dates are all of a length.
        groups=sorted(groups, key=lambda group: (len(group.name), group.name), reverse=True)
        if by in ("scan", "day")
        else groups,
        groups_left_out=left_out,
    )


def about(number: int, margin: int) -> str:
    """Return a number for people; of one that was not counted no more digits than its margin warrants."""
    if not margin:
        return f"{number:,}"
    digits = min(2 - len(str(margin)), 0)
    return f"about {round(number, digits):,} ± {round(margin, digits):,}"


def _sums(counts: Counter[tuple[Any, ...]], position: int) -> Counter[Any]:
    sums = Counter[Any]()
    for key, number in counts.items():
        sums[key[position]] += number
    return sums


def _group(scope: Scope, name: str, counts: Counter[str | None]) -> Group:
    images = counts.total()
    labels = {label: scope.estimate(number) for label, number in counts.most_common() if label is not None}
    return Group(name, scope.estimate(images), scope.margin(images), labels, scope.estimate(counts[None]))


def _unscored(connection: Connection, wanted: Filter, *, is_exact: bool) -> list[Scope]:
    """Return what has no score: together, or, where it is too much to be counted, each status by itself."""
    # Of a scan, no index knows the status and the reason.
    limit = EXACT if wanted.scan_id is None else LOOKED_UP
    together = Access(connection, replace(wanted, is_scored=False)).scope(is_exact=is_exact, limit=limit)
    if not together.is_sample or replace(wanted, model=None) != Filter():
        return [together]
    others = (replace(wanted, status=status) for status in Status if status is not Status.OK)
    return [Access(connection, other).scope() for other in others]


def _count_reasons(scope: Scope, *, is_streamed: bool) -> tuple[Counter[str], Counter[str]]:
    """Return how many have each status, and how many failed for each reason, of which the most frequent are kept.

    Numbers in reasons, such as sizes, would make each one of its own kind. The database drops those at the ends, which
    is where nearly all of them stand: so it hands over few.
    """
    statuses, kinds = Counter[str](), Counter[str]()
    keys = [scope.table.c.status, scope.table.c.reason]

    def without_numbers(found: Subquery) -> Select[Any]:
        status, reason, number = found.c
        query = select(status, func.min(reason), cast(func.sum(number), BigInteger))
        return query.group_by(status, func.trim(reason, "0123456789"))

    rows = scope.rows(*keys, func.count(), grouped_by=keys, summed_up=without_numbers, is_streamed=is_streamed)
    for status, reason, number in rows:
        statuses[status] += number
        if status not in ANSWERS:
            kinds[f"{status}: {_NUMBER.sub('N', reason)}"] += number
        if len(kinds) > _MOST_KINDS:
            kinds = Counter(dict(kinds.most_common(_MOST_KINDS // 2)))
    return statuses, kinds


def _groups(connection: Connection, wanted: Filter, by: str, depth: int, *, is_exact: bool) -> Iterator[Group]:
    access = Access(connection, wanted)
    scope = access.scope(is_exact=is_exact, by_name=by == "folder")
    if by == "folder":
        # In the order of names: memory holds one folder, and those that it lies in, whose images may stand around it.
        uri = scope.table.c.uri
        rows = scope.rows(uri, scope.label, ordered_by=[byte_order(uri, connection.dialect)])
        folder = _folder_namer(connection, access.prefixes, depth)
        nested: list[tuple[str, Counter[str | None]]] = []
        for name, some in groupby(rows, key=lambda row: folder(row[0])):
            while nested and not name.startswith(nested[-1][0]):
                yield _group(scope, *nested.pop())
            if not nested or nested[-1][0] != name:
                nested.append((name, Counter()))
            nested[-1][1].update(row[1] for row in some)
        yield from (_group(scope, *found) for found in reversed(nested))
        return
    # Not in the order of an index, in which SQLite would read the whole table to spare itself the sorting of a sample.
    keys = {
        "model": hidden(scope.table.c.model_id),
        "scan": scope.table.c.scan_id + 0,
        "day": _day(scope.table, connection),
    }
    found: dict[str, Counter[str | None]] = {}
    for (key, label), number in scope.tally(keys[by], scope.label).items():
        found.setdefault(str(key), Counter())[label] += number
    names = Counter(model.name for model in access.models)
    titles = {
        model.id: model.name if names[model.name] == 1 else f"{model.name} ({model.id[:8]})" for model in access.models
    }
    for key, counts in found.items():
        yield _group(scope, titles.get(key, key), counts)


def _largest(groups: Iterable[Group]) -> tuple[list[Group], int]:
    """Return the largest groups, and how many more there are; memory holds no more than twice as many."""
    kept: list[Group] = []
    number = 0
    for number, group in enumerate(groups, 1):  # noqa: B007 - the last one counts
        kept.append(group)
        if len(kept) == 2 * MOST_GROUPS:
            kept = nlargest(MOST_GROUPS, kept, key=lambda group: group.images)
    return nlargest(MOST_GROUPS, kept, key=lambda group: group.images), max(number - MOST_GROUPS, 0)


def _day(table: Table, connection: Connection) -> ColumnElement[str]:
    """Return the day of a verdict in UTC, as text."""
    if connection.dialect.name == "sqlite":
        return func.substr(table.c.scored_at, 1, 10)
    return func.to_char(func.timezone("UTC", table.c.scored_at), "YYYY-MM-DD")


def _folder_namer(connection: Connection, prefixes: tuple[str, ...], depth: int) -> Callable[[str], str]:
    """Return what names the folder of a URI, so many levels below the one that all local images have in common."""
    image = schema.image
    ends: list[str] = []
    for prefix in prefixes or ("/",):
        for is_last in (False, True):
            within = select(image.c.uri).where(*uri_range(image.c.uri, prefix, connection.dialect)).limit(1)
            order = byte_order(image.c.uri, connection.dialect, is_descending=is_last)
            ends += connection.execute(within.order_by(order)).scalars()
    common = commonprefix(ends)  # noqa: RUF071 - cut at a slash below; commonpath would drop doubled ones
    common = common[: common.rfind("/") + 1]

    def name_of(uri: str) -> str:
        root = common if common and uri.startswith(common) else _ROOT.match(uri)[0]  # type: ignore[index] # matches ""
        if "#" in uri:  # the pattern takes its time
            return root + "".join(_FOLDER.findall(uri, len(root))[:depth])
        folders = uri[len(root) :].split("/")[:-1]
        return root + "".join(f"{folder}/" for folder in folders[:depth])

    return name_of
