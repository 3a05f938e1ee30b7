"""The sums that are kept: whatever is done to the rows, they are those of the rows that say so."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_server.domain.analytics import DAY, HOUR, TimeRange, UsageQuery
from headrace_server.domain.ports import Horizon
from headrace_server.store.check import check
from headrace_server.store.connection import Durability, open_writer
from headrace_server.store.migrate import migrate
from headrace_server.store.sums import KEY, LENGTHS, SUMS, WEEK, Kind, add_batch, wrong_sums

Sql = Callable[..., list[Any]]
BASE = 1_790_000_000_000 // WEEK * WEEK
EVER = TimeRange(start=0, end=2**62)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty database, so that not every example migrates one."""
    path = tmp_path_factory.mktemp("template") / "empty.db"
    migrate(path)
    return path.read_bytes()


async def add(path: Path, limit: int) -> int:
    connection = await open_writer(path, Durability.NORMAL)
    try:
        return await add_batch(connection, limit)
    finally:
        await connection.close()


# ---------------------------------------------------------------- whatever is done to the rows

numbers = st.integers(0, 5)
logs = st.tuples(
    st.sampled_from(["", "u", "ü"]), st.sampled_from(["[]", '["a"]', '["a", "b", "a"]', '["ß", ""]']), st.sampled_from([0, HOUR, 9 * DAY])
)
lines = st.tuples(
    st.sampled_from(["claude", "x"]), st.sampled_from(["m", "n"]), st.integers(0, 9), st.none() | st.integers(0, 9), st.booleans()
)
EDITS = (
    "DELETE FROM provider_metrics WHERE request_id = :of",
    "DELETE FROM provider_metrics WHERE rowid = (SELECT min(rowid) FROM provider_metrics WHERE request_id = :of)",
    "DELETE FROM provider_logs WHERE request_id = :of",
    "UPDATE provider_metrics SET model = 'o', cost_micro_usd = 7 WHERE request_id = :of",
    "UPDATE provider_metrics SET total_tokens = 70, created_at = created_at + 86400000",
    "UPDATE provider_metrics SET success = 1 - success WHERE rowid = (SELECT max(rowid) FROM provider_metrics WHERE request_id = :of)",
    "UPDATE provider_logs SET user_id = 'v' WHERE request_id = :of",
    """UPDATE provider_logs SET tags = '["z"]' WHERE request_id = :of""",
    "DELETE FROM provider_logs",
)
steps = st.one_of(
    st.tuples(st.just("request"), logs, st.lists(lines, max_size=3)),
    st.tuples(st.just("add"), st.integers(1, 5), st.none()),
    st.tuples(st.just("edit"), st.sampled_from(EDITS), numbers),
)


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(steps, max_size=14))
def test_sums_are_those_of_their_rows_whatever_is_done_to_the_rows(
    template: bytes, tmp_path_factory: pytest.TempPathFactory, steps: list[Any]
) -> None:
    path = tmp_path_factory.getbasetemp() / "sums.db"
    path.write_bytes(template)
    requests = 0
    for what, first, second in steps:
        if what == "add":
            assert asyncio.run(add(path, first)) <= first
            continue
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("PRAGMA foreign_keys = ON")
            if what == "request":
                write(db, str(requests), first, second)
                requests += 1
            else:
                db.execute(first, {"of": str(second)})
        assert wrong(path) == []
    while asyncio.run(add(path, 3)):
        pass
    assert wrong(path) == []
    with closing(sqlite3.connect(path)) as db:
        by_hand = f"SELECT {', '.join(KEY)}, {', '.join(f'sum({column})' for column in SUMS)} FROM usage_parts GROUP BY 1, 2, 3, 4, 5, 6"
        assert sorted(db.execute("SELECT * FROM usage_sums")) == sorted(db.execute(by_hand))
        assert db.execute("SELECT count(*) FROM provider_metrics WHERE summed = 0").fetchone() == (0,)


def write(db: sqlite3.Connection, request_id: str, log: Any, metrics: list[Any]) -> None:
    user, tags, later = log
    db.execute(
        "INSERT INTO provider_logs (id, request_id, user_id, tags, state, start_time, created_at, updated_at)"
        " VALUES (?1, ?1, ?2, ?3, 'completed', ?4, ?4, ?4)",
        (request_id, user, tags, BASE + later),
    )
    for number, (provider, model, tokens, cost, success) in enumerate(metrics):
        db.execute(
            "INSERT INTO provider_metrics"
            " (id, request_id, provider, model, total_tokens, cost_micro_usd, total_duration, success, created_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (f"{request_id}-{number}", request_id, provider, model, tokens, cost, cost, success, BASE + later),
        )


def wrong(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return list(wrong_sums(db))


# ---------------------------------------------------------------- the store


async def finished(store: Any, make: Any, at: int, **fields: Any) -> Any:
    row = make.row(created_at=at, start_time=at, updated_at=at, **fields)
    await store.accept(row)
    await store.finish(make.ended(row), [make.metrics(row, created_at=at, total_tokens=5)], [])
    return row


async def test_the_store_adds_rows_when_enough_wait(open_sqlite: Any, make: Any, now: int, sql: Sql) -> None:
    store = await open_sqlite()
    for _ in range(3):
        await finished(store, make, now, user_id="ada", tags=("a", "b"))
    await store.add_sums(at_least=4)
    assert sql("SELECT count(*) FROM usage_sums") == [(0,)]
    await store.add_sums(at_least=3)
    assert sql("SELECT kind, length, begin, name, calls, requests, total_tokens FROM usage_sums ORDER BY kind, length, name") == [
        ("all", HOUR, now // HOUR * HOUR, "", 3, 3, 15),
        ("tag", DAY, now // DAY * DAY, "a", 3, 3, 15),
        ("tag", DAY, now // DAY * DAY, "b", 3, 3, 15),
        ("user", DAY, now // DAY * DAY, "ada", 3, 3, 15),
        ("user", WEEK, now // WEEK * WEEK, "ada", 3, 3, 15),
    ]


async def test_the_store_adds_rows_by_itself_while_it_is_open(
    open_sqlite: Any, make: Any, now: int, sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace_server.store.sqlite.SUMMING", 0.01)
    monkeypatch.setattr("headrace_server.store.sqlite.BATCH", 2)
    store = await open_sqlite()
    for _ in range(5):
        await finished(store, make, now)
    async with asyncio.timeout(20):
        while sql("SELECT count(*) FROM provider_metrics WHERE summed = 0") != [(1,)]:
            await asyncio.sleep(0.01)
    assert sql("SELECT calls FROM usage_sums WHERE kind = 'all'") == [(4,)]


async def test_usage_of_what_was_pruned_is_gone_from_the_sums_too(open_sqlite: Any, make: Any, now: int, path: Path, sql: Sql) -> None:
    store = await open_sqlite()
    for days_ago in (3, 2, 1):
        for _ in range(2):
            await finished(store, make, now - days_ago * DAY, user_id="ada", tags=("a",))
    await store.add_sums()

    async def tokens() -> int:
        [group] = await store.analytics.get_usage(UsageQuery(range=EVER))
        return int(group.total_tokens)

    assert await tokens() == 30
    assert (await store.prune(Horizon(requests=now - DAY - 1), 3)).requests == 3  # half of a day
    assert await tokens() == 15
    assert wrong(path) == []
    assert (await store.prune(Horizon(metrics=now - DAY - 1), 9)).metrics == 1
    assert await tokens() == 10
    assert await store.prune(Horizon(requests=now), 9)
    assert (await tokens(), sql("SELECT count(*) FROM usage_sums")) == (0, [(0,)])
    assert wrong(path) == []


async def test_the_sums_stay_right_when_the_file_is_vacuumed(open_sqlite: Any, make: Any, now: int, path: Path, sql: Sql) -> None:
    store = await open_sqlite()
    rows = [await finished(store, make, now) for _ in range(4)]
    await store.add_sums()
    await finished(store, make, now)
    sql("DELETE FROM provider_logs WHERE request_id = ?", (rows[1].request_id,))
    await store.close()
    sql("VACUUM")
    store = await open_sqlite()
    [group] = await store.analytics.get_usage(UsageQuery(range=EVER))
    assert group.request_count == 4
    await store.add_sums()
    assert await store.analytics.get_usage(UsageQuery(range=EVER)) == [group]
    assert wrong(path) == []


def test_every_kind_begins_with_its_shortest_spans_and_each_divides_the_next() -> None:
    assert set(LENGTHS) == set(Kind)
    for lengths in LENGTHS.values():
        assert all(longer % shorter == 0 for shorter, longer in pairwise(lengths))


async def test_wrong_sums_are_found(open_sqlite: Any, make: Any, now: int, path: Path, sql: Sql) -> None:
    store = await open_sqlite()
    await finished(store, make, now, user_id="ada")
    await store.add_sums()
    sql("UPDATE usage_sums SET total_tokens = 1 WHERE kind = 'all'")
    sql("DELETE FROM usage_sums WHERE kind = 'tag'")
    sql(
        """INSERT INTO provider_metrics (id, request_id, provider, model, success, created_at, summed)
        SELECT 'more', request_id, provider, 'other', 1, created_at, 1 FROM provider_metrics"""
    )
    told = [line for line in check(path, now=now) if line.startswith("sums")]
    assert told == [
        f"sums of all, 1 h from {now // HOUR * HOUR} on: 2 are not those of their rows",
        f"sums of user, 24 h from {now // DAY * DAY} on: 1 are not those of their rows",
        f"sums of user, 168 h from {now // WEEK * WEEK} on: 1 are not those of their rows",
        f"sums of tag, 24 h from {now // DAY * DAY} on: 2 are not those of their rows",
    ]
