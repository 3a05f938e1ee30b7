"""What records in memory add up to: each number counted in the plainest way, so that tests can hold the SQL against it."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from operator import attrgetter
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
from headrace_server.domain.lifecycle import State
from headrace_server.domain.record import LogRow, MetricsRow

Rows = tuple[Collection[LogRow], Collection[MetricsRow]]


class MemoryAnalytics:
    """Analytics over the rows that `rows` returns."""

    def __init__(self, rows: Callable[[], Rows]) -> None:
        self._rows = rows

    async def list_success_rates(self, query: SuccessRatesQuery) -> list[SuccessRate]:
        """See Analytics.list_success_rates."""
        _, metrics = self._rows()
        groups: defaultdict[tuple[str, str], list[MetricsRow]] = defaultdict(list)
        for row in metrics:
            if _within(row, query.range) and query.provider in (None, row.provider) and query.model in (None, row.model):
                groups[row.provider, row.model].append(row)
        keys = [key for key in sorted(groups) if query.after is None or key > query.after]
        return [_success_rate(*key, groups[key]) for key in keys[: query.page_size + 1]]

    async def list_hourly_performance(self, query: HourlyPerformanceQuery) -> list[HourlyPerformance]:
        """See Analytics.list_hourly_performance."""
        _, metrics = self._rows()
        groups: defaultdict[tuple[int, str], list[MetricsRow]] = defaultdict(list)
        for row in metrics:
            if _within(row, query.range) and query.provider in (None, row.provider):
                groups[-(row.created_at // HOUR * HOUR), row.provider].append(row)
        after = None if query.after is None else (-query.after[0], query.after[1])
        keys = [key for key in sorted(groups) if after is None or key > after]
        return [
            HourlyPerformance(provider=provider, hour=-hour, request_count=len(groups[hour, provider]), **_load(groups[hour, provider]))
            for hour, provider in keys[: query.page_size + 1]
        ]

    async def list_failed_requests(self, query: FailedRequestsQuery) -> list[FailedRequest]:
        """See Analytics.list_failed_requests."""
        logs, _ = self._rows()
        found = [
            row
            for row in logs
            if row.state is State.FAILED
            and _within(row, query.range)
            and query.provider in (None, row.provider)
            and query.error_code in (None, row.error_code)
            and (query.after is None or (row.created_at, row.id) < query.after)
        ]
        found.sort(key=attrgetter("created_at", "id"), reverse=True)
        return [_failed_request(row) for row in found[: query.page_size + 1]]

    async def get_usage(self, query: UsageQuery) -> list[UsageGroup]:
        """See Analytics.get_usage."""
        logs, metrics = self._rows()
        log_of = {log.request_id: log for log in logs}
        groups: defaultdict[tuple[Any, ...], list[MetricsRow]] = defaultdict(list)
        if not query.group_by:
            groups[()] = []
        for row in metrics:
            log = log_of[row.request_id]
            if (
                _within(row, query.range)
                and query.provider in (None, row.provider)
                and query.model in (None, row.model)
                and query.user_id in (None, log.user_id)
                and (query.tag is None or query.tag in log.tags)
            ):
                for tag in set(log.tags) or {""} if UsageDimension.TAG in query.group_by else {""}:
                    values = {"day": row.created_at // DAY * DAY, "provider": row.provider, "model": row.model}
                    values |= {"user": log.user_id, "tag": tag}
                    groups[tuple(values[dimension] for dimension in query.group_by)].append(row)
        return [_usage_group(dict(zip(query.group_by, key, strict=True)), groups[key]) for key in sorted(groups)[:MOST_GROUPS]]


def _within(row: LogRow | MetricsRow, range: TimeRange) -> bool:
    return range.start <= row.created_at < range.end


def _success_rate(provider: str, model: str, rows: list[MetricsRow]) -> SuccessRate:
    return SuccessRate(
        provider=provider,
        model=model,
        total_requests=len(rows),
        successful_requests=sum(row.success for row in rows),
        success_rate=_percent(row.success for row in rows),
        **_load(rows),
    )


def _load(rows: list[MetricsRow]) -> dict[str, Any]:
    return {
        "avg_duration": _mean(row.total_duration for row in rows),
        "avg_first_token_latency": _mean(row.first_token_latency for row in rows),
        "total_tokens": sum(row.total_tokens for row in rows),
        "retry_rate": _percent(row.retry_count > 0 for row in rows),
        "fallback_rate": _percent(row.is_fallback for row in rows),
        "cost_micro_usd": _cost(rows),
    }


def _failed_request(row: LogRow) -> FailedRequest:
    return FailedRequest(
        id=row.id,
        request_id=row.request_id,
        provider=row.provider,
        model=row.model,
        error_message=row.error_message,
        error_code=row.error_code,
        retry_attempt=row.retry_attempt,
        created_at=row.created_at,
        total_duration=row.duration,
    )


def _usage_group(key: dict[str, Any], rows: list[MetricsRow]) -> UsageGroup:
    return UsageGroup(
        **key,
        request_count=len({row.request_id for row in rows}),
        input_tokens=sum(row.input_tokens for row in rows),
        output_tokens=sum(row.output_tokens for row in rows),
        total_tokens=sum(row.total_tokens for row in rows),
        cached_input_tokens=sum(row.cached_input_tokens for row in rows),
        reasoning_tokens=sum(row.reasoning_tokens for row in rows),
        cost_micro_usd=_cost(rows),
    )


def _mean(values: Iterable[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _percent(flags: Iterable[bool]) -> float:
    counted = list(flags)
    return 100.0 * sum(counted) / len(counted)


def _cost(rows: list[MetricsRow]) -> int | None:
    known = [row.cost_micro_usd for row in rows if row.cost_micro_usd is not None]
    return sum(known) if known else None
