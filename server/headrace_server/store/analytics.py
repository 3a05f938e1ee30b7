"""What the records in a SQLite file add up to.

The views in migrations/sqlite say what the numbers mean; this file says the same over any range of time, and adds the cost. A change of
the one is a change of the other: tests/store/test_analytics.py compares them.

What a range has of whole hours, days or weeks is read from the sums that are kept (sums.py), the rest from rows: those at its two ends,
and those that are in no sum yet. An end of the range behind which there is no row is as good as a whole day's. The plus signs keep SQLite
from indexes by which it would read all that a provider or a user ever had. What users and tags have in common is kept in no sum: that
reads all rows of the range, 6 s for a million. A caller that leaves ends the statement.
"""

import asyncio
import sqlite3
from collections.abc import Mapping
from typing import Any

from headrace_server.domain.analytics import (
    DAY,
    HOUR,
    MOST_GROUPS,
    FailedRequest,
    FailedRequestsQuery,
    HourlyPerformance,
    HourlyPerformanceQuery,
    SuccessRate,
    SuccessRatesQuery,
    TimeRange,
    UsageDimension,
    UsageGroup,
    UsageQuery,
)
from headrace_server.store.connection import Readers
from headrace_server.store.rows import Table
from headrace_server.store.sums import LENGTHS, SUMS, Kind, in_range

_LOAD = {
    "avg_duration": "1.0 * sum(total_duration) / nullif(sum(durations), 0)",
    "avg_first_token_latency": "1.0 * sum(first_token_latency) / nullif(sum(latencies), 0)",
    "total_tokens": "sum(total_tokens)",
    "retry_rate": "100.0 * sum(retried) / sum(calls)",
    "fallback_rate": "100.0 * sum(fallbacks) / sum(calls)",
    "cost_micro_usd": "iif(sum(costs) > 0, sum(cost_micro_usd), NULL)",
}
_SUCCESS = {
    "provider": "provider",
    "model": "model",
    "total_requests": "sum(calls)",
    "successful_requests": "sum(successes)",
    "success_rate": "100.0 * sum(successes) / sum(calls)",
    **_LOAD,
}
_HOURLY = {"provider": "provider", "hour": "begin", "request_count": "sum(calls)", **_LOAD}
_OF_REQUESTS = ("requests", "requests_of_provider", "requests_of_model", "requests_of_both")
_LOADED = tuple(column for column in SUMS if column not in _OF_REQUESTS)
_FAILED = Table("provider_failed_requests", FailedRequest)
_TOKENS = ("input_tokens", "output_tokens", "total_tokens", "cached_input_tokens", "reasoning_tokens")
_USAGE = ("request_count", *_TOKENS, "cost_micro_usd")
_DIMENSIONS = {
    UsageDimension.DAY: f"begin / {DAY} * {DAY}",
    UsageDimension.PROVIDER: "provider",
    UsageDimension.MODEL: "model",
    UsageDimension.USER: "name",
    UsageDimension.TAG: "name",
}
_ANY = "sum(calls) > 0"

MOST_AT_ONCE = 2
"""Sums that are under way together, so that connections are left to those who read a single record."""

Statement = tuple[str, list[Any] | dict[str, Any]]
"""SQL, and the values of its parameters."""


class _Where:
    """Conditions that must all hold."""

    def __init__(self, range: TimeRange, created_at: str = "created_at") -> None:
        self._conditions = [f"{created_at} >= ?", f"{created_at} < ?"]
        self.values: list[Any] = [range.start, range.end]

    def must(self, condition: str, *values: Any) -> None:
        self._conditions.append(condition)
        self.values += values

    def equal(self, **columns: str | None) -> None:
        """What is None is not asked for."""
        for column, value in columns.items():
            if value is not None:
                self.must(f"+{column} = ?", str(value))

    def __str__(self) -> str:
        return " AND ".join(self._conditions)


def success_rates(query: SuccessRatesQuery) -> Statement:
    """A page of success rates: the view provider_success_rate, over any range."""
    sums, values = in_range(Kind.ALL, LENGTHS[Kind.ALL], _LOADED, query.range, provider=query.provider, model=query.model)
    after = ""
    if query.after is not None:
        after = "WHERE (provider, model) > (:after_provider, :after_model)"
        values |= zip(("after_provider", "after_model"), query.after, strict=True)
    groups = f"{after} GROUP BY provider, model HAVING {_ANY} ORDER BY provider, model LIMIT :rows"
    return f"{sums} SELECT {_list(_SUCCESS)} FROM part {groups}", values | {"rows": query.page_size + 1}


def hourly_performance(query: HourlyPerformanceQuery) -> Statement:
    """A page of hours: the view provider_performance_hourly, over any range."""
    range, after = query.range, ""
    if query.after is not None:
        range = TimeRange(start=range.start, end=min(range.end, query.after[0] + HOUR))
        after = "WHERE (-begin, provider) > (-:after_hour, :after_provider)"
    sums, values = in_range(Kind.ALL, LENGTHS[Kind.ALL], _LOADED, range, provider=query.provider)
    if query.after is not None:
        values |= zip(("after_hour", "after_provider"), query.after, strict=True)
    groups = f"{after} GROUP BY begin, provider HAVING {_ANY} ORDER BY begin DESC, provider LIMIT :rows"
    return f"{sums} SELECT {_list(_HOURLY)} FROM part {groups}", values | {"rows": query.page_size + 1}


def failed_requests(query: FailedRequestsQuery) -> Statement:
    """A page of the view provider_failed_requests."""
    where = _Where(query.range)
    where.equal(provider=query.provider, error_code=query.error_code)
    if query.after is not None:
        where.must("(created_at, id) < (?, ?)", *query.after)
    sql = f"SELECT {', '.join(_FAILED.names())} FROM {_FAILED.name} WHERE {where} ORDER BY created_at DESC, id DESC LIMIT ?"
    return sql, [*where.values, query.page_size + 1]


def usage(query: UsageQuery) -> Statement:
    """Tokens and cost of the rows of provider_metrics, with users and tags from provider_logs where they are asked for."""
    by_user, by_tag = UsageDimension.USER in query.group_by, UsageDimension.TAG in query.group_by
    if (by_user or query.user_id is not None) + by_tag + (query.tag is not None) > 1:
        return _usage_of_rows(query)
    kind = Kind.TAG if by_tag or query.tag is not None else Kind.USER if by_user or query.user_id is not None else Kind.ALL
    lengths = LENGTHS[kind][:1] if UsageDimension.DAY in query.group_by else LENGTHS[kind]
    requests = {
        (False, False): "requests",
        (True, False): "requests_of_provider",
        (False, True): "requests_of_model",
        (True, True): "requests_of_both",
    }[
        UsageDimension.PROVIDER in query.group_by or query.provider is not None,
        UsageDimension.MODEL in query.group_by or query.model is not None,
    ]
    name = query.user_id if query.tag is None else query.tag
    columns = ("calls", requests, *_TOKENS, "costs", "cost_micro_usd")
    sums, values = in_range(kind, lengths, columns, query.range, provider=query.provider, model=query.model, name=name)
    shown = {dimension.value: _DIMENSIONS[dimension] for dimension in query.group_by}
    shown |= {"request_count": f"coalesce(sum({requests}), 0)", **{name: f"coalesce(sum({name}), 0)" for name in _TOKENS}}
    shown |= {"cost_micro_usd": _LOAD["cost_micro_usd"]}
    return f"{sums} SELECT {_list(shown)} FROM part {_groups(query, _ANY)} LIMIT {MOST_GROUPS}", values


def _groups(query: UsageQuery, having: str) -> str:
    # By position: a name could be taken for a column of a table instead of the expression.
    keys = ", ".join(str(number) for number, _ in enumerate(query.group_by, start=1))
    return f"GROUP BY {keys} HAVING {having} ORDER BY {keys}" if keys else ""


# Metrics bear the created_at of their log. CROSS fixes the order of the loops.
_METRICS_OF_LOGS = "provider_logs AS log CROSS JOIN provider_metrics AS metrics ON metrics.request_id = log.request_id"
_METRICS_OF_TAG = f"request_tags AS wanted CROSS JOIN {_METRICS_OF_LOGS} AND log.id = wanted.id"
# A tag that a request names twice counts once.
_TAGS_OF_LOGS = """LEFT JOIN json_each(log.tags) AS tag
    ON NOT EXISTS (SELECT 1 FROM json_each(log.tags) AS same WHERE same.value = tag.value AND same.key < tag.key)"""
_DIMENSIONS_OF_ROWS = {
    UsageDimension.DAY: f"metrics.created_at / {DAY} * {DAY}",
    UsageDimension.PROVIDER: "metrics.provider",
    UsageDimension.MODEL: "metrics.model",
    UsageDimension.USER: "+log.user_id",
    UsageDimension.TAG: "coalesce(tag.value, '')",
}


def _usage_of_rows(query: UsageQuery) -> Statement:
    """The same from rows alone: those of the user, else those with the tag, else all."""
    wanted = query.tag is not None and query.user_id is None
    where = _Where(query.range, "wanted.created_at" if wanted else "log.created_at")
    where.equal(**{"metrics.provider": query.provider, "metrics.model": query.model})
    if query.user_id is not None:
        where.must("log.user_id = ?", query.user_id)
    if wanted:
        where.must("wanted.tag = ?", query.tag)
    elif query.tag is not None:
        where.must("EXISTS (SELECT 1 FROM json_each(log.tags) AS wanted WHERE wanted.value = ?)", query.tag)
    shown = {dimension.value: _DIMENSIONS_OF_ROWS[dimension] for dimension in query.group_by}
    # A request that fell back has several rows.
    shown |= {"request_count": "count(DISTINCT metrics.request_id)", **{name: f"coalesce(sum({name}), 0)" for name in _TOKENS}}
    shown |= {"cost_micro_usd": "sum(cost_micro_usd)"}
    source = _METRICS_OF_TAG if wanted else _METRICS_OF_LOGS
    tags = _TAGS_OF_LOGS if UsageDimension.TAG in query.group_by else ""
    return f"SELECT {_list(shown)} FROM {source} {tags} WHERE {where} {_groups(query, 'true')} LIMIT {MOST_GROUPS}", where.values


def _list(columns: Mapping[str, str]) -> str:
    return ", ".join(f"{expression} AS {name}" for name, expression in columns.items())


class SqliteAnalytics:
    """Analytics by the store's connections for reading."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def list_success_rates(self, query: SuccessRatesQuery) -> list[SuccessRate]:
        """See Analytics.list_success_rates."""
        records = await self._fetch(success_rates(query))
        return [SuccessRate(**dict(zip(_SUCCESS, record, strict=True))) for record in records]

    async def list_hourly_performance(self, query: HourlyPerformanceQuery) -> list[HourlyPerformance]:
        """See Analytics.list_hourly_performance."""
        records = await self._fetch(hourly_performance(query))
        return [HourlyPerformance(**dict(zip(_HOURLY, record, strict=True))) for record in records]

    async def list_failed_requests(self, query: FailedRequestsQuery) -> list[FailedRequest]:
        """See Analytics.list_failed_requests. Raises CorruptRow."""
        return [_FAILED.decode(record) for record in await self._fetch(failed_requests(query))]

    async def get_usage(self, query: UsageQuery) -> list[UsageGroup]:
        """See Analytics.get_usage."""
        names = [*query.group_by, *_USAGE]
        return [UsageGroup(**dict(zip(names, record, strict=True))) for record in await self._fetch(usage(query))]

    async def _fetch(self, statement: Statement) -> list[sqlite3.Row]:
        async with self._turns:
            return await self._readers.fetch(*statement)
