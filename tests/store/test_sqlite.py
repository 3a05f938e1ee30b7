"""What only the SQLite store does: several processes on one file, reading beside writing, leases, and failures of the file."""

import asyncio
import os
import re
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace_server.domain.errors import CorruptRow, ErrorCode, StoreUnavailable
from headrace_server.domain.lifecycle import State
from headrace_server.domain.limits import LimitType
from headrace_server.domain.ports import Reservation, Settlement
from headrace_server.domain.record import RequestQuery
from headrace_server.domain.result import Attempt
from headrace_server.domain.usage import Usage, UsageSource
from headrace_server.store import Durability, MigrationError, SqliteStore
from headrace_server.store.nodes import LEASE, is_alive
from headrace_server.store.sqlite import AT_ONCE
from support.store import listed, salvaged

Sql = Callable[..., list[Any]]
RPM, TPM = LimitType.REQUESTS_PER_MINUTE, LimitType.TOKENS_PER_MINUTE
SLOW = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000000) SELECT max(i) FROM n"


def reservation(request_id: str = "", attempt: int = 1, tokens: int = 100) -> Reservation:
    return Reservation(request_id=request_id or str(uuid.uuid4()), attempt=attempt, provider="claude", model="m", tokens=tokens)


def dead_pid() -> int:
    """The number of a process that has just ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


# ---------------------------------------------------------------- the connections


@pytest.mark.parametrize(("durability", "level"), [(Durability.STRICT, 2), (Durability.NORMAL, 1), (Durability.RELAXED, 0)])
async def test_connection_flushes_as_the_durability_says(open_sqlite: Any, sql: Sql, durability: Durability, level: int) -> None:
    store = await open_sqlite(durability=durability)
    for pragma, value in (("synchronous", level), ("foreign_keys", 1), ("busy_timeout", 2_000)):

        async def read(db: Any, pragma: str = pragma) -> Any:
            return await db.execute_fetchall(f"PRAGMA {pragma}")

        assert await store._work(read) == [(value,)]
    assert sql("PRAGMA journal_mode") == [("wal",)]


async def test_readers_cannot_write(open_sqlite: Any) -> None:
    store = await open_sqlite()
    with pytest.raises(StoreUnavailable, match="read-only"):
        await store._readers.fetch("DELETE FROM provider_configs")
    assert len(await store.list_providers()) == 3


async def test_slow_reads_do_not_delay_a_commit(open_sqlite: Any, make: Any) -> None:
    store = await open_sqlite(readers=2)
    slow = [asyncio.create_task(store._readers.fetch(SLOW)) for _ in range(2)]
    await asyncio.sleep(0.01)
    for _ in range(5):
        row = make.row()
        await asyncio.wait_for(store.accept(row), 5)
        await asyncio.wait_for(store.finish(make.ended(row), [make.metrics(row)], []), 5)
    assert not any(task.done() for task in slow)
    for task in slow:
        task.cancel()
    await asyncio.wait(slow)


async def test_reader_is_free_again_when_its_caller_is_cancelled(open_sqlite: Any, make: Any) -> None:
    store = await open_sqlite(readers=1)
    slow = asyncio.create_task(store._readers.fetch(SLOW))
    await asyncio.sleep(0.01)
    slow.cancel()
    await asyncio.wait([slow])
    assert await asyncio.wait_for(store.get(make.row().request_id), 5) is None


# ---------------------------------------------------------------- several processes


async def test_two_stores_admit_exactly_the_limit_when_they_share_a_file(open_sqlite: Any, now: int) -> None:
    stores = [await open_sqlite("one"), await open_sqlite("two")]
    wanted = [(store, reservation()) for store in stores for _ in range(60)]
    answers = await asyncio.gather(*(store.reserve(one, {RPM: 50, TPM: 10_000}, now) for store, one in wanted))
    assert answers.count(None) == 50
    assert [window.reserved for window in await stores[0].list_windows()] == [50, 5_000]
    for (store, one), refused in zip(wanted, answers, strict=True):
        if refused is None:
            await store.settle(Settlement(reservation=one, tokens=1), now)
    assert [(w.current_usage, w.reserved) for w in await stores[1].list_windows()] == [(50, 0), (50, 0)]


async def test_two_stores_insert_one_row_when_the_id_is_the_same(open_sqlite: Any, make: Any) -> None:
    one, two = await open_sqlite("one"), await open_sqlite("two")
    first = make.row()
    second = make.row(first.request_id)
    answers = await asyncio.gather(one.accept(first), two.accept(second))
    assert answers in ([None, first], [second, None])


async def test_recover_leaves_the_requests_of_a_living_process(open_sqlite: Any, make: Any, clock: Any) -> None:
    one, two = await open_sqlite("one"), await open_sqlite("two")
    await one.accept(make.row(node="one"))
    assert await two.recover("two", clock(), salvaged) == []


async def test_recover_ends_requests_when_the_lease_has_run_out(open_sqlite: Any, make: Any, clock: Any, sql: Sql) -> None:
    one, two = await open_sqlite("one"), await open_sqlite("two")
    row = make.row(node="one")
    await one.accept(row)
    assert await two.recover("two", clock() + LEASE - 1, salvaged) == []
    [ended] = await two.recover("two", clock() + LEASE, salvaged)
    assert (ended.request_id, ended.error_code) == (row.request_id, ErrorCode.INTERRUPTED)
    assert sql("SELECT id FROM nodes") == [("two",)]


async def test_recover_ends_requests_when_the_process_is_gone_from_this_machine(open_sqlite: Any, make: Any, clock: Any, sql: Sql) -> None:
    store = await open_sqlite()
    for node, host, pid in (("gone", os.uname().nodename, dead_pid()), ("elsewhere", "another-host", dead_pid())):
        sql("INSERT INTO nodes VALUES (?, ?, ?, 1, ?)", (node, host, pid, clock() + LEASE))
        await store.accept(make.row(node=node))
    assert [row.node for row in await store.recover("here", clock(), salvaged)] == ["gone"]
    assert sql("SELECT id FROM nodes ORDER BY id") == [("elsewhere",), ("here",)]


async def test_recover_settles_what_dead_processes_hold(open_sqlite: Any, make: Any, clock: Any, now: int) -> None:
    dead, store = await open_sqlite("dead"), await open_sqlite()
    done = Attempt(
        provider="claude",
        model="m",
        state=State.FAILED,
        start_time=now,
        duration=1,
        usage=Usage(total_tokens=7, source=UsageSource.PROVIDER),
    )
    going = Attempt(provider="claude", model="m", state=State.REQUESTING, start_time=now)
    # No intent on record; an attempt without an end; one with its usage; and a request that is gone.
    for tokens, attempts in ((1, ()), (10, (going,)), (100, (done,)), (1_000, None)):
        row = make.row(node="dead", attempts=attempts or ())
        if attempts is not None:
            await dead.accept(row)
        assert await dead.reserve(reservation(row.request_id, tokens=tokens), {RPM: 9, TPM: 9_999}, now) is None
    kept = reservation(tokens=5)
    assert await store.reserve(kept, {RPM: 9, TPM: 9_999}, now) is None
    await store.recover("here", clock() + LEASE, salvaged)
    windows = {window.limit_type: (window.current_usage, window.reserved) for window in await store.list_windows()}
    assert windows == {RPM: (3, 1), TPM: (10 + 7 + 1_000, 5)}


async def test_recover_settles_what_an_ended_request_left_behind(open_sqlite: Any, make: Any, clock: Any, now: int) -> None:
    dead, store = await open_sqlite("dead"), await open_sqlite()
    row = make.row(node="dead")
    await dead.accept(row)
    await dead.finish(make.ended(row), [], [])
    await dead.reserve(reservation(row.request_id), {RPM: 9}, now)
    assert await store.recover("here", clock() + LEASE, salvaged) == []
    assert [(w.current_usage, w.reserved) for w in await store.list_windows()] == [(0, 0)]


async def test_recover_ends_a_row_that_cannot_be_read(open_sqlite: Any, make: Any, clock: Any, sql: Sql) -> None:
    store = await open_sqlite()
    bad, good = make.row(node="dead"), make.row(node="dead")
    await store.accept(bad)
    await store.accept(good)
    sql("UPDATE provider_logs SET transitions = 'x' WHERE id = ?", (bad.id,))
    assert [row.id for row in await store.recover("here", clock(), salvaged)] == [good.id]
    assert sql("SELECT state, error_code FROM provider_logs WHERE id = ?", (bad.id,)) == [("failed", "interrupted")]


async def test_process_is_registered_while_the_store_is_open(open_sqlite: Any, clock: Any, sql: Sql) -> None:
    store = await open_sqlite()
    assert sql("SELECT id, pid, started_at, lease_until FROM nodes") == [("here", os.getpid(), clock(), clock() + LEASE)]
    clock.now += 1_000
    await store.ping()
    assert sql("SELECT lease_until FROM nodes") == [(clock() + LEASE,)]
    await store.close()
    assert sql("SELECT id FROM nodes") == []


async def test_lease_is_renewed_by_itself(open_sqlite: Any, clock: Any, sql: Sql, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace_server.store.sqlite.RENEWAL", 0.005)
    await open_sqlite()
    clock.now += 1_000
    async with asyncio.timeout(5):
        while sql("SELECT lease_until FROM nodes") != [(clock() + LEASE,)]:
            await asyncio.sleep(0.005)


def test_is_alive_tells_the_living_from_the_dead() -> None:
    assert is_alive(os.getpid())
    assert is_alive(1)
    assert not is_alive(dead_pid())


# ---------------------------------------------------------------- failures


async def test_open_names_the_path_when_the_file_is_no_database(path: Path, open_sqlite: Any) -> None:
    path.write_bytes(b"no database at all, but long enough to have a header\n" * 100)
    with pytest.raises(MigrationError, match=f"{re.escape(str(path))} is not a SQLite database"):
        await open_sqlite()


async def test_open_names_the_path_when_it_cannot_be_opened(path: Path, open_sqlite: Any) -> None:
    path.mkdir()
    with pytest.raises(StoreUnavailable, match=re.escape(str(path))):
        await open_sqlite()


async def test_open_makes_the_folder_when_it_is_missing(tmp_path: Path, clock: Any) -> None:
    store = SqliteStore(tmp_path / "a" / "b?#%.db", node="here", clock=clock)
    await store.open()
    assert len(await store.list_providers()) == 3
    await store.close()


@pytest.mark.parametrize("replaced", [False, True])
async def test_writes_are_unavailable_when_the_file_is_gone(open_sqlite: Any, path: Path, make: Any, replaced: bool) -> None:
    store = await open_sqlite()
    moved = path.with_suffix(".moved")
    path.rename(moved)
    if replaced:
        path.touch()
    words = "was replaced" if replaced else "is gone"
    with pytest.raises(StoreUnavailable, match=words):
        await store.ping()
    with pytest.raises(StoreUnavailable, match=words):
        await store.accept(make.row())
    moved.rename(path)
    await store.ping()
    assert await store.accept(make.row()) is None


async def test_finish_refuses_alone_when_the_database_refuses_a_row(open_sqlite: Any, make: Any) -> None:
    store = await open_sqlite()
    bad, good = make.row(), make.row()
    await store.accept(bad)
    await store.accept(good)
    outcomes = await asyncio.gather(
        store.finish(make.ended(bad), [make.metrics(make.row())], []),  # metrics of a request that is not there
        store.finish(make.ended(good, duration=2**63), [], []),
        store.finish(make.ended(good), [make.metrics(good)], []),
        return_exceptions=True,
    )
    assert str(outcomes[0]) == f"provider_logs row {bad.id}: column ? is corrupt: FOREIGN KEY constraint failed"
    assert isinstance(outcomes[1], CorruptRow)
    assert outcomes[2] == make.ended(good)
    assert await store.get(bad.request_id) == bad
    assert await store.get(good.request_id) == make.ended(good)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("request_data", '{"request_id": 5}'),
        ("response_data", "{"),
        ("error_data", '{"code": "oops"}'),
        ("attempts", '[{"provider": "claude"}]'),
        ("transitions", "[1]"),
        ("tags", '["\\u0000"]'),
        ("conversation_id", "no uuid"),
        ("start_time", "soon"),
        ("trace_id", "xyz"),
        ("model", "nul\0"),
    ],
)
async def test_get_names_the_column_when_a_stored_row_is_corrupt(open_sqlite: Any, make: Any, sql: Sql, column: str, value: str) -> None:
    store = await open_sqlite()
    row = make.row()
    await store.accept(row)
    sql(f"UPDATE provider_logs SET {column} = ?", (value,))
    for read in (store.get(row.request_id), listed(store)):
        with pytest.raises(CorruptRow) as raised:
            await read
        assert (raised.value.table, raised.value.row_id, raised.value.column) == ("provider_logs", row.id, column)


async def test_others_get_their_turn_while_a_long_list_is_read(open_sqlite: Any, make: Any) -> None:
    store = await open_sqlite()
    for _ in range(3 * AT_ONCE):
        await store.accept(make.row())
    read, turns = 0, set()

    async def other() -> None:
        while True:
            turns.add(read)
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    async for _ in store.list_requests(RequestQuery(page_size=1_000)):
        read += 1
    task.cancel()

    assert read == 3 * AT_ONCE
    assert turns >= {AT_ONCE, 2 * AT_ONCE}


@pytest.mark.parametrize(
    ("table", "column", "value", "method"),
    [
        ("provider_configs", "config_json", '{"zone": "Mars/Base"}', "list_providers"),
        ("provider_configs", "default_model", "no spaces please", "list_providers"),
        ("provider_rate_limits", "reset_at", "soon", "list_windows"),
    ],
)
async def test_list_names_the_column_when_a_stored_row_is_corrupt(
    open_sqlite: Any, sql: Sql, now: int, table: str, column: str, value: str, method: str
) -> None:
    store = await open_sqlite()
    await store.reserve(reservation(), {RPM: 5}, now)
    sql(f"UPDATE {table} SET {column} = ?", (value,))
    with pytest.raises(CorruptRow) as raised:
        await getattr(store, method)()
    assert (raised.value.table, raised.value.column) == (table, column)
    assert (raised.value.row_id,) in sql(f"SELECT id FROM {table}")


async def test_metrics_name_the_column_when_a_stored_row_is_corrupt(open_sqlite: Any, make: Any, sql: Sql) -> None:
    store = await open_sqlite()
    row = make.row()
    await store.accept(row)
    await store.finish(make.ended(row), [make.metrics(row)], [])
    sql("UPDATE provider_metrics SET total_tokens = 'many'")
    with pytest.raises(CorruptRow, match=r"provider_metrics row .* column total_tokens is corrupt"):
        await store.list_metrics(row.request_id)


async def test_rows_survive_when_the_process_is_killed(path: Path, open_sqlite: Any) -> None:
    program = f"""
import asyncio, os, pathlib, time, uuid
from headrace_server.domain.record import LogRow
from headrace_server.store import SqliteStore

async def main():
    store = SqliteStore(pathlib.Path({str(path)!r}), node="killed", clock=lambda: int(time.time() * 1000))
    await store.open()
    for _ in range(20):
        new = str(uuid.uuid4())
        row = LogRow(id=new, request_id=new, state="requesting", node="killed", start_time=1, created_at=1, updated_at=1)
        await store.accept(row)
    os.kill(os.getpid(), 9)

asyncio.run(main())
"""
    killed = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}, timeout=50, check=False
    )
    assert killed.returncode == -9
    store = await open_sqlite()
    ended = await store.recover("here", 1, salvaged)
    assert len(ended) == 20
    assert {row.error_code for row in ended} == {ErrorCode.INTERRUPTED}
