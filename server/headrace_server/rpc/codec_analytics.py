"""Sums over the records, and what is asked of them, between protobuf and the domain.

A list is of one range of time, which its page tokens hold: what is 'now' on the first page stays so on the others.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from google.protobuf.duration_pb2 import Duration

from headrace.v1 import analytics_service_pb2 as pb
from headrace.v1 import lifecycle_pb2
from headrace_server.domain.analytics import (
    DAY,
    FailedRequest,
    FailedRequestsQuery,
    HourlyPerformance,
    HourlyPerformanceQuery,
    SuccessRate,
    SuccessRatesQuery,
    UsageGroup,
    UsageQuery,
)
from headrace_server.domain.violations import validate
from headrace_server.rpc.codec_values import (
    ERROR_CODE,
    MAX_DURATION_S,
    USAGE_DIMENSION,
    Wrong,
    int32,
    maybe_duration,
    maybe_timestamp,
    millis_of_timestamp,
    timestamp_of,
    utf8,
)
from headrace_server.rpc.page import Key, decode_page, encode_page_token

WEEK = 7 * DAY

ListRequest: TypeAlias = pb.ListSuccessRatesRequest | pb.ListHourlyPerformanceRequest | pb.ListFailedRequestsRequest
ListQuery: TypeAlias = SuccessRatesQuery | HourlyPerformanceQuery | FailedRequestsQuery


# ---------------------------------------------------------------- what is asked


def decode_success_rates(message: pb.ListSuccessRatesRequest, now: int) -> SuccessRatesQuery:
    """The domain query, over the last 7 days where no range is given. Raises a Refusal that names every wrong field."""
    wrong: Wrong = []
    fields = _filters(message, ("provider", "model"), wrong) | _page_of_range(message, WEEK, now, (str, str), wrong)
    return validate(SuccessRatesQuery.model_validate, fields, wrong)


def decode_hourly_performance(message: pb.ListHourlyPerformanceRequest, now: int) -> HourlyPerformanceQuery:
    """The same over the last 24 hours."""
    wrong: Wrong = []
    fields = _filters(message, ("provider",), wrong) | _page_of_range(message, DAY, now, (int, str), wrong)
    return validate(HourlyPerformanceQuery.model_validate, fields, wrong)


def decode_failed_requests(message: pb.ListFailedRequestsRequest, now: int) -> FailedRequestsQuery:
    """The same over all times."""
    wrong: Wrong = []
    fields = _filters(message, ("provider",), wrong) | _page_of_range(message, None, now, (int, str), wrong, default=50)
    fields["error_code"] = ERROR_CODE.member(message.error_code)
    return validate(FailedRequestsQuery.model_validate, fields, wrong)


def decode_get_usage(message: pb.GetUsageRequest, now: int) -> UsageQuery:
    """The same over the last 7 days."""
    wrong: Wrong = []
    for at, dimension in enumerate(message.group_by):
        if dimension in message.group_by[:at]:
            wrong.append((("group_by", at), "is there already: each dimension may be named once"))
    fields = _filters(message, ("provider", "model", "user_id", "tag"), wrong)
    fields["group_by"] = tuple(USAGE_DIMENSION.member(dimension) for dimension in message.group_by)
    fields["range"] = _range(message.range, WEEK, now, wrong)
    return validate(UsageQuery.model_validate, fields, wrong)


def _filters(message: ListRequest | pb.GetUsageRequest, names: Sequence[str], wrong: Wrong) -> dict[str, Any]:
    for name in names:
        if "\0" in getattr(message, name):
            wrong.append(((name,), "must not contain the character NUL"))
    return {name: getattr(message, name) or None for name in names}


def _page_of_range(
    message: ListRequest, length: int | None, now: int, keys: tuple[type[Key], ...], wrong: Wrong, *, default: int = 100
) -> dict[str, Any]:
    """The fields that all lists have."""
    range = _range(message.range, length, now, wrong)
    page = decode_page(message, (int, int, *keys), wrong, default=default)
    if not page.after:
        return {"range": range, "page_size": page.size}
    start, end, *after = page.after
    return {"range": {"start": start, "end": end}, "page_size": page.size, "after": tuple(after)}


def _range(message: pb.TimeRange, length: int | None, now: int, wrong: Wrong) -> dict[str, int]:
    """Where no start is given the range is this long, or without a begin (None). 'Now' takes in the present millisecond."""
    start = end = None
    if message.HasField("end_time"):
        end = millis_of_timestamp(message.end_time, ("range", "end_time"), wrong)
    if message.HasField("start_time"):
        start = millis_of_timestamp(message.start_time, ("range", "start_time"), wrong)
    if start is not None and end is not None and end < start:
        wrong.append((("range", "end_time"), "must not be before start_time"))
    end = now + 1 if end is None else end
    if start is None:
        start = 0 if length is None else max(0, end - length)
    return {"start": start, "end": end}


# ---------------------------------------------------------------- what comes out


def encode_success_rates(
    message: pb.ListSuccessRatesRequest, query: SuccessRatesQuery, rows: Sequence[SuccessRate]
) -> pb.ListSuccessRatesResponse:
    """A page of rows as the store returns it: with one row more than page_size where another page follows. So with the others below."""
    shown = rows[: query.page_size]
    return pb.ListSuccessRatesResponse(
        success_rates=[
            pb.SuccessRate(
                provider=row.provider,
                model=utf8(row.model),
                total_requests=row.total_requests,
                successful_requests=row.successful_requests,
                success_rate=row.success_rate,
                avg_duration=_mean_duration(row.avg_duration),
                avg_first_token_latency=_mean_duration(row.avg_first_token_latency),
                total_tokens=row.total_tokens,
                retry_rate=row.retry_rate,
                fallback_rate=row.fallback_rate,
                cost_micro_usd=row.cost_micro_usd,
            )
            for row in shown
        ],
        next_page_token=_token(message, query, (shown[-1].provider, shown[-1].model)) if len(rows) > len(shown) else "",
    )


def encode_hourly_performance(
    message: pb.ListHourlyPerformanceRequest, query: HourlyPerformanceQuery, rows: Sequence[HourlyPerformance]
) -> pb.ListHourlyPerformanceResponse:
    """A page of hours."""
    shown = rows[: query.page_size]
    return pb.ListHourlyPerformanceResponse(
        hours=[
            pb.HourlyPerformance(
                provider=row.provider,
                hour=timestamp_of(row.hour),
                request_count=row.request_count,
                avg_duration=_mean_duration(row.avg_duration),
                avg_first_token_latency=_mean_duration(row.avg_first_token_latency),
                total_tokens=row.total_tokens,
                retry_rate=row.retry_rate,
                fallback_rate=row.fallback_rate,
                cost_micro_usd=row.cost_micro_usd,
            )
            for row in shown
        ],
        next_page_token=_token(message, query, (shown[-1].hour, shown[-1].provider)) if len(rows) > len(shown) else "",
    )


def encode_failed_requests(
    message: pb.ListFailedRequestsRequest, query: FailedRequestsQuery, rows: Sequence[FailedRequest]
) -> pb.ListFailedRequestsResponse:
    """A page of failures."""
    shown = rows[: query.page_size]
    return pb.ListFailedRequestsResponse(
        requests=[
            pb.FailedRequest(
                id=row.id,
                request_id=row.request_id,
                provider=row.provider,
                model=utf8(row.model),
                state=lifecycle_pb2.REQUEST_STATE_FAILED,
                error_message=utf8(row.error_message or ""),
                error_code=ERROR_CODE.numbers[row.error_code],
                retry_attempt=int32(row.retry_attempt),
                created_at=timestamp_of(row.created_at),
                total_duration=maybe_duration(row.total_duration),
            )
            for row in shown
        ],
        next_page_token=_token(message, query, (shown[-1].created_at, shown[-1].id)) if len(rows) > len(shown) else "",
    )


def encode_usage(groups: Sequence[UsageGroup]) -> pb.GetUsageResponse:
    """All groups."""
    return pb.GetUsageResponse(
        groups=[
            pb.UsageGroup(
                day=maybe_timestamp(group.day),
                provider=group.provider or "",
                model=utf8(group.model or ""),
                user_id=group.user or "",
                tag=group.tag or "",
                request_count=group.request_count,
                input_tokens=group.input_tokens,
                output_tokens=group.output_tokens,
                total_tokens=group.total_tokens,
                cached_input_tokens=group.cached_input_tokens,
                reasoning_tokens=group.reasoning_tokens,
                cost_micro_usd=group.cost_micro_usd,
            )
            for group in groups
        ]
    )


def _token(message: ListRequest, query: ListQuery, position: tuple[Key, ...]) -> str:
    return encode_page_token(message, (query.range.start, query.range.end, *position))


def _mean_duration(millis: float | None) -> Duration | None:
    """A mean is told to the nanosecond: in milliseconds two of them might look equal that are not."""
    if millis is None:
        return None
    seconds, nanos = divmod(round(millis * 1_000_000), 1_000_000_000)
    return Duration(seconds=min(seconds, MAX_DURATION_S), nanos=nanos if seconds < MAX_DURATION_S else 0)
