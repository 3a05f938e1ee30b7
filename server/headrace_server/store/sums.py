"""The sums that are kept: what rows of provider_metrics add up to, by spans of time.

`usage_sums` holds what the rows with summed = 1 add up to, of three kinds: all of an hour, those of each user by day and by week, those of
each tag by day; apart by provider and model. Rows are added in batches, some time after they were written, because that costs a fraction
of what it would cost one by one, and no request waits for it. Until then they are read as rows: an answer is always exact. Who changes or
deletes a row need not know: triggers take it out of the sums before that (migrations/sqlite/0006_sums.sql).
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any

from headrace_server.domain.analytics import DAY, HOUR, TimeRange
from headrace_server.store.connection import Database

WEEK = 7 * DAY
BATCH = 1_000
"""Rows that are added in one transaction: some 20 ms of work outside of the event loop. Fewer cost more each."""


class Kind(StrEnum):
    """What is told apart besides provider and model."""

    ALL = "all"
    USER = "user"
    TAG = "tag"


LENGTHS = {Kind.ALL: (HOUR,), Kind.USER: (DAY, WEEK), Kind.TAG: (DAY,)}
"""The spans of time, in milliseconds, shortest first; each begins at a multiple of its length since the epoch.

A user has few rows a day, so that days alone are hardly fewer than rows."""

FOREVER = 2**62
"""Behind every row, in milliseconds since the epoch."""

KEY = ("kind", "length", "begin", "name", "provider", "model")
SUMS = (
    "calls",
    "requests",
    "requests_of_provider",
    "requests_of_model",
    "requests_of_both",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cached_input_tokens",
    "reasoning_tokens",
    "costs",
    "cost_micro_usd",
    "durations",
    "total_duration",
    "latencies",
    "first_token_latency",
    "successes",
    "retried",
    "fallbacks",
)
"""The columns that are added up; the migration says what each means."""

LINES = "usage_lines AS line"
LINES_WITH_LOGS = f"{LINES} CROSS JOIN provider_logs AS log ON log.request_id = line.request_id"
LINES_OF_LOGS = "provider_logs AS log CROSS JOIN usage_lines AS line ON line.request_id = log.request_id"
"""The same rows, found by way of their logs."""


def totals(columns: Sequence[str]) -> str:
    """Sums under their own names."""
    return ", ".join(f"sum({column}) AS {column.removeprefix('line.')}" for column in columns)


def of_rows(kind: Kind, length: int, columns: Sequence[str], source: str, where: str = "true") -> str:
    """The statement that reads from rows what is kept as sums: begin, name, provider, model and columns; some of them in several lines.

    The source has a `line`, and where the kind is USER or TAG, user_id and tags.
    """
    begin = f"line.created_at / {length} * {length} AS begin"
    match kind:
        case Kind.ALL:
            return f"SELECT {begin}, '' AS name, provider, model, {totals(columns)} FROM {source} WHERE {where} GROUP BY 1, 2, 3, 4"
        case Kind.USER:
            own = ", ".join(f"line.{column}" for column in columns)
            return f"SELECT {begin}, user_id AS name, line.provider, line.model, {own} FROM {source} WHERE {where}"
        case Kind.TAG:
            # Requests with the same tags first become one line. A tag that a request names twice counts once, one without tags under ''.
            same_tags = f"""SELECT {begin}, tags, line.provider, line.model, {totals([f"line.{column}" for column in columns])}
                FROM {source} WHERE {where} GROUP BY 1, 2, 3, 4"""
            again = "SELECT 1 FROM json_each(tags) AS same WHERE same.value = tag.value AND same.key < tag.key"
            return f"""SELECT begin, tag.value AS name, provider, model, {", ".join(columns)}
                FROM ({same_tags}) AS line CROSS JOIN json_each(iif(json_array_length(tags) = 0, '[""]', tags)) AS tag
                WHERE tag.key = 0 OR NOT EXISTS ({again})"""


_WAITING = "SELECT rowid FROM provider_metrics WHERE summed = 0 ORDER BY created_at LIMIT ?"
_CHOSEN = "IN (SELECT value FROM json_each(?))"
_ADDED = " UNION ALL ".join(
    f"SELECT '{kind}', {length}, begin, name, provider, model, {', '.join(SUMS)} FROM ({of_rows(kind, length, SUMS, 'batch AS line')})"
    for kind, lengths in LENGTHS.items()
    for length in lengths
)
_ADD = f"""INSERT INTO usage_sums ({", ".join((*KEY, *SUMS))})
    WITH batch AS MATERIALIZED (SELECT line.*, log.user_id, log.tags FROM {LINES_WITH_LOGS} WHERE line.line {_CHOSEN})
    SELECT * FROM ({_ADDED}) WHERE true
    ON CONFLICT DO UPDATE SET {", ".join(f"{column} = {column} + excluded.{column}" for column in SUMS)}"""
_DONE = f"UPDATE provider_metrics SET summed = 1 WHERE rowid {_CHOSEN}"


def count_waiting(limit: int) -> tuple[str, list[int]]:
    """The statement that counts rows which are not added yet, and its values; of more than `limit` it tells the limit."""
    return f"SELECT count(*) FROM ({_WAITING})", [limit]


async def add_batch(db: Database, limit: int) -> int:
    """Add the oldest rows that wait for it, in an open transaction; how many there were."""
    lines = [line for (line,) in await db.execute_fetchall(_WAITING, (limit,))]
    if lines:
        chosen = json.dumps(lines)
        await db.execute(_ADD, (chosen,))
        await db.execute(_DONE, (chosen,))
    return len(lines)


def in_range(
    kind: Kind, lengths: Sequence[int], columns: Sequence[str], range: TimeRange, **equal: str | None
) -> tuple[str, dict[str, Any]]:
    """What a range holds, exactly: the WITH clause that makes a table `part`, and the values of its parameters.

    `part` has begin, name, provider, model and columns, in lines that are to be summed up; where the calls of a group come to 0, nothing
    is there. What is equal to None is not asked for. Inside, `asked` is the range, without an end where there is no row behind it; `span_1`
    are the spans of the first length that come nearest to it; `span_2` is what those have of the second length. What `span_1` lacks is
    added from rows, what it has too many is taken off again.
    """
    fixed = {column: value for column, value in equal.items() if value is not None}
    shortest = lengths[0]
    spans = [
        f"""asked AS (SELECT
            iif((SELECT min(created_at) FROM provider_metrics) >= :start, 0, :start) AS start,
            iif((SELECT max(created_at) FROM provider_metrics) < :end, {FOREVER}, :end) AS end)""",
        f"""span_1 AS (SELECT
            iif(end - start < {shortest}, start, (start + {shortest // 2}) / {shortest} * {shortest}) AS start,
            iif(end - start < {shortest}, start, (end + {shortest // 2}) / {shortest} * {shortest}) AS end FROM asked)""",
    ]
    spans += [
        f"""span_{i} AS (SELECT iif(first < last, first, start) AS start, iif(first < last, last, start) AS end FROM
            (SELECT start, (start + {length - 1}) / {length} * {length} AS first, end / {length} * {length} AS last FROM span_{i - 1}))"""
        for i, length in enumerate(lengths[1:], start=2)
    ]
    parts = _parts_of_sums(kind, lengths, columns, fixed) + _parts_of_rows(kind, shortest, columns, fixed)
    # A range that ends before it starts holds nothing.
    values = {"start": range.start, "end": max(range.start, range.end), **fixed}
    return f"WITH {', '.join(spans)}, part AS ({' UNION ALL '.join(parts)})", values


def _parts_of_sums(kind: Kind, lengths: Sequence[int], columns: Sequence[str], fixed: Iterable[str]) -> list[str]:
    parts = []
    for i, length in enumerate(lengths, start=1):
        start, end = f"(SELECT start FROM span_{i})", f"(SELECT end FROM span_{i})"
        longer = f"span_{i + 1}"
        within = [(start, end)] if i == len(lengths) else [(start, f"(SELECT start FROM {longer})"), (f"(SELECT end FROM {longer})", end)]
        for first, last in within:
            conditions = [f"kind = '{kind}'", f"length = {length}", f"begin >= {first}", f"begin < {last}"]
            conditions += [f"{column} = :{column}" for column in fixed]
            parts.append(f"SELECT begin, name, provider, model, {', '.join(columns)} FROM usage_sums WHERE {' AND '.join(conditions)}")
    return parts


def _parts_of_rows(kind: Kind, length: int, columns: Sequence[str], fixed: Iterable[str]) -> list[str]:
    asked, span = ("(SELECT start FROM asked)", "(SELECT end FROM asked)"), ("(SELECT start FROM span_1)", "(SELECT end FROM span_1)")
    conditions = [f" AND +line.{column} = :{column}" for column in fixed if column != "name"]
    named = "WHERE name = :name" if "name" in fixed else ""
    of_user = kind is Kind.USER and "name" in fixed

    def part(first: str, last: str, which: str = "", sign: str = "", *, of_logs: bool = False) -> str:
        created_at = "log.created_at" if of_logs else "line.created_at"
        where = (
            f"{created_at} >= {first} AND {created_at} < {last}{which}{''.join(conditions)}{' AND log.user_id = :name' if of_logs else ''}"
        )
        source = LINES if kind is Kind.ALL else LINES_OF_LOGS if of_logs else LINES_WITH_LOGS
        rows = of_rows(kind, length, columns, source, where)
        return f"SELECT begin, name, provider, model, {', '.join(sign + column for column in columns)} FROM ({rows}) {named}"

    return [
        part(f"max({asked[0]}, {span[0]})", f"min({asked[1]}, {span[1]})", " AND line.summed = 0"),
        part(asked[0], span[0], of_logs=of_user),
        part(span[1], asked[1], of_logs=of_user),
        part(span[0], asked[0], " AND line.summed = 1", "-", of_logs=of_user),
        part(asked[1], span[1], " AND line.summed = 1", "-", of_logs=of_user),
    ]


def wrong_sums(db: sqlite3.Connection) -> Iterator[tuple[Kind, int, int, int]]:
    """Where sums are not those of their rows: kind, length and begin of the span, and how many sums of it are wrong."""
    for kind, lengths in LENGTHS.items():
        for length in lengths:
            source = LINES if kind is Kind.ALL else LINES_WITH_LOGS
            rows = of_rows(kind, length, SUMS, source, "line.summed = 1")
            found = db.execute(
                f"""WITH due AS MATERIALIZED (SELECT begin, name, provider, model, {totals(SUMS)} FROM ({rows}) GROUP BY 1, 2, 3, 4),
                kept AS (SELECT begin, name, provider, model, {", ".join(SUMS)} FROM usage_sums WHERE kind = ? AND length = ?),
                wrong AS (SELECT * FROM (SELECT * FROM due EXCEPT SELECT * FROM kept)
                    UNION ALL SELECT * FROM (SELECT * FROM kept EXCEPT SELECT * FROM due))
                SELECT begin, count(DISTINCT json_array(name, provider, model)) FROM wrong GROUP BY 1 ORDER BY 1""",
                (kind, length),
            )
            for begin, number in found:
                yield kind, length, begin, number
