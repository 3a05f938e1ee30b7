"""Group commit, on a real database."""

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace_server.domain.errors import StoreUnavailable
from headrace_server.store import connection as connections
from headrace_server.store.connection import Database, Durability, open_writer
from headrace_server.store.writer import Writer

Sql = Callable[..., list[Any]]


class Recorder:
    """Writes numbers into a table, and remembers which came together."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.threads: list[bool] = []
        """Whether each batch was carried out in the connection's own thread."""
        self.gate = threading.Event()
        self.gate.set()

    async def __call__(self, connection: Database, operations: list[Any]) -> list[Any]:
        self.batches.append(operations)
        self.threads.append(threading.current_thread() is not threading.main_thread())
        while not self.gate.is_set():
            if self.threads[-1]:
                self.gate.wait()
            else:
                await asyncio.sleep(0.001)
        await connection.executemany("INSERT INTO numbers VALUES (?)", [(number,) for number in operations])
        return [number * 10 for number in operations]


@dataclass
class Bench:
    writer: Writer
    recorder: Recorder
    broken: str = ""

    def check(self) -> None:
        if self.broken:
            raise StoreUnavailable(self.broken)


@pytest.fixture
async def bench(path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    monkeypatch.setattr(connections, "BUSY_TIMEOUT", 20)
    connection = await open_writer(path, Durability.NORMAL)
    await connection.execute("PRAGMA journal_mode = wal")
    await connection.execute("CREATE TABLE numbers (n INTEGER PRIMARY KEY CHECK (n >= 0))")
    recorder = Recorder()
    bench = Bench(None, recorder)  # type: ignore[arg-type]
    bench.writer = Writer(connection, recorder, bench.check)
    yield bench
    recorder.gate.set()
    await bench.writer.close()


async def test_lone_operation_is_committed_at_once(bench: Bench, sql: Sql) -> None:
    assert await bench.writer.submit(1) == 10
    assert sql("SELECT n FROM numbers") == [(1,)]


async def test_operations_share_a_commit_when_they_gather_during_another(bench: Bench) -> None:
    bench.recorder.gate.clear()
    first = bench.writer.submit(0)
    while not bench.recorder.batches:
        await asyncio.sleep(0)
    others = [bench.writer.submit(n) for n in range(1, 100)]
    bench.recorder.gate.set()
    assert await asyncio.gather(first, *others) == [n * 10 for n in range(100)]
    assert bench.recorder.batches == [[0], list(range(1, 100))]
    assert bench.recorder.threads == [True, False]


async def test_operation_fails_alone_when_its_batch_is_refused(bench: Bench, sql: Sql) -> None:
    outcomes = await asyncio.gather(*(bench.writer.submit(n) for n in (1, -1, 2, 1)), return_exceptions=True)
    assert (outcomes[0], outcomes[2]) == (10, 20)
    assert isinstance(outcomes[1], sqlite3.IntegrityError)
    assert isinstance(outcomes[3], sqlite3.IntegrityError)
    assert sql("SELECT n FROM numbers") == [(1,), (2,)]
    assert await bench.writer.submit(3) == 30


async def test_operation_is_carried_out_when_its_caller_is_cancelled(bench: Bench, sql: Sql) -> None:
    bench.recorder.gate.clear()

    async def call(n: int) -> Any:
        return await bench.writer.submit(n)

    callers = [asyncio.create_task(call(n)) for n in range(3)]
    while not bench.recorder.batches:
        await asyncio.sleep(0)
    callers[1].cancel()
    await asyncio.wait([callers[1]])
    bench.recorder.gate.set()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert (answers[0], answers[2]) == (0, 20)
    assert isinstance(answers[1], asyncio.CancelledError)
    assert sql("SELECT n FROM numbers") == [(0,), (1,), (2,)]


async def test_writer_waits_when_another_program_holds_the_lock_for_a_moment(bench: Bench, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = bench.writer.submit(1)
        await asyncio.sleep(0.03)
        other.execute("ROLLBACK")
        assert await answer == 10


async def test_operation_is_unavailable_when_another_program_keeps_the_lock(bench: Bench, path: Path, sql: Sql) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="locked by another program"):
            await bench.writer.submit(1)
        other.execute("ROLLBACK")
    assert await bench.writer.submit(2) == 20
    assert sql("SELECT n FROM numbers") == [(2,)]


async def test_operations_are_unavailable_when_the_check_fails(bench: Bench) -> None:
    bench.broken = "gone"
    for outcome in await asyncio.gather(bench.writer.submit(1), bench.writer.submit(2), return_exceptions=True):
        assert isinstance(outcome, StoreUnavailable)
    bench.broken = ""
    assert await bench.writer.submit(3) == 30


async def test_operations_are_unavailable_when_the_disk_is_full(bench: Bench, sql: Sql) -> None:
    [(pages,)] = sql("PRAGMA page_count")
    connection = bench.writer._connection
    await connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreUnavailable, match="disk of the database is full"):
        await asyncio.gather(*(bench.writer.submit(n) for n in range(5_000)))
    await connection.execute("PRAGMA max_page_count = 100000")
    assert await bench.writer.submit(1) == 10
    assert sql("SELECT n FROM numbers") == [(1,)]


async def test_close_commits_what_waits(bench: Bench, sql: Sql) -> None:
    answers = [bench.writer.submit(n) for n in range(10)]
    await bench.writer.close()
    assert all(answer.done() for answer in answers)
    assert len(sql("SELECT n FROM numbers")) == 10
    with pytest.raises(StoreUnavailable):
        bench.writer.submit(11)


async def test_work_that_waits_for_more_than_the_database_is_not_done_in_its_thread(path: Path) -> None:
    connection = await open_writer(path, Durability.NORMAL)

    async def work(db: Database) -> None:
        await asyncio.sleep(0)

    with pytest.raises(AssertionError, match="waits for more than the database"):
        await connection.at_once(work)
    await connection.close()
