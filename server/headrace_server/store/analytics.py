"""What the records in a SQLite file add up to.

The views in migrations/sqlite say what the numbers mean; this file says the same over any range of time, and adds the cost. A change of
the one is a change of the other: tests/store/test_analytics.py compares them.

Every statement reads the rows of its range by created_at, and no others: the plus signs keep SQLite from indexes by which it would read
all that a provider or a user ever had. A million rows take about 1 s by hour or day, 1.5 s by provider and model, 2.5 s by user, 6 s by
tag; a caller that leaves ends the statement.
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

_LOAD = {
    "avg_duration": "avg(total_duration)",
    "avg_first_token_latency": "avg(first_token_latency)",
    "total_tokens": "sum(total_tokens)",
    "retry_rate": "100.0 * sum(retry_count > 0) / count(*)",
    "fallback_rate": "100.0 * sum(is_fallback) / count(*)",
    "cost_micro_usd": "sum(cost_micro_usd)",
}
_SUCCESS = {
    "provider": "provider",
    "model": "model",
    "total_requests": "count(*)",
    "successful_requests": "sum(success)",
    "success_rate": "100.0 * sum(success) / count(*)",
    **_LOAD,
}
_HOURLY = {"provider": "provider", "hour": f"created_at / {HOUR} * {HOUR}", "request_count": "count(*)", **_LOAD}
_FAILED = Table("provider_failed_requests", FailedRequest)
_TOKENS = ("input_tokens", "output_tokens", "total_tokens", "cached_input_tokens", "reasoning_tokens")
_USAGE = {
    # A request that fell back has several rows.
    "request_count": "count(DISTINCT metrics.request_id)",
    **{name: f"coalesce(sum({name}), 0)" for name in _TOKENS},
    "cost_micro_usd": "sum(cost_micro_usd)",
}
_DIMENSIONS = {
    UsageDimension.DAY: f"metrics.created_at / {DAY} * {DAY}",
    UsageDimension.PROVIDER: "metrics.provider",
    UsageDimension.MODEL: "metrics.model",
    UsageDimension.USER: "+log.user_id",
    UsageDimension.TAG: "coalesce(tag.value, '')",
}
# Metrics bear the created_at of their log, so either may be asked for the range. CROSS fixes the order of the loops.
_METRICS = "provider_metrics AS metrics"
_METRICS_OF_LOGS = "provider_logs AS log CROSS JOIN provider_metrics AS metrics ON metrics.request_id = log.request_id"
# A tag that a request names twice counts once.
_TAGS_OF_LOGS = """LEFT JOIN json_each(log.tags) AS tag
    ON NOT EXISTS (SELECT 1 FROM json_each(log.tags) AS same WHERE same.value = tag.value AND same.key < tag.key)"""

MOST_AT_ONCE = 2
"""Sums that are under way together, so that connections are left to those who read a single record."""

Statement = tuple[str, list[Any]]
"""SQL, and the values of its question marks."""


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
    where = _Where(query.range)
    where.equal(provider=query.provider, model=query.model)
    if query.after is not None:
        where.must("(+provider, +model) > (?, ?)", *query.after)
    sql = f"SELECT {_list(_SUCCESS)} FROM provider_metrics WHERE {where} GROUP BY provider, model ORDER BY provider, model LIMIT ?"
    return sql, [*where.values, query.page_size + 1]


def hourly_performance(query: HourlyPerformanceQuery) -> Statement:
    """A page of hours: the view provider_performance_hourly, over any range."""
    where = _Where(query.range)
    where.equal(provider=query.provider)
    if query.after is not None:
        hour, provider = query.after
        where.must(f"created_at < ? + {HOUR} AND (created_at < ? OR +provider > ?)", hour, hour, provider)
    sql = f"SELECT {_list(_HOURLY)} FROM provider_metrics WHERE {where} GROUP BY hour, provider ORDER BY hour DESC, provider LIMIT ?"
    return sql, [*where.values, query.page_size + 1]


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
    by_tag = UsageDimension.TAG in query.group_by
    with_logs = by_tag or UsageDimension.USER in query.group_by or query.user_id is not None or query.tag is not None
    where = _Where(query.range, "log.created_at" if with_logs else "metrics.created_at")
    where.equal(**{"metrics.provider": query.provider, "metrics.model": query.model})
    if query.user_id is not None:
        where.must("log.user_id = ?", query.user_id)
    if query.tag is not None:
        where.must("EXISTS (SELECT 1 FROM json_each(log.tags) AS wanted WHERE wanted.value = ?)", query.tag)
    columns = {dimension.value: _DIMENSIONS[dimension] for dimension in query.group_by} | _USAGE
    source = f"{_METRICS_OF_LOGS if with_logs else _METRICS} {_TAGS_OF_LOGS if by_tag else ''}"
    # By position: a name could be taken for a column of a table instead of the expression.
    keys = ", ".join(str(number) for number, _ in enumerate(query.group_by, start=1))
    order = f"GROUP BY {keys} ORDER BY {keys}" if keys else ""
    return f"SELECT {_list(columns)} FROM {source} WHERE {where} {order} LIMIT {MOST_GROUPS}", where.values


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
