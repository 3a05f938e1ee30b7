"""What people do with the tables: follow a request, count against limits, and ask how well providers do."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from headrace_server.domain.lifecycle import Event, State
from headrace_server.domain.limits import MINUTE, LimitType
from headrace_server.domain.machine import Context, advance
from headrace_server.domain.ports import Reservation, Settlement

Sql = Callable[..., list[Any]]
DAY = 86_400_000


@pytest.fixture
def today() -> int:
    """The real time: the views look back from it."""
    return int(time.time() * 1000)


async def test_every_step_is_on_record_when_the_row_follows_the_machine(open_sqlite: Any, make: Any, sql: Sql, now: int) -> None:
    store = await open_sqlite()
    steps = [
        (Event.INITIATE_REQUEST, State.VALIDATING),
        (Event.VALIDATION_PASSED, State.REQUESTING),
        (Event.RETRY_REQUEST, State.RETRYING),
        (Event.SEND_REQUEST, State.REQUESTING),
        (Event.RECEIVE_STREAM_CHUNK, State.STREAMING),
        (Event.STREAM_COMPLETE, State.COMPLETED),
    ]
    context, row = Context(request_id=make.row().request_id), None
    for number, (event, state) in enumerate(steps, start=1):
        context, _ = advance(context, event, at=now + number)
        if row is None:
            row = make.row(context.request_id, state=context.state, transitions=context.history)
            await store.accept(row)
        else:
            row = row.model_copy(update={"state": context.state, "transitions": context.history, "end_time": context.metrics.end_time})
            await (store.finish(row, [make.metrics(row)], []) if context.is_terminal else store.update(row))
        told = sql("SELECT state, json_array_length(transitions), json_extract(transitions, '$[#-1].event'), end_time FROM provider_logs")
        assert told == [(state, number, event, now + number if context.is_terminal else None)]


@pytest.mark.parametrize(
    ("limit_type", "full", "free"),
    [
        # A window slides: at the begin of the next minute all of the last one still counts, at its end none of it does.
        (LimitType.REQUESTS_PER_MINUTE, MINUTE, 2 * MINUTE),
        (LimitType.TOKENS_PER_MINUTE, MINUTE, 2 * MINUTE),
        (LimitType.REQUESTS_PER_DAY, DAY - 1, DAY),
    ],
)
async def test_limit_is_checked_counted_and_free_again_when_its_window_has_passed(
    store: Any, make: Any, now: int, limit_type: LimitType, full: int, free: int
) -> None:
    begin = now - now % DAY
    limit = {limit_type: 100 if limit_type is LimitType.TOKENS_PER_MINUTE else 1}

    def wanted(attempt: int) -> Reservation:
        return Reservation(request_id=make.row().request_id, attempt=attempt, provider="claude", model="m", tokens=100)

    first = wanted(1)
    assert await store.reserve(first, limit, begin) is None
    await store.settle(Settlement(reservation=first, tokens=100), begin)
    [window] = await store.list_windows("claude", "m")
    assert (window.current_usage, window.reserved, window.limit_value) == (window.limit_value, 0, limit[limit_type])
    assert await store.reserve(wanted(1), limit, begin + full) is not None
    assert await store.reserve(wanted(1), limit, begin + free) is None
    [window] = await store.list_windows("claude", "m")
    assert (window.current_usage, window.reserved) == (0, window.limit_value)


async def test_providers_are_compared_by_sql_when_requests_have_ended(open_sqlite: Any, make: Any, sql: Sql, today: int) -> None:
    store = await open_sqlite()
    for number in range(4):
        row = make.row()
        await store.accept(row)
        failed = make.metrics(row, model="m", success=False, retry_count=2, fallback_provider="gemini", total_duration=90, created_at=today)
        stood_in = make.metrics(
            row,
            provider="gemini",
            model="g",
            is_fallback=True,
            total_tokens=10,
            first_token_latency=20,
            total_duration=40,
            created_at=today,
        )
        well = make.metrics(row, model="m", total_tokens=6, first_token_latency=10, total_duration=30, created_at=today)
        await store.finish(make.ended(row), [failed, stood_in] if number == 0 else [well], [])
    rates = sql("SELECT provider, model, success_rate, retry_rate, fallback_rate, total_tokens FROM provider_success_rate")
    assert rates == [("claude", "m", 75.0, 25.0, 0.0, 18), ("gemini", "g", 100.0, 0.0, 100.0, 10)]
    hours = sql("SELECT provider, request_count, avg_duration, avg_first_token_latency, total_tokens FROM provider_performance_hourly")
    assert hours == [("claude", 4, 45.0, 10.0, 18), ("gemini", 1, 40.0, 20.0, 10)]


async def test_tokens_are_summed_by_day_when_a_range_is_asked_for(open_sqlite: Any, make: Any, sql: Sql, now: int) -> None:
    store = await open_sqlite()
    for days_ago, tokens in [(0, 5), (0, 7), (1, 11), (40, 1_000)]:
        row = make.row()
        await store.accept(row)
        await store.finish(make.ended(row), [make.metrics(row, total_tokens=tokens, created_at=now - days_ago * DAY)], [])
    by_day = sql(
        "SELECT created_at / 86400000 AS day, sum(total_tokens) FROM provider_metrics"
        " WHERE created_at BETWEEN ? AND ? GROUP BY day ORDER BY day",
        (now - 7 * DAY, now),
    )
    assert by_day == [(now // DAY - 1, 11), (now // DAY, 12)]
