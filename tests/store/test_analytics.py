"""What the records add up to: the SQL, the plain count in memory, and the views say the same."""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
from headrace_server.domain.errors import CorruptRow, ErrorCode, StoreUnavailable
from headrace_server.domain.lifecycle import State
from headrace_server.domain.record import LogRow, MetricsRow
from headrace_server.store.analytics import (
    MOST_AT_ONCE,
    SqliteAnalytics,
    Statement,
    failed_requests,
    hourly_performance,
    success_rates,
    usage,
)
from headrace_server.store.analytics_memory import MemoryAnalytics
from headrace_server.store.connection import Durability, Readers, open_writer
from headrace_server.store.migrate import migrate
from headrace_server.store.rows import LOGS, METRICS
from headrace_server.store.sums import add_batch

Sql = Callable[..., list[Any]]
EVER = TimeRange(start=0, end=2**62)
BASE = 1_790_000_000_000 // DAY * DAY


# ---------------------------------------------------------------- any rows, any question


@dataclass
class Rows:
    """What the tables hold."""

    logs: list[LogRow]
    metrics: list[MetricsRow]


providers = st.sampled_from(["claude", "openai", "x"])
models = st.sampled_from(["a", "B", "b/c"])
users = st.sampled_from(["", "u", "ü"])
tags = st.lists(st.sampled_from(["a", "A", "ß"]), max_size=4).map(tuple)
maybe_millis = st.none() | st.integers(0, 600_000)
tokens = st.integers(0, 2**31 - 1)
# Where hours, days and weeks begin and end, and between.
hours = st.integers(0, 50) | st.sampled_from([day * 24 for day in range(25)])
times = st.builds(lambda hour, more: BASE + hour * HOUR + more, hours, st.sampled_from([-1, 0, 1]) | st.integers(0, HOUR))


@st.composite
def rows(draw: st.DrawFn, times: st.SearchStrategy[int] = times) -> Rows:
    found = Rows([], [])
    for number in range(draw(st.integers(0, 12))):
        request_id, created_at = f"10000000-0000-0000-0000-{number:012}", draw(times)
        failed = draw(st.booleans())
        found.logs.append(
            LogRow(
                id=f"00000000-0000-0000-0000-{draw(st.integers(0, 99)):06}{number:06}",
                request_id=request_id,
                user_id=draw(users),
                provider=draw(providers),
                model=draw(models),
                state=State.FAILED if failed else draw(st.sampled_from([State.COMPLETED, State.STREAMING])),
                error_message="no" if failed else None,
                error_code=draw(st.sampled_from([ErrorCode.TIMEOUT, ErrorCode.CANCELLED])) if failed else None,
                start_time=created_at,
                duration=draw(maybe_millis),
                retry_attempt=draw(st.integers(0, 3)),
                tags=draw(tags),
                created_at=created_at,
                updated_at=created_at,
            )
        )
        found.metrics += [
            MetricsRow(
                id=f"20000000-0000-0000-0000-{len(found.metrics) + more:012}",
                request_id=request_id,
                provider=draw(providers),
                model=draw(models),
                input_tokens=draw(tokens),
                output_tokens=draw(tokens),
                total_tokens=draw(tokens),
                cached_input_tokens=draw(tokens),
                reasoning_tokens=draw(tokens),
                cost_micro_usd=draw(st.none() | st.integers(0, 10**9)),
                first_token_latency=draw(maybe_millis),
                total_duration=draw(maybe_millis),
                retry_count=draw(st.integers(0, 2)),
                is_fallback=draw(st.booleans()),
                success=draw(st.booleans()),
                created_at=created_at,
            )
            for more in range(draw(st.integers(0, 3)))
        ]
    return found


ranges = st.just(EVER) | st.builds(lambda start, end: TimeRange(start=start, end=end), times, times)
filters = {"range": ranges, "provider": st.none() | providers}
pages = filters | {"page_size": st.integers(1, 3)}
success_queries = st.builds(SuccessRatesQuery, **pages, model=st.none() | models)
hourly_queries = st.builds(HourlyPerformanceQuery, **pages)
failed_queries = st.builds(FailedRequestsQuery, **pages, error_code=st.none() | st.sampled_from([ErrorCode.TIMEOUT, ErrorCode.CANCELLED]))
usage_queries = st.builds(
    UsageQuery,
    **filters,
    group_by=st.lists(st.sampled_from(UsageDimension), unique=True).map(tuple),
    model=st.none() | models,
    user_id=st.none() | st.sampled_from(["u", "ü", "nobody"]),
    tag=st.none() | st.sampled_from(["a", "ß", "none"]),
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty database, so that not every example migrates one."""
    path = tmp_path_factory.mktemp("template") / "empty.db"
    migrate(path)
    return path.read_bytes()


def sqlite_file(folder: str, template: bytes, rows: Rows, summed: int = 0) -> Path:
    """A database with the rows, so many of them in the sums."""
    path = Path(folder) / "headrace.db"
    path.write_bytes(template)
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, lines in ((LOGS, rows.logs), (METRICS, rows.metrics)):
            names = table.names()
            statement = f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            connection.executemany(statement, [table.encode(line) for line in lines])  # type: ignore[arg-type]
    asyncio.run(add_to_sums(path, summed))
    return path


async def add_to_sums(path: Path, number: int) -> None:
    connection = await open_writer(path, Durability.NORMAL)
    try:
        assert await add_batch(connection, number) <= number
    finally:
        await connection.close()


async def all_pages(ask: Any, query: Any, key: Callable[[Any], Any]) -> list[Any]:
    """All rows of a list, page by page."""
    seen: list[Any] = []
    while True:
        page = await ask(query)
        seen += page[: query.page_size]
        if len(page) <= query.page_size:
            return seen
        assert len(page) == query.page_size + 1
        assert key(page[0]) != query.after
        query = query.model_copy(update={"after": key(seen[-1])})


def by_model(row: SuccessRate) -> tuple[str, str]:
    return row.provider, row.model


def by_hour(row: HourlyPerformance) -> tuple[int, str]:
    return row.hour, row.provider


def by_time(row: FailedRequest) -> tuple[int, str]:
    return row.created_at, row.id


@settings(max_examples=80, deadline=None)
@given(
    rows=rows(),
    summed=st.sampled_from([0, 100]) | st.integers(1, 20),
    success=success_queries,
    hourly=hourly_queries,
    failed=failed_queries,
    usages=st.lists(usage_queries, max_size=6),
)
def test_sqlite_says_what_a_plain_count_over_the_rows_says(
    template: bytes,
    rows: Rows,
    summed: int,
    success: SuccessRatesQuery,
    hourly: HourlyPerformanceQuery,
    failed: FailedRequestsQuery,
    usages: list[UsageQuery],
) -> None:
    async def compare(path: Path) -> None:
        readers = Readers()
        await readers.open(path, 1)
        sql, plain = SqliteAnalytics(readers), MemoryAnalytics(lambda: (rows.logs, rows.metrics))
        try:
            for ask, query, key in (
                ("list_success_rates", success, by_model),
                ("list_hourly_performance", hourly, by_hour),
                ("list_failed_requests", failed, by_time),
            ):
                in_pages = await all_pages(getattr(sql, ask), query, key)
                at_once = query.model_copy(update={"page_size": 1_000})
                assert in_pages == await getattr(plain, ask)(at_once) == await getattr(sql, ask)(at_once)
                assert in_pages == await all_pages(getattr(plain, ask), query, key)
            for query in usages:
                assert await sql.get_usage(query) == await plain.get_usage(query)
        finally:
            await readers.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(compare(sqlite_file(folder, template, rows, summed)))


# Ages in milliseconds, none within two minutes of where the ranges of the views begin.
ages = st.one_of(
    st.integers(60_000, 24 * HOUR - 120_000), st.integers(24 * HOUR + 120_000, 7 * DAY - 120_000), st.integers(7 * DAY + 120_000, 9 * DAY)
)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_views_say_the_same_over_their_own_ranges(template: bytes, data: st.DataObject) -> None:
    now = int(time.time() * 1000)
    found = data.draw(rows(ages.map(lambda age: now - age)))
    plain = MemoryAnalytics(lambda: (found.logs, found.metrics))

    async def sums() -> list[list[dict[str, Any]]]:
        week, day, ever = (TimeRange(start=start, end=now + 1) for start in (now - 7 * DAY, now - DAY, 0))
        return [
            [asdict(row) for row in await plain.list_success_rates(SuccessRatesQuery(range=week))],
            [asdict(row) for row in await plain.list_hourly_performance(HourlyPerformanceQuery(range=day))],
            [row.model_dump() | {"state": "failed"} for row in await plain.list_failed_requests(FailedRequestsQuery(range=ever))],
        ]

    with (
        tempfile.TemporaryDirectory() as folder,
        closing(sqlite3.connect(sqlite_file(folder, template, found, data.draw(st.integers(0, 30))))) as connection,
    ):
        connection.row_factory = sqlite3.Row
        names = ("provider_success_rate", "provider_performance_hourly", "provider_failed_requests")
        views = [[dict(row) for row in connection.execute(f"SELECT * FROM {name}")] for name in names]

    assert views == [
        [{name: value for name, value in row.items() if name != "cost_micro_usd"} for row in table] for table in asyncio.run(sums())
    ]


# ---------------------------------------------------------------- the numbers of an example, in every store


@pytest.fixture
async def filled(store: Any, make: Any) -> Any:
    """Two answers of claude (one after a retry), one request that went from claude to openai, and one that failed before any call."""
    for hour, (fields, lines) in enumerate(
        [
            (
                {"user_id": "ada", "tags": ("a", "b", "a")},
                [{"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "cost_micro_usd": 7, "first_token_latency": 100}],
            ),
            ({"user_id": "bob"}, [{"total_tokens": 4, "retry_count": 2, "first_token_latency": 200, "total_duration": 1_000}]),
            (
                {"user_id": "ada", "tags": ("b",), "provider": "openai", "model": "gpt"},
                [
                    {"success": False, "fallback_provider": "openai", "total_duration": 3_000},
                    {"provider": "openai", "model": "gpt", "is_fallback": True, "total_tokens": 9, "cost_micro_usd": 5},
                ],
            ),
            ({"provider": "", "model": "", "error_code": ErrorCode.RATE_LIMIT_EXCEEDED, "error_message": "full"}, []),
        ]
    ):
        at = BASE + hour * HOUR
        row = make.row(**({"model": "m", "created_at": at, "start_time": at, "updated_at": at} | fields))
        await store.accept(row)
        ended = make.ended(row, State.COMPLETED if lines else State.FAILED)
        metrics = [make.metrics(row, **({"model": "m", "created_at": at} | line)) for line in lines]
        await store.finish(ended, metrics, [])
    return store


async def test_success_is_counted_for_each_provider_and_model(filled: Any) -> None:
    assert await filled.analytics.list_success_rates(SuccessRatesQuery(range=EVER)) == [
        SuccessRate(
            provider="claude",
            model="m",
            total_requests=3,
            successful_requests=2,
            success_rate=200 / 3,
            avg_duration=2_000.0,
            avg_first_token_latency=150.0,
            total_tokens=19,
            retry_rate=100 / 3,
            fallback_rate=0.0,
            cost_micro_usd=7,
        ),
        SuccessRate(
            provider="openai",
            model="gpt",
            total_requests=1,
            successful_requests=1,
            success_rate=100.0,
            avg_duration=None,
            avg_first_token_latency=None,
            total_tokens=9,
            retry_rate=0.0,
            fallback_rate=100.0,
            cost_micro_usd=5,
        ),
    ]


async def test_hours_are_newest_first_then_by_provider(filled: Any) -> None:
    hours = await filled.analytics.list_hourly_performance(HourlyPerformanceQuery(range=EVER))
    assert [(hour.hour - BASE, hour.provider, hour.cost_micro_usd) for hour in hours] == [
        (2 * HOUR, "claude", None),
        (2 * HOUR, "openai", 5),
        (1 * HOUR, "claude", None),
        (0, "claude", 7),
    ]


async def test_failures_are_listed_also_when_no_provider_was_tried(filled: Any) -> None:
    [failed] = await filled.analytics.list_failed_requests(FailedRequestsQuery(range=EVER))
    assert (failed.provider, failed.error_code, failed.error_message, failed.created_at) == (
        "",
        ErrorCode.RATE_LIMIT_EXCEEDED,
        "full",
        BASE + 3 * HOUR,
    )


async def test_a_range_holds_its_begin_and_not_its_end(filled: Any) -> None:
    [hour] = await filled.analytics.list_hourly_performance(HourlyPerformanceQuery(range=TimeRange(start=BASE + HOUR, end=BASE + 2 * HOUR)))
    assert hour.hour == BASE + HOUR


def group(**fields: Any) -> UsageGroup:
    counts = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens", "cached_input_tokens", "reasoning_tokens"), 0)
    return UsageGroup(**({"request_count": 1, "cost_micro_usd": None} | counts | fields))


async def test_usage_is_one_sum_when_nothing_is_grouped(filled: Any) -> None:
    assert await filled.analytics.get_usage(UsageQuery(range=EVER)) == [
        group(request_count=3, input_tokens=10, output_tokens=5, total_tokens=28, cost_micro_usd=12)
    ]
    assert await filled.analytics.get_usage(UsageQuery(range=TimeRange(start=0, end=1))) == [group(request_count=0)]
    assert await filled.analytics.get_usage(UsageQuery(range=TimeRange(start=0, end=1), group_by=("day",))) == []


async def test_usage_by_tag_counts_a_request_under_each_and_those_without_under_none(filled: Any) -> None:
    assert await filled.analytics.get_usage(UsageQuery(range=EVER, group_by=("tag",))) == [
        group(tag="", total_tokens=4),
        group(tag="a", input_tokens=10, output_tokens=5, total_tokens=15, cost_micro_usd=7),
        group(tag="b", request_count=2, input_tokens=10, output_tokens=5, total_tokens=24, cost_micro_usd=12),
    ]


async def test_usage_groups_stand_in_the_order_of_their_dimensions(filled: Any) -> None:
    by_user = await filled.analytics.get_usage(UsageQuery(range=EVER, group_by=("user", "provider")))
    by_provider = await filled.analytics.get_usage(UsageQuery(range=EVER, group_by=("provider", "user")))
    assert [(g.user, g.provider, g.total_tokens) for g in by_user] == [("ada", "claude", 15), ("ada", "openai", 9), ("bob", "claude", 4)]
    assert [(g.provider, g.user) for g in by_provider] == [("claude", "ada"), ("claude", "bob"), ("openai", "ada")]
    assert by_user[0].day is by_user[0].model is by_user[0].tag is None


async def test_usage_of_a_tag_shows_the_other_tags_of_its_requests_too(filled: Any) -> None:
    groups = await filled.analytics.get_usage(UsageQuery(range=EVER, group_by=("day", "tag"), tag="a", user_id="ada"))
    assert [(g.day, g.tag, g.total_tokens) for g in groups] == [(BASE, "a", 15), (BASE, "b", 15)]


async def test_no_store_adds_up_when_it_is_closed(store: Any) -> None:
    await store.close()
    for ask in (
        store.analytics.list_success_rates(SuccessRatesQuery(range=EVER)),
        store.analytics.list_hourly_performance(HourlyPerformanceQuery(range=EVER)),
        store.analytics.list_failed_requests(FailedRequestsQuery(range=EVER)),
        store.analytics.get_usage(UsageQuery(range=EVER)),
    ):
        with pytest.raises(StoreUnavailable):
            await ask


async def test_connections_are_left_to_others_when_many_sums_are_asked_for(path: Path) -> None:
    class Counted(Readers):
        busy = most = 0

        async def fetch(self, sql: str, parameters: Any = ()) -> list[sqlite3.Row]:
            self.busy += 1
            self.most = max(self.most, self.busy)
            try:
                return await super().fetch(sql, parameters)
            finally:
                self.busy -= 1

    migrate(path)
    readers = Counted()
    await readers.open(path, 4)
    try:
        sums = SqliteAnalytics(readers)
        answers = await asyncio.gather(*[sums.get_usage(UsageQuery(range=EVER)) for _ in range(20)])
    finally:
        await readers.close()
    assert len(answers) == 20
    assert readers.most == MOST_AT_ONCE


async def test_usage_ends_at_the_most_groups_an_answer_holds(open_sqlite: Any, sql: Sql) -> None:
    store = await open_sqlite()
    sql(
        f"""WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {MOST_GROUPS})
        INSERT INTO provider_logs (id, request_id, state, user_id, start_time, created_at, updated_at)
        SELECT i, i, 'completed', printf('%06d', i), 1, 1, 1 FROM n"""
    )
    sql(
        """INSERT INTO provider_metrics (id, request_id, provider, model, success, created_at)
        SELECT id, request_id, 'claude', 'm', 1, 1 FROM provider_logs"""
    )
    groups = await store.analytics.get_usage(UsageQuery(range=EVER, group_by=("user",)))
    assert (len(groups), groups[0].user, groups[-1].user) == (MOST_GROUPS, "000000", f"{MOST_GROUPS - 1:06}")


async def test_a_corrupt_failure_is_named(open_sqlite: Any, sql: Sql) -> None:
    store = await open_sqlite()
    sql(
        """INSERT INTO provider_logs (id, request_id, state, error_message, start_time, created_at, updated_at)
        VALUES ('the-id', 'r', 'failed', x'00', 1, 1, 1)"""
    )
    with pytest.raises(CorruptRow, match=r"provider_failed_requests row the-id: column error_message"):
        await store.analytics.list_failed_requests(FailedRequestsQuery(range=EVER))


# ---------------------------------------------------------------- how SQLite goes about it

ONCE = TimeRange(start=5, end=9)


@pytest.fixture
def plan(path: Path, sql: Sql) -> Callable[[Statement], str]:
    migrate(path)
    return lambda statement: "; ".join(row[3] for row in sql(f"EXPLAIN QUERY PLAN {statement[0]}", statement[1]))


@pytest.mark.parametrize("more", [{}, {"provider": "claude"}, {"after": ("claude", "m")}, {"provider": "claude", "model": "m"}], ids=str)
def test_success_rates_read_the_rows_of_the_range_alone(plan: Any, more: dict[str, Any]) -> None:
    assert "INDEX provider_metrics_created_at (created_at>? AND created_at<?)" in plan(success_rates(SuccessRatesQuery(range=ONCE, **more)))


@pytest.mark.parametrize("more", [{}, {"provider": "claude"}, {"after": (3_600_000, "claude")}], ids=str)
def test_hours_read_the_rows_of_the_range_alone(plan: Any, more: dict[str, Any]) -> None:
    found = plan(hourly_performance(HourlyPerformanceQuery(range=ONCE, **more)))
    assert "INDEX provider_metrics_created_at (created_at>? AND created_at<?)" in found


@pytest.mark.parametrize("more", [{}, {"provider": "claude"}, {"error_code": "timeout"}, {"after": (5, "x")}], ids=str)
def test_failures_follow_an_index_instead_of_sorting(plan: Any, more: dict[str, Any]) -> None:
    found = plan(failed_requests(FailedRequestsQuery(range=ONCE, **more)))
    assert "INDEX provider_logs_state_created_at (state=? AND created_at>? AND created_at<?)" in found
    assert "TEMP B-TREE FOR ORDER BY" not in found  # ids within one millisecond are sorted, and nothing else


IN_RANGE = "provider_metrics_created_at (created_at>? AND created_at<?)"


@pytest.mark.parametrize(
    ("more", "ends"),
    [
        ({}, IN_RANGE),
        ({"group_by": ("provider", "model")}, IN_RANGE),
        ({"group_by": ("day",), "provider": "claude"}, IN_RANGE),
        ({"group_by": ("user",)}, IN_RANGE),
        ({"group_by": ("tag", "provider"), "model": "m"}, IN_RANGE),
        ({"tag": "a"}, IN_RANGE),
        ({"user_id": "u"}, "provider_logs_user_id_created_at (user_id=? AND created_at>? AND created_at<?)"),
    ],
    ids=str,
)
def test_usage_reads_sums_and_of_rows_those_at_the_ends_and_those_in_no_sum(plan: Any, more: dict[str, Any], ends: str) -> None:
    found = plan(usage(UsageQuery(range=ONCE, **more)))
    assert "SEARCH usage_sums USING PRIMARY KEY (kind=? AND length=? AND begin>? AND begin<?)" in found
    assert found.count(f"INDEX {ends}") == 4
    assert found.count("INDEX provider_metrics_unsummed (created_at>? AND created_at<?)") == 1
    assert "SCAN line" not in found.replace("SCAN line; SCAN tag", "")  # groups of rows with the same tags
    assert "SCAN log" not in found


@pytest.mark.parametrize(
    ("more", "index"),
    [
        ({"group_by": ("user", "tag")}, "INDEX provider_logs_created_at (created_at>? AND created_at<?)"),
        ({"group_by": ("tag",), "tag": "a"}, "SEARCH wanted USING PRIMARY KEY (tag=? AND created_at>? AND created_at<?)"),
        ({"group_by": ("user",), "tag": "a"}, "SEARCH wanted USING PRIMARY KEY (tag=? AND created_at>? AND created_at<?)"),
        (
            {"user_id": "u", "group_by": ("day", "tag"), "provider": "claude"},
            "provider_logs_user_id_created_at (user_id=? AND created_at>? AND created_at<?)",
        ),
    ],
    ids=str,
)
def test_usage_by_user_and_tag_reads_the_rows_of_the_range_alone(plan: Any, more: dict[str, Any], index: str) -> None:
    found = plan(usage(UsageQuery(range=ONCE, **more)))
    assert index in found
    assert "SEARCH metrics USING INDEX provider_metrics_request_id (request_id=?)" in found
