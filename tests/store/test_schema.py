"""What stands in the migrations: tables, rules, indexes, triggers and views, seen with plain SQL."""

import re
import sqlite3
import time
import uuid
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from headrace_server.domain.errors import ErrorCode
from headrace_server.domain.lifecycle import State
from headrace_server.domain.record import RequestQuery
from headrace_server.store.defaults import default_providers
from headrace_server.store.migrate import migrate
from headrace_server.store.queries import requests_page
from headrace_server.store.rows import LOGS, METRICS, PROVIDERS

HOUR = 3_600_000
Sql = Callable[..., list[Any]]


@pytest.fixture(autouse=True)
def migrated(path: Path) -> None:
    migrate(path)


def insert(sql: Sql, table: str, **values: Any) -> None:
    sql(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", list(values.values()))


def insert_log(sql: Sql, **values: Any) -> str:
    request_id = str(uuid.uuid4())
    defaults = {"id": str(uuid.uuid4()), "request_id": request_id, "state": "idle", "start_time": 1, "created_at": 1, "updated_at": 1}
    insert(sql, "provider_logs", **(defaults | values))
    return str(values.get("request_id", request_id))


def insert_metrics(sql: Sql, request_id: str, **values: Any) -> None:
    defaults = {"id": str(uuid.uuid4()), "request_id": request_id, "provider": "claude", "model": "m", "success": 1, "created_at": 1}
    insert(sql, "provider_metrics", **(defaults | values))


def insert_limit(sql: Sql, **values: Any) -> None:
    defaults = {"id": str(uuid.uuid4()), "provider": "claude", "model": "m", "limit_type": "requests_per_day", "limit_value": 5}
    insert(sql, "provider_rate_limits", **(defaults | {"reset_at": 9, "created_at": 1, "updated_at": 1} | values))


def now() -> int:
    return int(time.time() * 1000)


# ---------------------------------------------------------------- tables and indexes


def test_tables_are_these(sql: Sql) -> None:
    tables = {name for (name,) in sql("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")}
    assert tables == {
        "provider_configs",
        "provider_logs",
        "provider_metrics",
        "provider_rate_limits",
        "rate_limit_reservations",
        "request_tags",
        "stream_chunks",
        "usage_sums",
        "api_tokens",
        "nodes",
        "schema_migrations",
    }


@pytest.mark.parametrize("table", [LOGS, METRICS, PROVIDERS], ids=lambda table: str(table.name))
def test_columns_are_those_of_the_model(sql: Sql, table: Any) -> None:
    columns = {column[1] for column in sql(f"PRAGMA table_info({table.name})")}
    assert columns - {"revision", "summed"} == set(table.names())


def test_indexes_are_these(sql: Sql) -> None:
    found = {}
    for name, table in sql("SELECT name, tbl_name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL"):
        columns = ", ".join(column for _, _, column in sql(f"PRAGMA index_info({name})"))
        unique = {index[1]: index[2] for index in sql(f"PRAGMA index_list({table})")}[name]
        found[name] = f"{table} ({columns}){' unique' if unique else ''}"
    assert found == {
        "provider_configs_provider": "provider_configs (provider) unique",
        "provider_configs_enabled": "provider_configs (enabled)",
        "provider_configs_priority": "provider_configs (priority)",
        "provider_logs_request_id": "provider_logs (request_id) unique",
        "provider_logs_created_at": "provider_logs (created_at)",
        "provider_logs_conversation_id_created_at": "provider_logs (conversation_id, created_at)",
        "provider_logs_user_id_created_at": "provider_logs (user_id, created_at)",
        "provider_logs_provider_state": "provider_logs (provider, state)",
        "provider_logs_provider_created_at": "provider_logs (provider, created_at)",
        "provider_logs_error_code_created_at": "provider_logs (error_code, created_at)",
        "provider_logs_model_created_at": "provider_logs (model, created_at)",
        "provider_logs_state_created_at": "provider_logs (state, created_at)",
        "provider_metrics_request_id": "provider_metrics (request_id)",
        "provider_metrics_created_at": "provider_metrics (created_at)",
        "provider_metrics_model": "provider_metrics (model)",
        "provider_metrics_success": "provider_metrics (success)",
        "provider_metrics_provider_model": "provider_metrics (provider, model)",
        "provider_metrics_provider_success": "provider_metrics (provider, success)",
        "provider_metrics_unsummed": "provider_metrics (created_at)",
        "provider_rate_limits_provider_model_limit_type": "provider_rate_limits (provider, model, limit_type) unique",
        "provider_rate_limits_reset_at": "provider_rate_limits (reset_at)",
        "stream_chunks_created_at": "stream_chunks (created_at)",
        "api_tokens_token_hash": "api_tokens (token_hash) unique",
    }


@pytest.mark.parametrize(
    ("asked", "index"),
    [
        ({}, "provider_logs_created_at"),
        ({"before": (5, "x")}, "provider_logs_created_at"),
        ({"start_time": 5, "end_time": 9}, "provider_logs_created_at"),
        ({"conversation_id": "01890a5d-ac96-774b-bcce-b302099a8057"}, "provider_logs_conversation_id_created_at"),
        ({"user_id": "u", "start_time": 5}, "provider_logs_user_id_created_at"),
        ({"state": "failed"}, "provider_logs_state_created_at"),
        ({"state": "failed", "provider": "claude"}, "provider_logs_state_created_at"),
        ({"provider": "claude"}, "provider_logs_provider_created_at"),
        ({"provider": "claude", "start_time": 5}, "provider_logs_provider_created_at"),
        ({"model": "m"}, "provider_logs_model_created_at"),
        ({"model": "m", "provider": "claude", "before": (5, "x")}, "provider_logs_model_created_at"),
        ({"error_code": "timeout"}, "provider_logs_error_code_created_at"),
        ({"error_code": "timeout", "state": "failed", "model": "m"}, "provider_logs_error_code_created_at"),
        ({"tag": "t", "user_id": "u"}, "provider_logs_user_id_created_at"),
    ],
    ids=str,
)
def test_page_of_requests_follows_an_index_instead_of_sorting(sql: Sql, asked: dict[str, Any], index: str) -> None:
    statement, values = requests_page(RequestQuery.model_validate(asked))
    plan = "; ".join(row[3] for row in sql(f"EXPLAIN QUERY PLAN {statement}", values))
    assert re.search(rf"INDEX {index}\b", plan)
    assert "TEMP B-TREE FOR ORDER BY" not in plan  # ids within one millisecond are sorted, and nothing else


@pytest.mark.parametrize("asked", [{}, {"state": "failed", "model": "m"}, {"start_time": 5, "end_time": 9}, {"before": (5, "x")}], ids=str)
def test_page_of_requests_with_a_tag_follows_the_list_of_that_tag(sql: Sql, asked: dict[str, Any]) -> None:
    statement, values = requests_page(RequestQuery.model_validate({"tag": "t", **asked}))
    plan = "; ".join(row[3] for row in sql(f"EXPLAIN QUERY PLAN {statement}", values))
    assert "SEARCH tagged USING PRIMARY KEY (tag=?" in plan
    assert "TEMP B-TREE FOR ORDER BY" not in plan  # ids within one millisecond are sorted, and nothing else


def test_request_is_found_by_its_id(sql: Sql) -> None:
    [plan] = sql("EXPLAIN QUERY PLAN SELECT * FROM provider_logs WHERE request_id = 'x'")
    assert "USING INDEX provider_logs_request_id" in plan[3]


# ---------------------------------------------------------------- rules


def test_default_providers_are_those_of_the_code(sql: Sql) -> None:
    rows = [PROVIDERS.decode(record) for record in sql(f"SELECT {', '.join(PROVIDERS.names())} FROM provider_configs ORDER BY priority")]
    assert rows == [
        row.model_copy(update={"created_at": rows[0].created_at, "updated_at": rows[0].created_at}) for row in default_providers(0)
    ]
    assert abs(rows[0].created_at - now()) < 60_000


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_allowed(sql: Sql, state: State) -> None:
    insert_log(sql, state=state.value)
    assert sql("SELECT count(*) FROM provider_logs WHERE state = ?", (state.value,)) == [(1,)]


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_error_code_is_allowed(sql: Sql, code: ErrorCode) -> None:
    insert_log(sql, error_code=code.value)
    assert sql("SELECT count(*) FROM provider_logs WHERE error_code = ?", (code.value,)) == [(1,)]


@pytest.mark.parametrize("provider", ["", "a", "claude", "my-own_2", "a" * 63])
def test_provider_names_are_allowed_when_they_fit_the_pattern(sql: Sql, provider: str) -> None:
    insert_metrics(sql, insert_log(sql, provider=provider), provider=provider)
    insert_limit(sql, provider=provider)
    assert sql("SELECT count(*) FROM provider_metrics") == [(1,)]


@pytest.mark.parametrize("provider", ["Claude", "1a", "-a", "a b", "a.b", "ä", "a" * 64])
def test_provider_names_are_refused_when_they_do_not_fit_the_pattern(sql: Sql, provider: str) -> None:
    request_id = insert_log(sql)
    for write in (
        lambda: insert_log(sql, provider=provider),
        lambda: insert_metrics(sql, request_id, provider=provider),
        lambda: insert_limit(sql, provider=provider),
        lambda: sql("UPDATE provider_configs SET provider = ? WHERE provider = 'claude'", (provider,)),
    ):
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            write()


@pytest.mark.parametrize(
    "values",
    [{"state": "done"}, {"error_code": "oops"}, {"duration": -1}, {"retry_attempt": -1}, {"tags": "["}, {"state": None}],
    ids=str,
)
def test_logs_refuse_what_breaks_the_rules(sql: Sql, values: dict[str, Any]) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        insert_log(sql, **values)


@pytest.mark.parametrize(
    "change", ["dialect = 'grok'", "enabled = 2", "priority = -1", "rate_limit_rpm = 0", "max_retries = 0", "fallback_providers = 'x'"]
)
def test_configs_refuse_what_breaks_the_rules(sql: Sql, change: str) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        sql(f"UPDATE provider_configs SET {change}")


@pytest.mark.parametrize("values", [{"limit_type": "requests_per_year"}, {"limit_value": 0}, {"reserved": -1}], ids=str)
def test_limits_refuse_what_breaks_the_rules(sql: Sql, values: dict[str, Any]) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
        insert_limit(sql, **values)


def test_limits_have_one_row_for_each_provider_model_and_type(sql: Sql) -> None:
    insert_limit(sql)
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        insert_limit(sql)


def test_metrics_need_their_log_and_go_with_it(sql: Sql) -> None:
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        insert_metrics(sql, "nobody")
    request_id = insert_log(sql)
    insert_metrics(sql, request_id)
    sql("DELETE FROM provider_logs")
    assert sql("SELECT count(*) FROM provider_metrics") == [(0,)]


# ---------------------------------------------------------------- triggers


@pytest.mark.parametrize("recursive", ["off", "on"])
@pytest.mark.parametrize(
    ("table", "change"),
    [
        ("provider_logs", "error_message = 'edited'"),
        ("provider_configs", "priority = 9"),
        ("provider_rate_limits", "limit_value = 9"),
    ],
)
def test_updated_at_is_set_when_a_row_is_edited_by_hand(path: Path, sql: Sql, table: str, change: str, recursive: str) -> None:
    insert_log(sql)
    insert_limit(sql)
    sql(f"UPDATE {table} SET updated_at = 2")  # not what it was: that would be an edit by hand too
    before = now()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA recursive_triggers = {recursive}")
        changed = connection.total_changes
        connection.execute(f"UPDATE {table} SET {change}")
        rows = connection.execute(f"SELECT updated_at FROM {table}").fetchall()
        assert all(before - 1 <= updated_at <= now() + 1 for (updated_at,) in rows)
        assert connection.total_changes - changed == 2 * len(rows)  # the edit and one write of the trigger


@pytest.mark.parametrize(
    "change", ["updated_at = 777, error_message = 'x'", "revision = revision + 1, updated_at = 1, error_message = 'x'"]
)
def test_updated_at_stays_without_a_further_write_when_the_writer_sets_it(path: Path, sql: Sql, change: str) -> None:
    insert_log(sql)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        changed = connection.total_changes
        connection.execute(f"UPDATE provider_logs SET {change}")
        assert connection.total_changes - changed == 1
    assert sql("SELECT updated_at FROM provider_logs") == [(777 if "777" in change else 1,)]


def test_there_are_three_triggers(sql: Sql) -> None:
    assert triggers(sql) - OF_SUMS_AND_TAGS == {
        "provider_configs_updated_at",
        "provider_logs_updated_at",
        "provider_rate_limits_updated_at",
    }


def test_sums_and_tags_are_kept_by_triggers(sql: Sql) -> None:
    assert triggers(sql) >= OF_SUMS_AND_TAGS


def triggers(sql: Sql) -> set[str]:
    return {name for (name,) in sql("SELECT name FROM sqlite_schema WHERE type = 'trigger'")}


OF_SUMS_AND_TAGS = frozenset(
    {
        "provider_logs_tags_added",
        "provider_logs_tags_changed",
        "provider_logs_tags_deleted",
        "provider_logs_changing",
        "provider_logs_deleting",
        "provider_metrics_changing",
        "provider_metrics_changed",
        "provider_metrics_taken_out",
        "usage_parts_taken_out",
    }
)


def test_tags_are_listed_as_their_requests_have_them(sql: Sql) -> None:
    listed = "SELECT tag, created_at, id FROM request_tags ORDER BY tag, created_at, id"
    insert_log(sql, id="1", tags='["b", "a", "b"]', created_at=5)
    insert_log(sql, id="2", tags='["a"]', created_at=4)
    insert_log(sql, id="3")
    assert sql(listed) == [("a", 4, "2"), ("a", 5, "1"), ("b", 5, "1")]
    sql("""UPDATE provider_logs SET tags = '["c"]', created_at = 7 WHERE id = '1'""")
    assert sql(listed) == [("a", 4, "2"), ("c", 7, "1")]
    sql("UPDATE provider_logs SET tags = '[]' WHERE id = '1'")
    sql("DELETE FROM provider_logs WHERE id = '2'")
    assert sql(listed) == []


# ---------------------------------------------------------------- views


def view(path: Path, name: str) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {name}")]


def test_success_rate_counts_each_provider_and_model_over_seven_days(path: Path, sql: Sql) -> None:
    request_id = insert_log(sql)
    recent, old = now() - 6 * 24 * HOUR, now() - 7 * 24 * HOUR - 60_000
    for values in (
        {"success": 1, "total_duration": 100, "first_token_latency": 10, "total_tokens": 5},
        {"success": 1, "total_duration": 200, "first_token_latency": None, "total_tokens": 7, "retry_count": 2},
        {"success": 0, "total_duration": 300, "first_token_latency": 30, "total_tokens": 0, "retry_count": 1},
        {"success": 1, "total_duration": None, "total_tokens": 1, "is_fallback": 1},
    ):
        insert_metrics(sql, request_id, created_at=recent, **values)
    insert_metrics(sql, request_id, created_at=recent, model="other", success=0)
    insert_metrics(sql, request_id, created_at=recent, provider="gemini")
    insert_metrics(sql, request_id, created_at=old, success=0)
    rows = view(path, "provider_success_rate")
    assert [(row["provider"], row["model"]) for row in rows] == [("claude", "m"), ("claude", "other"), ("gemini", "m")]
    assert rows[0] == {
        "provider": "claude",
        "model": "m",
        "total_requests": 4,
        "successful_requests": 3,
        "success_rate": 75.0,
        "avg_duration": 200.0,
        "avg_first_token_latency": 20.0,
        "total_tokens": 13,
        "retry_rate": 50.0,
        "fallback_rate": 25.0,
    }
    assert (rows[1]["success_rate"], rows[1]["avg_duration"]) == (0.0, None)


def test_hourly_performance_shows_the_last_day_newest_first(path: Path, sql: Sql) -> None:
    request_id = insert_log(sql)
    this_hour = now() // HOUR * HOUR
    for created_at, provider in [
        (this_hour - 2 * HOUR, "claude"),
        (this_hour - 2 * HOUR + HOUR - 1, "claude"),
        (this_hour - 2 * HOUR, "gemini"),
        (this_hour - 5 * HOUR + 5, "claude"),
        (now() - 24 * HOUR - 60_000, "claude"),
    ]:
        insert_metrics(sql, request_id, created_at=created_at, provider=provider, total_duration=40, total_tokens=3, retry_count=1)
    rows = view(path, "provider_performance_hourly")
    assert [(row["hour"], row["provider"]) for row in rows] == [
        (this_hour - 2 * HOUR, "claude"),
        (this_hour - 2 * HOUR, "gemini"),
        (this_hour - 5 * HOUR, "claude"),
    ]
    assert rows[0] == {
        "provider": "claude",
        "hour": this_hour - 2 * HOUR,
        "request_count": 2,
        "avg_duration": 40.0,
        "avg_first_token_latency": None,
        "total_tokens": 6,
        "retry_rate": 100.0,
        "fallback_rate": 0.0,
    }


def test_failed_requests_have_one_line_each_newest_first(path: Path, sql: Sql) -> None:
    first = insert_log(
        sql,
        state="failed",
        provider="gemini",
        model="g",
        error_message="no",
        error_code="timeout",
        retry_attempt=2,
        created_at=5,
        duration=9,
    )
    for provider in ("claude", "gemini"):
        insert_metrics(sql, first, provider=provider, success=0)
    second = insert_log(sql, state="failed", created_at=6)  # no provider was tried
    insert_log(sql, state="completed", created_at=7)
    rows = view(path, "provider_failed_requests")
    assert [row["request_id"] for row in rows] == [second, first]
    assert {name: value for name, value in rows[1].items() if name != "id"} == {
        "request_id": first,
        "provider": "gemini",
        "model": "g",
        "state": "failed",
        "error_message": "no",
        "error_code": "timeout",
        "retry_attempt": 2,
        "created_at": 5,
        "total_duration": 9,
    }
