"""Which verdicts are meant: filters, and the SQL conditions that they become."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from math import inf
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Dialect,
    Engine,
    Row,
    Select,
    UnaryExpression,
    and_,
    or_,
)
from sqlalchemy.sql.operators import custom_op

from core.errors import UsageError
from core.uris import has_archive_suffix
from core.verdicts import Status
from db import schema
from db.labels import label_bounds

VIEW = schema.labelled_verdict
#: The conditions that a row must fulfil.
Tests = tuple[ColumnElement[bool], ...]
MAX_SCAN = 2**31 - 1  # what the column holds


@dataclass(frozen=True, slots=True)
class Filter:
    """Which verdicts to read; what is None does not restrict.

    Attributes:
        label: one of ``db.labels.LABELS``.
        status: a ``Status``.
        min_score: lowest ``p_real``, included.
        max_score: highest ``p_real``, included.
        path: glob over the whole URI: ``*``, ``?``, ``[abc]``; case matters.
        under: only URIs that are one of these, or begin with one that ends in a slash, or in the ``#`` behind an
            archive; empty means any.
        scan_id: only verdicts whose latest score came from this scan.
        model: name of an artifact.
        is_scored: True: only images with a score; False: only failures.

    Raises:
        UsageError: a text is not valid UTF-8 or holds a NUL, or the number of the scan is beyond all numbers of scans.
    """

    label: str | None = None
    status: Status | None = None
    min_score: float | None = None
    max_score: float | None = None
    path: str | None = None
    scan_id: int | None = None
    model: str | None = None
    under: tuple[str, ...] = ()
    is_scored: bool | None = None

    def __post_init__(self) -> None:
        for text in (self.path, self.model):
            if text is not None and any("\ud800" <= char <= "\udfff" for char in text):
                raise UsageError(f"{text!r} is not UTF-8: names that are not are stored as file:// URIs, see `db list`")
            if text is not None and "\0" in text:
                raise UsageError(f"{text!r:.80} holds a NUL, which no name does")
        if self.scan_id is not None and abs(self.scan_id) > MAX_SCAN:
            raise UsageError(f"{self.scan_id} is no scan: their numbers are from 1 to {MAX_SCAN}")

    @property
    def has_failures(self) -> bool:
        """Whether images without a score may pass."""
        needs_score = self.label is not None or self.min_score is not None or self.max_score is not None
        return not (needs_score or self.is_scored or self.status is Status.OK)

    @property
    def has_scores(self) -> bool:
        """Whether images with a score may pass."""
        return self.is_scored is not False and self.status in (None, Status.OK)


def restrict(query: Select[Any], wanted: Filter, engine: Engine) -> Select[Any]:
    """Return a query of ``VIEW`` that gives only what is wanted."""
    tests = [*score_tests(VIEW.c.p_real, wanted), *name_tests(VIEW.c.uri, wanted, engine.dialect)]
    if wanted.label is not None:
        tests.append(VIEW.c.label.in_((wanted.label, f"{wanted.label} (untrained)")))
    if wanted.status is not None:
        tests.append(VIEW.c.status == str(wanted.status))
    if wanted.scan_id is not None:
        tests.append(VIEW.c.scan_id == wanted.scan_id)
    if wanted.model is not None:
        tests.append(VIEW.c.model == wanted.model)
    return query.where(*tests)


def score_tests(score: ColumnElement[float], wanted: Filter) -> Tests:
    """Return what a filter asks of the score, but for its label."""
    tests = []
    if wanted.min_score is not None:
        tests.append(score >= wanted.min_score)
    if wanted.max_score is not None:
        tests.append(score <= wanted.max_score)
    if wanted.is_scored is not None:
        tests.append(score.is_not(None) if wanted.is_scored else score.is_(None))
    return tuple(tests)


def score_range(score: ColumnElement[float], wanted: Filter, models: Sequence[Row[Any]]) -> Tests:
    """Return what a filter asks of a score, with its label as the view has it, as one range that an index can serve.

    Args:
        score: the column ``p_real``.
        wanted: the filter.
        models: whose thresholds make the label; the range of several holds those of each.
    """
    from_ = wanted.min_score or 0.0
    bounds = [label_bounds(model, wanted.label) for model in models] if wanted.label is not None else []
    above = min((low for low, _ in bounds), default=-1.0)
    up_to = min(max((high for _, high in bounds), default=inf), inf if wanted.max_score is None else wanted.max_score)
    # One test of each end, for SQLite takes just one into the index. No score is below 0: without another lower end
    # that says "not null", in a form that an index serves.
    lowest = score > above if above >= from_ else score >= from_
    return (lowest,) if up_to == inf else (lowest, score <= up_to)


def name_tests(uri: ColumnElement[str], wanted: Filter, dialect: Dialect) -> Tests:
    """Return what a filter asks of the URI."""
    tests: list[ColumnElement[bool]] = []
    if wanted.path is not None:
        tests.append(uri.regexp_match(_glob_to_regex(wanted.path)))
    if wanted.under:
        tests.append(or_(*(and_(*uri_range(uri, prefix, dialect)) for prefix in wanted.under)))
    return tuple(tests)


def name_prefixes(wanted: Filter) -> tuple[str, ...]:
    """Return what the URIs of all wanted images begin with, if an index can serve it; sorted, none contains another."""
    if wanted.under:
        folders = tuple(filter(_is_folder, wanted.under))
        return tuple(
            prefix
            for prefix in sorted(set(wanted.under))
            if not any(prefix.startswith(folder) and prefix != folder for folder in folders)
        )
    if wanted.path is None:
        return ()
    fixed = "".join(takewhile(lambda char: char not in "*?[", wanted.path))
    if fixed == wanted.path:
        return (fixed,)
    # Up to a slash, so that the range's end needs no thought of Unicode.
    return (fixed[: fixed.rindex("/") + 1],) if "/" in fixed else ()


def uri_range(uri: ColumnElement[str], prefix: str, dialect: Dialect) -> Tests:
    """Return the test of ``Filter.under``: by bytes, in a form that the index on the URI serves on either database."""
    if not _is_folder(prefix):
        return (uri == prefix,)
    beyond = prefix[:-1] + chr(ord(prefix[-1]) + 1)
    if dialect.name == "sqlite":
        return (uri >= prefix, uri < beyond)
    return (uri.op("~>=~", is_comparison=True)(prefix), uri.op("~<~", is_comparison=True)(beyond))


def _is_folder(prefix: str) -> bool:
    return prefix.endswith("/") or (prefix.endswith("#") and has_archive_suffix(prefix[:-1]))


def byte_order(uri: ColumnElement[str], dialect: Dialect, *, is_descending: bool = False) -> ColumnElement[str]:
    """Return what to order by for the order of the index on the URI, which is also SQLite's and Python's."""
    if dialect.name == "sqlite":
        return uri.desc() if is_descending else uri
    return UnaryExpression(uri, modifier=custom_op("USING ~>~" if is_descending else "USING ~<~"))


def any_uri(uri: ColumnElement[str], dialect: Dialect) -> Tests:
    """Return a test that every URI passes, and that leads through the index on them."""
    return (uri >= "",) if dialect.name == "sqlite" else (uri.op("~>=~", is_comparison=True)(""),)


def _glob_to_regex(glob: str) -> str:
    """Write a glob as a regular expression that means the same to PostgreSQL and to Python, which SQLite asks."""
    parts, index = [], 0
    while index < len(glob):
        char = glob[index]
        is_negated = glob.startswith("[!", index)
        end = glob.find("]", index + 2 + is_negated) if char == "[" else -1
        if end > 0:
            parts.append(_set_to_regex(glob[index + 1 + is_negated : end], is_negated))
            index = end
        else:
            parts.append({"*": ".*", "?": "."}.get(char, re.escape(char)))
        index += 1
    return f"(?s)\\A{''.join(parts)}\\Z"


def _set_to_regex(inside: str, is_negated: bool) -> str:
    ranges = re.findall(r"(.)-(.)|(.)", inside, re.DOTALL)
    parts = [
        f"{re.escape(first)}-{re.escape(last)}" if first else re.escape(single)
        for first, last, single in ranges
        if single or first <= last
    ]
    if not parts:
        return "." if is_negated else "(?!)"
    return f"[{'^' * is_negated}{''.join(parts)}]"
