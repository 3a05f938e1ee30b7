"""AnalyticsService over real sockets, and what is wrong in its requests."""

import asyncio
import base64
import json
import sqlite3
import time
from contextlib import closing

import grpc
import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from headrace.v1 import analytics_service_pb2 as pb
from headrace.v1 import error_pb2, lifecycle_pb2, request_pb2
from headrace_server.domain.analytics import (
    DAY,
    HOUR,
    FailedRequestsQuery,
    HourlyPerformance,
    HourlyPerformanceQuery,
    SuccessRate,
    SuccessRatesQuery,
    TimeRange,
    UsageDimension,
    UsageQuery,
)
from headrace_server.domain.errors import ErrorCode, Refusal
from headrace_server.fake_provider import Step
from headrace_server.rpc.codec_analytics import (
    decode_failed_requests,
    decode_get_usage,
    decode_hourly_performance,
    decode_success_rates,
    encode_hourly_performance,
    encode_success_rates,
)
from support.service import details, request, service

NOW = 1_790_000_000_123
DECODERS = {
    pb.ListSuccessRatesRequest: decode_success_rates,
    pb.ListHourlyPerformanceRequest: decode_hourly_performance,
    pb.ListFailedRequestsRequest: decode_failed_requests,
    pb.GetUsageRequest: decode_get_usage,
}
LISTS = [message for message in DECODERS if message is not pb.GetUsageRequest]


def at(millis):
    return timestamp_pb2.Timestamp(seconds=millis // 1000, nanos=millis % 1000 * 1_000_000)


def time_range(start=None, end=None):
    return pb.TimeRange(start_time=None if start is None else at(start), end_time=None if end is None else at(end))


def violations(message):
    with pytest.raises(Refusal) as caught:
        DECODERS[type(message)](message, NOW)
    return {v.field: v.description for v in caught.value.fault.violations}


# ---------------------------------------------------------------- over real sockets


async def test_success_rates_tell_of_retries_and_fallbacks(tmp_path):
    script = [Step(status=500), Step(text="after a retry"), Step(status=401), Step(text="by the other"), Step(status=400)]
    async with service(tmp_path, script) as s:
        retry = request_pb2.RetryConfig(max_attempts=2, initial_delay=duration_pb2.Duration(nanos=1_000_000))
        await s.generation.Generate(request(retry=retry))
        await s.generation.Generate(request(fallback=request_pb2.FallbackConfig(providers=["claude-fake"])))
        with pytest.raises(grpc.aio.AioRpcError):
            await s.generation.Generate(request())
        response = await s.analytics.ListSuccessRates(pb.ListSuccessRatesRequest())

        assert not response.next_page_token
        other, fake = response.success_rates
        assert (other.provider, other.model, other.total_requests, other.successful_requests) == ("claude-fake", "echo", 1, 1)
        assert (other.success_rate, other.retry_rate, other.fallback_rate) == (100, 0, 100)
        assert (fake.provider, fake.total_requests, fake.successful_requests) == ("fake", 3, 1)
        assert (fake.success_rate, fake.retry_rate, fake.fallback_rate) == (100 * 1 / 3, 100 * 1 / 3, 0)
        assert other.total_tokens > 0
        assert not other.HasField("cost_micro_usd")
        assert other.avg_duration.ToNanoseconds() >= other.avg_first_token_latency.ToNanoseconds()


async def test_hours_tell_load_and_speed(tmp_path):
    async with service(tmp_path, [Step(text="a", times=0)]) as s:
        began = time.time_ns() // 1_000_000 // HOUR * HOUR
        tokens = [(await s.generation.Generate(request())).result.usage.total_tokens for _ in range(3)]
        hours = (await s.analytics.ListHourlyPerformance(pb.ListHourlyPerformanceRequest(provider="fake"))).hours

        assert hours[-1].hour.ToMilliseconds() in (began, began + HOUR)
        assert sum(hour.request_count for hour in hours) == 3
        assert sum(hour.total_tokens for hour in hours) == sum(tokens)
        assert not (await s.analytics.ListHourlyPerformance(pb.ListHourlyPerformanceRequest(provider="claude-fake"))).hours


async def test_failed_requests_are_newest_first_and_pages_lack_and_repeat_nothing(tmp_path):
    script = [Step(status=500), Step(text="well"), *[Step(status=401)] * 4]
    async with service(tmp_path, script) as s:
        failed = []
        for _ in script:
            wanted = request()
            try:
                await s.generation.Generate(wanted)
            except grpc.aio.AioRpcError:
                failed.insert(0, wanted.request_id)
        seen, ask = [], pb.ListFailedRequestsRequest(page_size=2)
        while True:
            page = await s.analytics.ListFailedRequests(ask)
            seen += page.requests
            ask.page_token = page.next_page_token
            if not ask.page_token:
                break
        only = await s.analytics.ListFailedRequests(pb.ListFailedRequestsRequest(error_code=error_pb2.ERROR_CODE_SERVER_ERROR))

        assert [line.request_id for line in seen] == failed
        assert [line.request_id for line in only.requests] == failed[-1:]
        line = only.requests[0]
        assert (line.provider, line.model, line.state) == ("fake", "echo", lifecycle_pb2.REQUEST_STATE_FAILED)
        assert (line.retry_attempt, line.error_code, bool(line.error_message)) == (0, error_pb2.ERROR_CODE_SERVER_ERROR, True)
        assert line.HasField("total_duration")
        assert line.created_at.ToMilliseconds() > 0


async def test_usage_is_grouped_as_asked(tmp_path):
    async with service(tmp_path) as s:
        for user, tags in (("ada", ["x", "y"]), ("bob", ["y"]), ("bob", [])):
            await s.generation.Generate(request(metadata=request_pb2.RequestMetadata(user_id=user, tags=tags)))

        async def usage(*by, **filters):
            return (await s.analytics.GetUsage(pb.GetUsageRequest(group_by=by, **filters))).groups

        [whole] = await usage()
        assert whole.request_count == 3
        assert whole.total_tokens == whole.input_tokens + whole.output_tokens > 0
        assert not whole.HasField("day")
        assert [(g.user_id, g.request_count) for g in await usage(pb.USAGE_DIMENSION_USER)] == [("ada", 1), ("bob", 2)]
        assert [(g.tag, g.request_count) for g in await usage(pb.USAGE_DIMENSION_TAG)] == [("", 1), ("x", 1), ("y", 2)]
        [group] = await usage(pb.USAGE_DIMENSION_PROVIDER, pb.USAGE_DIMENSION_MODEL, pb.USAGE_DIMENSION_DAY, tag="y", user_id="bob")
        assert (group.provider, group.model, group.request_count, group.user_id, group.tag) == ("fake", "echo", 1, "", "")
        assert group.day.ToMilliseconds() % DAY == 0
        assert not await usage(pb.USAGE_DIMENSION_DAY, range=time_range(0, 1000))


async def test_a_cost_is_told_where_there_is_a_price(tmp_path):
    async with service(tmp_path) as s:
        wanted = request()
        await s.generation.Generate(wanted)
        await asyncio.to_thread(set_cost, tmp_path / "headrace.db")

        [group] = (await s.analytics.GetUsage(pb.GetUsageRequest())).groups
        [rate] = (await s.analytics.ListSuccessRates(pb.ListSuccessRatesRequest())).success_rates
        assert group.cost_micro_usd == rate.cost_micro_usd == 42


def set_cost(path):
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE provider_metrics SET cost_micro_usd = 42")


async def test_what_is_wrong_is_named_with_its_field(tmp_path):
    async with service(tmp_path) as s:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await s.analytics.GetUsage(pb.GetUsageRequest(group_by=[0, 2, 2], range=time_range(2000, 1000), tag="\0"))

        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        named = {v.field for v in details(caught.value)["BadRequest"].field_violations}
        assert named == {"group_by[0]", "group_by[2]", "range.end_time", "tag"}


# ---------------------------------------------------------------- what is asked


def test_ranges_end_now_when_nothing_else_is_asked():
    assert decode_success_rates(pb.ListSuccessRatesRequest(), NOW) == SuccessRatesQuery(
        range=TimeRange(start=NOW + 1 - 7 * DAY, end=NOW + 1)
    )
    assert decode_hourly_performance(pb.ListHourlyPerformanceRequest(), NOW) == HourlyPerformanceQuery(
        range=TimeRange(start=NOW + 1 - DAY, end=NOW + 1), page_size=100
    )
    assert decode_failed_requests(pb.ListFailedRequestsRequest(), NOW) == FailedRequestsQuery(
        range=TimeRange(start=0, end=NOW + 1), page_size=50
    )
    assert decode_get_usage(pb.GetUsageRequest(), NOW) == UsageQuery(range=TimeRange(start=NOW + 1 - 7 * DAY, end=NOW + 1))


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        (time_range(5, 9), 5, 9),
        (time_range(5, 5), 5, 5),
        (time_range(start=5), 5, NOW + 1),
        (time_range(end=NOW - 9 * DAY), NOW - 16 * DAY, NOW - 9 * DAY),
        (time_range(end=5), 0, 5),
        (time_range(start=NOW + DAY), NOW + DAY, NOW + 1),
        (pb.TimeRange(), NOW + 1 - 7 * DAY, NOW + 1),
    ],
    ids=str,
)
def test_a_range_is_completed_from_what_is_given(asked, start, end):
    assert decode_get_usage(pb.GetUsageRequest(range=asked), NOW).range == TimeRange(start=start, end=end)


def test_filters_are_read():
    message = pb.ListFailedRequestsRequest(provider="p", error_code="ERROR_CODE_TIMEOUT", page_size=7)
    query = decode_failed_requests(message, NOW)
    assert (query.provider, query.error_code, query.page_size) == ("p", ErrorCode.TIMEOUT, 7)
    usage = decode_get_usage(pb.GetUsageRequest(provider="p", model="m", user_id="u", tag="t", group_by=[5, 1]), NOW)
    assert (usage.provider, usage.model, usage.user_id, usage.tag) == ("p", "m", "u", "t")
    assert usage.group_by == (UsageDimension.TAG, UsageDimension.DAY)


@pytest.mark.parametrize("kind", DECODERS, ids=lambda kind: kind.DESCRIPTOR.name)
@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (time_range(2, 1), "range.end_time"),
        (pb.TimeRange(start_time=timestamp_pb2.Timestamp(seconds=-1)), "range.start_time"),
        (pb.TimeRange(end_time=timestamp_pb2.Timestamp(seconds=1, nanos=-1)), "range.end_time"),
    ],
    ids=["backwards", "before 1970", "not valid"],
)
def test_a_wrong_range_is_a_violation(kind, asked, field):
    assert set(violations(kind(range=asked))) == {field}


@pytest.mark.parametrize("kind", LISTS, ids=lambda kind: kind.DESCRIPTOR.name)
def test_everything_wrong_with_a_list_is_named_at_once(kind):
    message = kind(page_size=1_001, page_token="?", provider="\0", range=time_range(2, 1))
    named = {"page_size", "page_token", "provider", "range.end_time"}
    if kind is pb.ListFailedRequestsRequest:
        message.error_code = 99
        named.add("error_code")
    assert set(violations(message)) == named


def test_a_dimension_may_be_named_once_and_must_be_known():
    assert violations(pb.GetUsageRequest(group_by=[1, 99, 0, 1])) == {
        "group_by[1]": "must be one of 'day', 'provider', 'model', 'user' or 'tag'",
        "group_by[2]": "must be one of 'day', 'provider', 'model', 'user' or 'tag'",
        "group_by[3]": "is there already: each dimension may be named once",
    }


# ---------------------------------------------------------------- pages


def rate(provider):
    return SuccessRate(
        provider=provider,
        model="m",
        total_requests=1,
        successful_requests=1,
        success_rate=100.0,
        avg_duration=None,
        avg_first_token_latency=None,
        total_tokens=0,
        retry_rate=0.0,
        fallback_rate=0.0,
        cost_micro_usd=None,
    )


def next_page(message, rows=("a", "b")):
    query = decode_success_rates(message, NOW)
    message.page_token = encode_success_rates(message, query, [rate(provider) for provider in rows]).next_page_token
    return message


def test_later_pages_are_of_the_range_of_the_first():
    message = next_page(pb.ListSuccessRatesRequest(page_size=1))
    first, later = decode_success_rates(pb.ListSuccessRatesRequest(page_size=1), NOW), decode_success_rates(message, NOW + 5 * DAY)
    assert later == first.model_copy(update={"after": ("a", "m")})


def test_the_last_page_has_no_token_also_when_it_is_full():
    assert next_page(pb.ListSuccessRatesRequest(page_size=2)).page_token == ""
    assert next_page(pb.ListSuccessRatesRequest(), rows=()).page_token == ""


def test_a_token_of_another_range_is_refused():
    token = next_page(pb.ListSuccessRatesRequest(page_size=1)).page_token
    assert set(violations(pb.ListSuccessRatesRequest(page_token=token, range=time_range(1, 2)))) == {"page_token"}
    assert set(violations(pb.ListHourlyPerformanceRequest(page_token=token))) == {"page_token"}


@pytest.mark.parametrize("position", [[], [1, 2], [1, 2, "a"], ["1", 2, "a", "m"], [1, 2, "a", 3], [1, -2, "a", "m"], [1, 2**63, "a", "m"]])
def test_a_forged_position_is_a_violation(position):
    token = next_page(pb.ListSuccessRatesRequest(page_size=1)).page_token
    filters, *_ = json.loads(base64.urlsafe_b64decode(token + "=="))
    forged = base64.urlsafe_b64encode(json.dumps([filters, *position]).encode()).decode()
    assert set(violations(pb.ListSuccessRatesRequest(page_token=forged))) == {"page_token"}


async def test_the_largest_forged_hour_is_no_error(tmp_path):
    async with service(tmp_path) as s:
        await s.generation.Generate(request())
        message = pb.ListHourlyPerformanceRequest(page_size=1)
        query = decode_hourly_performance(message, NOW)
        rows = [hour(0), hour(0)]
        filters, *_ = json.loads(base64.urlsafe_b64decode(encode_hourly_performance(message, query, rows).next_page_token + "=="))
        most = 2**63 - 1
        message.page_token = base64.urlsafe_b64encode(json.dumps([filters, 0, most, most, "a"]).encode()).decode()

        assert len((await s.analytics.ListHourlyPerformance(message)).hours) == 1


def hour(began, mean=None):
    return HourlyPerformance(
        provider="p",
        hour=began,
        request_count=1,
        avg_duration=mean,
        avg_first_token_latency=None,
        total_tokens=0,
        retry_rate=0.0,
        fallback_rate=0.0,
        cost_micro_usd=None,
    )


# ---------------------------------------------------------------- what comes out


@given(st.none() | st.floats(0, 2.0**62))
def test_means_are_told_to_the_nanosecond_and_always_valid(mean):
    message = pb.ListHourlyPerformanceRequest()
    query = decode_hourly_performance(message, NOW)
    [shown] = pb.ListHourlyPerformanceResponse.FromString(
        encode_hourly_performance(message, query, [hour(HOUR, mean)]).SerializeToString()
    ).hours
    assert shown.hour.ToMilliseconds() == HOUR
    assert not shown.HasField("avg_first_token_latency")
    if mean is None:
        assert not shown.HasField("avg_duration")
    else:
        longest = 315_576_000_000 * 10**9
        assert shown.avg_duration.ToNanoseconds() == min(round(mean * 1e6), longest)
        assert shown.avg_duration.ToJsonString().endswith("s")  # raises where it is not valid
